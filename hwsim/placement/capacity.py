"""Capacity is real: weights + KV cache + activations of every stage must fit the memories they live in.

Weights and KV add up over ops and folded layers; activations are reused, so the largest op's count. Microbatches share weights.
Experts are dealt round-robin, so that no rank holds more of them than the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from hwsim.device import Device
from hwsim.errors import CapacityError
from hwsim.op import Array, larger
from hwsim.placement.rows import Row
from hwsim.quantity import show

Footprint = Mapping[tuple[int, str], Mapping[str, Array]]


def footprint(rows: Iterable[Row], device: Device) -> Footprint:
    """Bytes by (stage, memory) and operand on one device of each stage; what lives behind several paths is counted together."""
    need: dict[tuple[int, str], dict[str, Array]] = {}
    for row in rows:
        for operand, held in _resident(row).items():
            part = need.setdefault((row.op.stage, device.stored_in(row.home[operand])), {})
            part[operand] = part.get(operand, 0.0) + held
        part = need.setdefault((row.op.stage, device.stored_in(row.home["activations"])), {})
        part["activations"] = larger(part.get("activations", 0.0), row.op.workspace)
    return need


def held(rows: Iterable[Row], device: Device) -> Mapping[str, Mapping[str, float]]:
    """Bytes that stay in each memory of all devices, by kind of the op they are for; the KV cache as "kv"."""
    rows = list(rows)
    many = device.count / (1 + max((row.op.stage for row in rows), default=0))
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        for operand, size in _resident(row).items():
            memory = found.setdefault(device.stored_in(row.home[operand]), {})
            kind = operand if operand == "kv" else row.op.kind
            memory[kind] = memory.get(kind, 0.0) + float(np.max(size)) * many
    some = {memory: {kind: size for kind, size in parts.items() if size} for memory, parts in found.items()}
    return {memory: parts for memory, parts in some.items() if parts}


def _resident(row: Row) -> Mapping[str, Array]:
    """What stays in memory for a row: its share of the op, all repetitions; weights once for all microbatches."""
    op = row.op
    if op.rank:
        return {}
    part = {"weights": op.stays}
    kept = {operand: held * op.repeat * row.share * part.get(operand, 1.0) for operand, held in op.resident.items()}
    return {operand: held for operand, held in kept.items() if operand != "weights" or not op.microbatch}


def fits(rows: Iterable[Row], device: Device) -> NDArray[np.bool_]:
    """True where every memory of every stage holds what lives in it; an array when dimensions or capacities are arrays."""
    ok: NDArray[np.bool_] = np.asarray(True)
    for (_, memory), parts in footprint(rows, device).items():
        ok = ok & np.less_equal(sum(parts.values()), device.memories[memory].capacity)
    return ok


def check_capacity(rows: Iterable[Row], device: Device) -> None:
    """CapacityError that names the memory, the excess and what fills it."""
    for (_, memory), parts in sorted(footprint(rows, device).items(), key=lambda item: item[0]):
        need, capacity = float(sum(parts.values())), float(device.memories[memory].capacity)
        if need > capacity:
            held = ", ".join(f"{operand} {show(float(size), 'B')}" for operand, size in sorted(parts.items()) if size)
            raise CapacityError(
                f"{device.name}: memory {memory} holds {show(capacity, 'B')}, needed per device {show(need, 'B')} ({held}): "
                f"{show(need - capacity, 'B')} too much; accepted: a smaller batch or context, narrower formats or more devices"
            )
