"""Duplex's mapping (arXiv:2409.01141, sections IV and V): an xPU and a PIM behind one memory, each op where it belongs.

- linear layers, norms and prefill attention on the xPU, decode attention on the PIM;
- experts: all of a layer on the unit that is faster for it, or split: experts in ascending number of tokens move to the PIM, and
  the split with the smallest max(sum of xPU times, sum of PIM times) is taken (section V-B). Deciding costs nothing;
- without co-processing one unit works at a time: both share one queue.

Memory spaces (bank bundles, section V-C): the two units may read at full rate at once only in different spaces. Where experts lie
(`allocation`) and where the cache lies (`kv`) decides what may run side by side.
- allocation=spaces: experts are dealt over the spaces in contiguous groups, and a group goes to one unit as a whole;
- allocation=free: as if every expert could be moved on its own (the same when a device holds no more experts than spaces);
- allocation=striped: every expert lies across all spaces, so that the units would conflict wherever both read: no splitting;
- kv=apart: the cache in some spaces, what prefill attention reads in another; kv=striped: they take turns.

The PIM is a unit with the cost `logic_pim` or on a memory that is a view; the xPU the other one with the highest peak.
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
PLANS = {"pe_et": "et"}
_ALLOCATIONS = {"spaces": "by space", "free": "one by one", "striped": "never"}


def faster() -> Policy:
    """Duplex without co-processing: experts on the faster unit, one unit at a time."""
    return _duplex(split="never", overlap=False)


def pe(allocation: str = "spaces", kv: str = "apart") -> Policy:
    """Expert and attention co-processing."""
    return _duplex(_split_of(allocation), _overlap_of(kv))


def pe_et(allocation: str = "spaces", kv: str = "apart") -> Policy:
    """Co-processing with experts divided over the devices of a node: `pe` under the plan `et`."""
    return pe(allocation, kv)


def pe_experts(allocation: str = "spaces") -> Policy:
    """Expert co-processing alone: prefill and decode attention take turns."""
    return _duplex(_split_of(allocation), overlap=False)


def pe_attention(kv: str = "apart") -> Policy:
    """Attention co-processing alone: the experts of a layer all go to the faster unit."""
    return _duplex("never", _overlap_of(kv))


def _split_of(allocation: str) -> str:
    if allocation not in _ALLOCATIONS:
        raise InputError(f"policy duplex: allocation={allocation[:40]}; accepted: {', '.join(_ALLOCATIONS)}")
    return _ALLOCATIONS[allocation]


def _overlap_of(kv: str) -> bool:
    if kv not in ("apart", "striped"):
        raise InputError(f"policy duplex: kv={kv[:40]}; accepted: apart, striped")
    return kv == "apart"


def hetero() -> Policy:
    """The heterogeneous system of figure 5: all experts and decode attention on the PIM devices, all else on the GPUs."""

    def policy(op: Op, device: Device) -> Mapping[str, Array | Part]:
        xpu, pim = _units(op, device)
        return {pim if pim and (isinstance(op, Experts) or op.kind == "attention.decode") else xpu: ALL}

    return policy


def _units(op: Op, device: Device) -> tuple[str, str | None]:
    """The unit with the highest peak that is no PIM, and the PIM where it can do `op` too. InputError for a device without."""
    pims = [name for name in device.units if _is_pim(name, device)]
    if not pims:
        raise InputError(
            f"policy duplex: {device.name} has no PIM (cost logic_pim, or a memory that is a view); accepted: a device with one"
        )
    names = able(op, device)
    return next((name for name in names if name not in pims), names[0]), next((name for name in names if name in pims), None)


def _is_pim(name: str, device: Device) -> bool:
    unit = device.units[name]
    return unit.cost == "logic_pim" or bool(device.memories[unit.memory].view_of)


def _duplex(split: str, overlap: bool) -> Policy:
    """`split`: experts "never", "by space" or "one by one"; `overlap`: prefill and decode attention side by side."""
    alone = split == "never" and not overlap

    def policy(op: Op, device: Device) -> Mapping[str, Array | Part]:
        xpu, pim = _units(op, device)
        if pim is None:
            return {xpu: ALL}
        if isinstance(op, AttentionOp):
            unit = pim if op.kind == "attention.decode" else xpu
            return {unit: ALL if overlap else Part(queue=TOGETHER)}
        if not isinstance(op, Experts):
            return {xpu: Part(queue=TOGETHER) if alone else ALL}
        if split == "never":
            return _parts(op, xpu, pim, _all_or_none(op, device, xpu, pim), TOGETHER)
        spaces = device.memories[device.units[xpu].memory].spaces if split == "by space" else op.experts
        return _parts(op, xpu, pim, _split(op, device, xpu, pim, spaces), "")

    return policy


def _parts(op: Experts, xpu: str, pim: str, on_pim: NDArray[np.bool_], queue: str) -> dict[str, Array | Part]:
    """The experts of each unit as an op of its own; the weights are resident with the first."""
    chosen = op.chosen.reshape(op.chosen.shape + (1,) * (on_pim.ndim - op.chosen.ndim))
    parts: dict[str, Array | Part] = {}
    for unit, mask in ((xpu, ~on_pim), (pim, on_pim)):
        if np.any(mask):
            parts[unit] = Part(replace(op, chosen=np.where(mask, chosen, 0.0), tied=bool(parts)), queue)
    return parts


def _times(op: Experts, device: Device, unit: str) -> NDArray[np.float64]:
    """Seconds of every single expert on `unit`, launches left out: its own cost of an op with that one expert.

    Experts first; further axes are draws or points of the device's numbers.
    """
    tokens = op.tokens_per_expert
    levels, which = np.unique(tokens, axis=0, return_inverse=True)  # experts with equal tokens are priced once
    seconds = []
    for level in levels:
        cost = price(replace(op, chosen=level[None], counted=True), unit, device, homes(device, unit))
        seconds.append(np.where(level > 0, cost.alone_s - cost.fixed_s, 0.0))
    return np.stack(np.broadcast_arrays(*seconds))[which.reshape(-1)]


def _all_or_none(op: Experts, device: Device, xpu: str, pim: str) -> NDArray[np.bool_]:
    on_xpu, on_pim = (np.asarray(price(op, name, device, homes(device, name)).alone_s) for name in (xpu, pim))
    faster_there = np.less(on_pim, on_xpu)
    return np.broadcast_to(faster_there, (op.experts, *faster_there.shape))


def _split(op: Experts, device: Device, xpu: str, pim: str, spaces: int) -> NDArray[np.bool_]:
    """Which experts go to the PIM, experts first. Groups of experts that share a space move together."""
    groups = _groups(op.experts, spaces)
    times = [_times(op, device, unit) for unit in (xpu, pim)]
    tokens, slow, fast = _aligned([_by_group(values, groups) for values in (op.tokens_per_expert, *times)])
    order = np.argsort(tokens, axis=0, kind="stable")
    zero = np.zeros((1, *slow.shape[1:]))
    on_pim = np.concatenate([zero, np.cumsum(np.take_along_axis(fast, order, 0), axis=0)])
    on_xpu = np.sum(slow, axis=0) - np.concatenate([zero, np.cumsum(np.take_along_axis(slow, order, 0), axis=0)])
    moved = np.argmin(np.maximum(on_pim, on_xpu), axis=0)
    chosen = np.argsort(order, axis=0, kind="stable") < moved  # the place of each group in ascending order
    return np.concatenate([np.broadcast_to(chosen[i], (len(group), *chosen.shape[1:])) for i, group in enumerate(groups)])


def _aligned(arrays: list[NDArray[np.float64]]) -> tuple[NDArray[np.float64], ...]:
    """Arrays of one shape: the experts' axis first, missing further axes added."""
    axes = max(values.ndim for values in arrays)
    return np.broadcast_arrays(*(values.reshape(values.shape + (1,) * (axes - values.ndim)) for values in arrays))


def _by_group(values: NDArray[np.float64], groups: list[NDArray[np.int_]]) -> NDArray[np.float64]:
    return np.stack([values[group].sum(axis=0) for group in groups])


def _groups(experts: int, spaces: int) -> list[NDArray[np.int_]]:
    """Experts by memory space, contiguous; each on its own where there are no more experts than spaces."""
    return list(np.array_split(np.arange(experts), min(spaces, experts)))
