"""FlightLLM's mapping (arXiv:2401.03868, sections 4.1, 5.1): products on the matrix engine, the rest on the function unit.

- on_chip: what works on a product's results a column at a time (rotary embedding, activation, residual add) is fused behind it
  and never leaves the chip; norms need whole rows and stand alone;
- off_chip: every element-wise op reads its input from memory and writes its result back, as without the fusion.

Both leave out what the device's compression does, unless `attention=dense` or `weights=dense`. Either way one op is run at a
time, with a barrier of all instruction units after it (SYS).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from hwsim.cost.resources import matrix_unit
from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.op import Array, AttentionOp, Elementwise, Gemm, Op
from hwsim.placement.policy import Part, Policy, able

CORE = "core"  # the queue of all units of a core


def on_chip(attention: str = "sparse", weights: str = "pruned") -> Policy:
    """Element-wise work fused behind the product that it follows (always-on-chip decode)."""
    return _one_at_a_time


def off_chip(attention: str = "sparse", weights: str = "pruned") -> Policy:
    """Every op by itself, through memory."""
    return _one_at_a_time


def _one_at_a_time(op: Op, device: Device) -> Mapping[str, Array | Part]:
    return {able(op, device)[0]: Part(queue=CORE)}


def kept(ops: Iterable[Op], device: Device, attention: str = "sparse", weights: str = "pruned") -> list[Op]:
    """`ops` as the device's compression leaves them, or with `attention=dense` or `weights=dense` without what it leaves out."""
    matrix_unit(device)  # the mapping is for such machines alone
    for name, value, most in (("attention", attention, "sparse"), ("weights", weights, "pruned")):
        if value not in ("dense", most):
            raise InputError(f"policy flightllm: {name}={value[:40]}; accepted: dense, {most}")
    return [_dense(op, attention == "dense", weights == "dense") for op in ops]


def _dense(op: Op, attention: bool, weights: bool) -> Op:
    if isinstance(op, AttentionOp) and attention:
        return replace(op, blocks=())
    if isinstance(op, Gemm) and weights:
        return replace(op, kept=(1.0,) * len(op.parts))
    return op


def together(ops: Iterable[Op], device: Device, attention: str = "sparse", weights: str = "pruned") -> list[Op]:
    """What `on_chip` makes of a network."""
    return fused(kept(ops, device, attention, weights))


def fused(ops: Iterable[Op]) -> list[Op]:
    """`ops` with element-wise work as the epilogue of the product before it; who waits for it waits for the product."""
    found: dict[str, Op] = {}
    renamed: dict[str, str] = {}
    for given in ops:
        op = replace(given, after=tuple(dict.fromkeys(renamed.get(name, name) for name in given.after)))
        last = next(reversed(found.values()), None)
        if isinstance(last, Gemm) and isinstance(op, Elementwise) and _follows(op, last):
            waits = dict.fromkeys((*last.after, *(name for name in op.after if name != last.name)))
            found[last.name] = replace(last, epilogue=(*last.epilogue, op), after=tuple(waits))
            renamed[op.name] = last.name
        else:
            found[op.name] = op
    return list(found.values())


def _follows(op: Elementwise, last: Gemm) -> bool:
    return not op.whole and last.name in op.after and (last.block, last.rank) == (op.block, op.rank)


REWRITES = {"on_chip": together, "off_chip": kept}
