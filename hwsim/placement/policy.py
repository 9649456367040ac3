"""Policies: op -> {unit: share or Part}. A policy is a function; adding one is writing one. Shares may be masks over points.

Only units that can do an op (its `math`, its number format, its memories) are ever considered. Ties go to the unit with the
higher peak, then to the first name, so that the order of a file's keys means nothing.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hwsim.cost import price
from hwsim.device import Device
from hwsim.errors import InputError, PlacementError
from hwsim.op import Array, Op

ALL = 1.0


@dataclass(frozen=True, eq=False)
class Part:
    """What a unit does of an op where a share does not say it: `op`, a part with a shape of its own, or the row's `queue`."""

    op: Op | None = None
    queue: str = ""


Policy = Callable[[Op, Device], Mapping[str, Array | Part]]


@dataclass(frozen=True)
class Speculation:
    """A decode pass checks `draft` tokens that somebody guessed, makes one more, and keeps `accepted` of them on average."""

    draft: int
    accepted: float


@runtime_checkable
class Rewriting(Protocol):
    """A policy that also changes what is to be done: loads where weights are elsewhere, ops over a part of the neurons."""

    def __call__(self, op: Op, device: Device) -> Mapping[str, Array | Part]:
        """Units of one op."""

    def rewritten(self, ops: Iterable[Op], device: Device) -> list[Op]:
        """The ops that `device` does instead of `ops`."""


def homes(device: Device, unit: str) -> Mapping[str, str]:
    """Memory of each operand: what the unit says, else the device, else the unit's own."""
    key = ("homes", unit)
    if key not in device.remembered:
        part = device.units[unit]
        given = {**device.homes, **part.homes}
        device.remembered[key] = {operand: given.get(operand, part.memory) for operand in ("weights", "activations", "kv")}
    found: Mapping[str, str] = device.remembered[key]
    return found


def able(op: Op, device: Device) -> list[str]:
    """Units that can do `op`, best peak first. PlacementError when there is none."""
    key = ("able", op.math, op.precision)
    if key not in device.remembered:
        device.remembered[key] = _able(op.math, op.precision, device)
    found: list[str] = device.remembered[key]
    if not found:
        units = "; ".join(
            f"{name} does {', '.join(unit.does)} in {', '.join(unit.peak)}" for name, unit in sorted(device.units.items())
        )
        raise PlacementError(f"{device.name}: no unit can do {op.name} ({op.math} in {op.precision}): {units}")
    return found


def _able(math: str, precision: str, device: Device) -> list[str]:
    found = []
    for name, unit in device.units.items():
        own = unit.precision_for(precision) if math in unit.does else None
        if own is not None and all(unit.reaches(memory) for memory in homes(device, name).values()):
            found.append((-float(np.max(unit.peak[own])), name))
    return [name for _, name in sorted(found)]


def fastest() -> Policy:
    """Each op on the unit that finishes it first when it runs alone."""

    def policy(op: Op, device: Device) -> Mapping[str, Array | Part]:
        names = able(op, device)
        if len(names) == 1:
            return {names[0]: ALL}
        return _masks(names, [price(op, name, device, homes(device, name)).alone_s for name in names])

    return policy


def op_b(ridge: float | None = None) -> Policy:
    """Ops of at least `ridge` operations per byte on the unit with the highest peak, the others on the one with most bandwidth.

    Without a ridge, the Op/B at which both take equally long: low unit's peak / high unit's bandwidth (Duplex: 31.8).
    """

    def policy(op: Op, device: Device) -> Mapping[str, Array | Part]:
        names = able(op, device)
        if len(names) == 1:
            return {names[0]: ALL}
        peaks, widths = _roofs(op, device, names)
        high = np.argmax(peaks, axis=0)
        low = len(names) - 1 - np.argmax(widths[::-1], axis=0)  # equal bandwidth: the unit with the lower peak
        edge = _at(peaks, low) / _at(widths, high) if ridge is None else ridge
        choice = np.where(np.greater_equal(op.op_b, edge), high, low)
        if choice.ndim == 0:
            return {names[int(choice)]: ALL}
        return {name: (choice == index).astype(float) for index, name in enumerate(names)}

    return policy


