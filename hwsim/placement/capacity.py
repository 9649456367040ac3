"""Capacity is real: weights + KV cache + activations of every stage must fit the memories they live in.

Weights and KV add up over ops and folded layers; activations are reused, so the largest op's count. Microbatches share weights.
Experts are dealt round-robin, so that no rank holds more of them than the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from hwsim.cost.terms import larger
from hwsim.device import Device
from hwsim.errors import CapacityError
from hwsim.op import Array
from hwsim.placement.rows import Row
from hwsim.quantity import show

Footprint = Mapping[tuple[int, str], Mapping[str, Array]]


def footprint(rows: Iterable[Row]) -> Footprint:
    """Bytes by (stage, memory) and operand on one device of each stage."""
    need: dict[tuple[int, str], dict[str, Array]] = {}
    seen: set[tuple[str, str]] = set()
    for row in rows:
        op = row.op
        for operand, held in op.resident.items():
            memory = row.home[operand]
            if (op.name, memory) in seen or (operand == "weights" and op.microbatch) or op.rank:
                continue
            part = need.setdefault((op.stage, memory), {})
            part[operand] = part.get(operand, 0.0) + held * op.repeat
        for memory in set(row.home.values()):
            seen.add((op.name, memory))
        part = need.setdefault((op.stage, row.home["activations"]), {})
        part["activations"] = larger(part.get("activations", 0.0), op.workspace)
    return need


def fits(rows: Iterable[Row], device: Device) -> NDArray[np.bool_]:
    """True where every memory of every stage holds what lives in it; an array when dimensions or capacities are arrays."""
    ok: NDArray[np.bool_] = np.asarray(True)
    for (_, memory), parts in footprint(rows).items():
        ok = ok & np.less_equal(sum(parts.values()), device.memories[memory].capacity)
    return ok


def check_capacity(rows: Iterable[Row], device: Device) -> None:
    """CapacityError that names the memory, the excess and what fills it."""
    for (_, memory), parts in sorted(footprint(rows).items(), key=lambda item: item[0]):
        need, capacity = float(sum(parts.values())), float(device.memories[memory].capacity)
        if need > capacity:
            held = ", ".join(f"{operand} {show(float(size), 'B')}" for operand, size in sorted(parts.items()) if size)
            raise CapacityError(
                f"{device.name}: memory {memory} holds {show(capacity, 'B')}, needed per device {show(need, 'B')} ({held}): "
                f"{show(need - capacity, 'B')} too much; accepted: a smaller batch or context, narrower formats or more devices"
            )
