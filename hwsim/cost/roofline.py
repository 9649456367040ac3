"""Roofline (Williams, Waterman and Patterson 2009): operations at the achievable peak overlap bytes at achievable bandwidth.

    busy = operations / (peak x efficiency)         traffic / limit = bytes / (min(port, bandwidth) x efficiency)
    ops whose shapes change from pass to pass reach the part `dynamic` of both rates
    joules = operations x energy per operation + bytes x energy per byte

A format the unit has no peak for is computed in the next wider one. Left out: tiles, waves, caches, occupancy.
"""

from __future__ import annotations

from collections.abc import Mapping

from hwsim.cost.terms import Cost
from hwsim.device import Device, Unit
from hwsim.errors import PlacementError
from hwsim.op import Array, Op


def roofline(op: Op, name: str, unit: Unit, device: Device, home: Mapping[str, str]) -> Cost:
    """Cost of `op` on `unit`, each operand served by its memory in `home`. PlacementError if no format fits."""
    precision = unit.precision_for(op.precision)
    if precision is None:
        have = ", ".join(sorted(unit.peak))
        raise PlacementError(f"{device.name}: unit {name} cannot compute {op.name} in {op.precision}; it has {have}")
    traffic = by_memory(op, home)
    memories = device.memories
    joules: dict[str, Array] = {memory: moved * memories[memory].energy for memory, moved in traffic.items()}
    if unit.energy:
        joules[name] = op.ops * unit.energy[precision]
    part = unit.dynamic if op.dynamic else 1.0
    return Cost(
        fixed_s=0.0 if op.fused else unit.overhead,
        busy_s=op.ops / (unit.peak[precision] * unit.efficiency * part),
        traffic=traffic,
        limit={memory: unit.limit(memory, memories) * part for memory in traffic},
        joules=joules,
        method="roofline",
    )


def by_memory(op: Op, home: Mapping[str, str]) -> dict[str, Array]:
    """Bytes per memory, operands of one home added up."""
    traffic: dict[str, Array] = {}
    for operand, moved in op.bytes.items():
        memory = home[operand]
        traffic[memory] = traffic[memory] + moved if memory in traffic else moved
    return traffic