def _roofs(op: Op, device: Device, names: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Achievable op/s and bytes/s of each unit: units first, then design points."""
    units = [device.units[name] for name in names]
    formats = [unit.precision_for(op.precision) for unit in units]
    peaks = [unit.peak[precision] * unit.efficiency for unit, precision in zip(units, formats, strict=True) if precision]
    widths = [unit.limit(unit.memory, device.memories) for unit in units]
    both = np.stack(np.broadcast_arrays(*peaks, *widths))
    return both[: len(units)], both[len(units) :]


def _at(values: NDArray[np.float64], which: NDArray[np.int_]) -> NDArray[np.float64]:
    return np.asarray(np.take_along_axis(values, which[None], axis=0)[0])


def pin(unit: str) -> Policy:
    """Everything `unit` can do on `unit`, the rest on the fastest other one."""
    otherwise = fastest()

    def policy(op: Op, device: Device) -> Mapping[str, Array | Part]:
        if unit not in device.units:
            raise InputError(f"policy pin: {device.name} has no unit {unit!r}; accepted: {', '.join(sorted(device.units))}")
        return {unit: ALL} if unit in able(op, device) else otherwise(op, device)

    return policy


def _masks(names: list[str], seconds: list[Array]) -> dict[str, Array]:
    """Share 1 for the quickest, 0 for the others, per design point; the first name wins ties."""
    if all(np.ndim(s) == 0 for s in seconds):
        return {names[int(np.argmin([float(s) for s in seconds]))]: ALL}
    best: Array = reduce(np.minimum, seconds)
    left = np.ones(np.shape(best))
    shares: dict[str, Array] = {}
    for name, s in zip(names, seconds, strict=True):
        mine = left * np.less_equal(s, best)
        shares[name], left = mine, left - mine
    return shares


def read_policy(text: str) -> Policy:
    """Read "fastest", "op-b:ridge=32" or "pin:unit=xpu": NAME[:KEY=VALUE,...].

    NAME is a function that returns a Policy, of this file, or (written FILE.NAME) of another file of this folder; hyphens stand
    for underscores, KEY=VALUE are its arguments, a first VALUE alone ("patch:auto") is that of the first. InputError lists all.
    """
    name, _, given = text.partition(":")
    make = _named(name) if re.fullmatch(r"[\w-]+(\.[\w-]+)?", name) else None
    if make is None:
        raise InputError(f"policy {text[:60]!r} is not known; accepted: {', '.join(_all_policies())}")
    return make(**_arguments(text, make, given))


def plan_of(policy: str | Policy) -> str | None:
    """The parallel plan that a policy comes with, by `PLANS` of its file; None for most."""
    found: str | None = _beside(policy, "PLANS")
    return found


def rewriting(policy: str | Policy, device: Device) -> Callable[[list[Op]], list[Op]]:
    """What a policy does to the whole list of ops before it places them; nothing for most.

    A function of `REWRITES` of its file: of the ops, the device and the arguments of the policy.
    """
    found: Callable[..., list[Op]] | None = _beside(policy, "REWRITES")
    if found is None:
        return lambda ops: ops
    _, _, given = str(policy).partition(":")
    arguments = _arguments(str(policy), found, given, first=2)
    return lambda ops: found(ops, device, **arguments)


def _beside(policy: str | Policy, table: str) -> Any:
    """What a table of its file says of a policy that is named; None for a function."""
    if not isinstance(policy, str):
        return None
    file, function = _file_of(policy.partition(":")[0])
    return getattr(import_module(f"hwsim.placement.{file}"), table, {}).get(function) if _is_file(file) else None


def _file_of(name: str) -> tuple[str, str]:
    """FILE.NAME as both; a NAME alone is of this file, or of the file that is named like it."""
    file, _, function = name.replace("-", "_").rpartition(".")
    own = Path(__file__).stem
    return (file or (own if function in globals() or not _is_file(function) else function)), function


def _is_file(stem: str) -> bool:
    return bool(re.fullmatch(r"[a-z_]+", stem)) and Path(__file__).with_name(f"{stem}.py").is_file()


def _named(name: str) -> Callable[..., Policy] | None:
    file, function = _file_of(name)
    if not _is_file(file):
        return None
    found = getattr(import_module(f"hwsim.placement.{file}"), function, None)
    return found if _makes_a_policy(found) and not function.startswith(("_", "read_")) else None


def _makes_a_policy(found: object) -> bool:
    return inspect.isfunction(found) and found.__annotations__.get("return") in ("Policy", Policy)


def _all_policies() -> list[str]:
    """Every policy with its arguments, this file's first."""
    here = Path(__file__).stem
    files = sorted((path.stem for path in Path(__file__).parent.glob("[a-z]*.py")), key=lambda stem: (stem != here, stem))
    found = []
    for file in files:
        for name, value in vars(import_module(f"hwsim.placement.{file}")).items():
            if _makes_a_policy(value) and value.__module__.endswith(f".{file}") and not name.startswith(("_", "read_")):
                arguments = ",".join(f"{key}=..." for key in inspect.signature(value).parameters)
                prefix = "" if file in (here, name) else f"{file}."
                found.append(f"{prefix}{name}".replace("_", "-") + (f":{arguments}" if arguments else ""))
    return found


def _arguments(text: str, make: Callable[..., Any], given: str, first: int = 0) -> dict[str, Any]:
    """KEY=VALUE pairs as the types that the function states, those before parameter `first` left out."""
    wanted = dict(list(inspect.signature(make).parameters.items())[first:])
    values: dict[str, Any] = {}
    for part in filter(None, given.split(",")):
        key, sign, value = part.partition("=")
        if not sign and not values and _is_text(wanted, leading := next(iter(wanted), "")):
            key, sign, value = leading, "=", part
        if not (sign and value) or key not in wanted:
            raise InputError(
                f"policy {text[:60]!r}: {part[:40]!r}; accepted: {', '.join(f'{name}=VALUE' for name in wanted) or 'no argument'}"
            )
        values[key] = value if _is_text(wanted, key) else _positive(text, value)
    missing = [name for name, parameter in wanted.items() if parameter.default is parameter.empty and name not in values]
    if missing:
        raise InputError(f"policy {text[:60]!r}: {missing[0]} is missing; accepted: {missing[0]}=VALUE")
    return values


def _is_text(wanted: Mapping[str, inspect.Parameter], name: str) -> bool:
    return name in wanted and wanted[name].annotation in ("str", str)


def _positive(text: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not 0 < number < float("inf"):
        raise InputError(f"policy {text[:60]!r}: {value!r} is not a positive number")
    return number
