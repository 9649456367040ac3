"""Duplex's mapping (arXiv:2409.01141, sections IV and V): an xPU and a PIM behind one memory, each op where it belongs.

- linear layers, norms and prefill attention on the xPU, decode attention on the PIM;
- experts: all of a layer on the unit that is faster for it, or split: experts in ascending number of tokens move to the PIM, and
  the split with the smallest max(sum of xPU times, sum of PIM times) is taken (section V-B). Deciding costs nothing;
- without co-processing one unit works at a time: both share one queue.

Memory spaces (bank bundles, section V-C): the two units may read at full rate at once only in different spaces. `allocation`
- round-robin: experts are dealt over the spaces in contiguous groups and a group goes to one unit as a whole; KV and what prefill
  attention reads are in different spaces. No conflicts.
- free: as if every expert could be moved on its own (an upper bound; the same when a device holds no more experts than spaces).
- striped: every expert and the cache lie across all spaces. Then the units conflict wherever both read, and take turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hwsim.cost import price
from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.op import Array, AttentionOp, Experts, Op
from hwsim.placement.policy import ALL, Part, Policy, able, homes

TOGETHER = "xpu|pim"  # the queue of units that take turns
_ALLOCATIONS = ("round-robin", "free", "striped")


def faster() -> Policy:
    """Duplex without co-processing: experts on the faster unit, one unit at a time."""
    return _duplex(split=False, overlap=False, allocation="round-robin")


def pe(allocation: str = "round-robin") -> Policy:
    """Expert and attention co-processing."""
    return _duplex(split=True, overlap=True, allocation=allocation)


def pe_experts(allocation: str = "round-robin") -> Policy:
    """Expert co-processing alone: prefill and decode attention take turns."""
    return _duplex(split=True, overlap=False, allocation=allocation)


def pe_attention() -> Policy:
    """Attention co-processing alone: the experts of a layer all go to the faster unit."""
    return _duplex(split=False, overlap=True, allocation="round-robin")


def hetero() -> Policy:
    """The heterogeneous system of figure 5: all experts and decode attention on the PIM devices, all else on the GPUs."""

    def policy(op: Op, device: Device) -> Mapping[str, Array | Part]:
        xpu, pim = _units(op, device)
        return {pim if pim and (isinstance(op, Experts) or op.kind == "attention.decode") else xpu: ALL}

    return policy


def _units(op: Op, device: Device) -> tuple[str, str | None]:
    """The unit that is not a PIM, and the PIM where it can do `op` too."""
    names = able(op, device)
    pim = next((name for name in names if device.units[name].cost == "logic_pim"), None)
    return next((name for name in names if name != pim), names[0]), pim if len(names) > 1 else None


def _duplex(split: bool, overlap: bool, allocation: str) -> Policy:
    if allocation not in _ALLOCATIONS:
        raise InputError(f"policy duplex: allocation={allocation[:40]}; accepted: {', '.join(_ALLOCATIONS)}")
    conflicts = allocation == "striped"

    def policy(op: Op, device: Device) -> Mapping[str, Array | Part]:
        xpu, pim = _units(op, device)
        if pim is None:
            return {xpu: ALL}
        if isinstance(op, AttentionOp):
            unit = pim if op.kind == "attention.decode" else xpu
            return {unit: ALL if overlap and not conflicts else Part(queue=TOGETHER)}
        if not isinstance(op, Experts):
            return {xpu: ALL if split or overlap else Part(queue=TOGETHER)}
        spaces = 0 if allocation == "free" else device.memories[device.units[xpu].memory].spaces
        on_pim = _split(op, device, xpu, pim, spaces) if split else _all_or_none(op, device, xpu, pim)
        queue = "" if split and not conflicts else TOGETHER
        return _parts(op, {xpu: ~on_pim, pim: on_pim}, queue)

    return policy


def _parts(op: Experts, chosen: Mapping[str, NDArray[np.bool_]], queue: str) -> dict[str, Array | Part]:
    """The experts of each unit as an op of its own; the weights are resident with the first."""
    tokens = op.chosen if op.chosen.ndim == next(iter(chosen.values())).ndim else op.chosen[:, None]
    parts: dict[str, Array | Part] = {}
    for unit, mask in chosen.items():
        part = replace(op, chosen=np.where(mask, tokens, 0.0), tied=bool(parts))
        if np.any(mask):
            parts[unit] = Part(part, queue)
    return parts


def _times(op: Experts, device: Device, unit: str) -> NDArray[np.float64]:
    """Seconds of every single expert on `unit`, axes as its tokens: the unit's own cost of an op with one expert."""
    tokens = np.asarray(op.tokens_per_expert, dtype=float)
    one = replace(op, chosen=tokens.reshape(1, -1), counted=True)
    seconds = np.asarray(price(one, unit, device, homes(device, unit)).alone_s)
    return np.where(tokens > 0, seconds.reshape(tokens.shape), 0.0)


def _all_or_none(op: Experts, device: Device, xpu: str, pim: str) -> NDArray[np.bool_]:
    on_xpu, on_pim = (price(op, name, device, homes(device, name)).alone_s for name in (xpu, pim))
    return np.broadcast_to(np.less(on_pim, on_xpu), np.shape(op.tokens_per_expert))


def _split(op: Experts, device: Device, xpu: str, pim: str, spaces: int) -> NDArray[np.bool_]:
    """Which experts go to the PIM, axes as their tokens. Groups of experts that share a space move together."""
    groups = _groups(op.experts, spaces)
    tokens, slow, fast = (
        np.stack([values[group].sum(axis=0) for group in groups])
        for values in (np.asarray(op.tokens_per_expert), _times(op, device, xpu), _times(op, device, pim))
    )
    order = np.argsort(tokens, axis=0, kind="stable")
    zero = np.zeros((1, *tokens.shape[1:]))
    on_pim = np.concatenate([zero, np.cumsum(np.take_along_axis(fast, order, 0), axis=0)])
    on_xpu = np.sum(slow, axis=0) - np.concatenate([zero, np.cumsum(np.take_along_axis(slow, order, 0), axis=0)])
    moved = np.argmin(np.maximum(on_pim, on_xpu), axis=0)
    rank = np.argsort(order, axis=0, kind="stable")  # place of each group in ascending order
    chosen = rank < moved
    return np.concatenate([np.broadcast_to(chosen[i], (len(group), *chosen.shape[1:])) for i, group in enumerate(groups)])


def _groups(experts: int, spaces: int) -> list[NDArray[np.int_]]:
    """Experts by memory space, contiguous; each on its own when there are no more experts than spaces, or no spaces."""
    return list(np.array_split(np.arange(experts), spaces if 0 < spaces < experts else experts))
