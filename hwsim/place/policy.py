"""Policies: op -> {unit: share}. A policy is a function; adding one is writing one. Shares may be masks over design points.

Only units that can do an op (its `math`, its number format, its memories) are ever considered. Ties go to the unit with the
higher peak, then to the first name, so that the order of a file's keys means nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import reduce

import numpy as np

from hwsim.cost import price
from hwsim.device import Device
from hwsim.errors import InputError, PlacementError
from hwsim.op import Array, Op

Policy = Callable[[Op, Device], Mapping[str, Array]]


def homes(device: Device, unit: str) -> dict[str, str]:
    """Memory of each operand: what the device says, else the unit's own."""
    own = device.units[unit].memory
    return {operand: device.homes.get(operand, own) for operand in ("weights", "activations", "kv")}  # type: ignore[call-overload]


def able(op: Op, device: Device) -> list[str]:
    """Units that can do `op`, best peak first. PlacementError when there is none."""
    found = [
        (-float(np.max(unit.peak[precision])), name)
        for name, unit in device.units.items()
        if op.math in unit.does
        and (precision := unit.precision_for(op.precision)) is not None
        and all(unit.reaches(memory) for memory in homes(device, name).values())
    ]
    if not found:
        units = "; ".join(f"{name} does {', '.join(unit.does)}" for name, unit in sorted(device.units.items()))
        raise PlacementError(f"{device.name}: no unit can do {op.name} ({op.math} in {op.precision}): {units}")
    return [name for _, name in sorted(found)]


def fastest() -> Policy:
    """Each op on the unit that finishes it first when it runs alone."""

    def policy(op: Op, device: Device) -> Mapping[str, Array]:
        names = able(op, device)
        if len(names) == 1:
            return {names[0]: 1.0}
        return _masks(names, [price(op, name, device, homes(device, name)).alone_s for name in names])

    return policy


def by_op_b(ridge: float | None = None) -> Policy:
    """Ops of at least `ridge` operations per byte on the unit with the highest peak, the others on the one with most bandwidth.

    Without a ridge, the Op/B at which both take equally long: low unit's peak / high unit's bandwidth (Duplex: 31.8).
    """

    def policy(op: Op, device: Device) -> Mapping[str, Array]:
        names = able(op, device)
        high, low = names[0], max(reversed(names), key=lambda name: float(np.max(_bandwidth(device, name))))
        if high == low:
            return {high: 1.0}
        edge = _crossing(op, device, high, low) if ridge is None else ridge
        return _masks([high, low], [np.where(op.op_b >= edge, 0.0, 1.0), 0.5])

    return policy


def pinned(unit: str) -> Policy:
    """Everything `unit` can do on `unit`, the rest on the fastest other one."""
    otherwise = fastest()

    def policy(op: Op, device: Device) -> Mapping[str, Array]:
        if unit not in device.units:
            raise InputError(f"policy pin: {device.name} has no unit {unit!r}; accepted: {', '.join(sorted(device.units))}")
        return {unit: 1.0} if unit in able(op, device) else otherwise(op, device)

    return policy


def _bandwidth(device: Device, name: str) -> Array:
    unit = device.units[name]
    return unit.limit(unit.memory, device.memories)


def _crossing(op: Op, device: Device, high: str, low: str) -> Array:
    unit = device.units[low]
    precision = unit.precision_for(op.precision)
    assert precision is not None  # `able` has seen to it
    return unit.peak[precision] * unit.efficiency / _bandwidth(device, high)


def _masks(names: list[str], seconds: list[Array]) -> dict[str, Array]:
    """Share 1 for the quickest, 0 for the others, per design point; the first name wins ties."""
    if all(np.ndim(s) == 0 for s in seconds):
        return {names[int(np.argmin([float(s) for s in seconds]))]: 1.0}
    best = reduce(np.minimum, seconds)
    left: Array = np.ones(np.shape(best))
    shares: dict[str, Array] = {}
    for name, s in zip(names, seconds, strict=True):
        shares[name] = left * (s <= best)
        left = left - shares[name]
    return shares


def read_policy(text: str) -> Policy:
    """Read "fastest", "op-b", "op-b:ridge=32" or "pin:unit=xpu"."""
    match = re.fullmatch(r"([\w.-]+)(?::(\w+)=([\w.+-]+))?", text)
    name, key, value = match.groups() if match else ("", None, None)
    if name == "fastest" and key is None:
        return fastest()
    if name == "op-b" and key in (None, "ridge"):
        return by_op_b(_positive(text, value) if value else None)
    if name == "pin" and key == "unit" and value:
        return pinned(value)
    raise InputError(f"policy {text[:60]!r} is not known; accepted: fastest, op-b, op-b:ridge=NUMBER, pin:unit=NAME")


def _positive(text: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not 0 < number < float("inf"):
        raise InputError(f"policy {text[:60]!r}: {value!r} is not a positive number")
    return number
