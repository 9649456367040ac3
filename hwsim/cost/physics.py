"""`price` picks the physics that a unit names: `cost: roofline` means the function `roofline` of cost/roofline.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

from hwsim.cost.flash import load
from hwsim.cost.gpu import measured_transfer
from hwsim.cost.terms import Cost
from hwsim.device import Device, Unit
from hwsim.errors import InputError
from hwsim.op import Load, Move, Op

Physics = Callable[[Op, str, Unit, Device, Mapping[str, str]], Cost]


def price(op: Op, unit: str, device: Device, home: Mapping[str, str]) -> Cost:
    """The cost of `op` on the unit or link named `unit`, its operands living in the memories of `home`."""
    if isinstance(op, Move):
        return measured_transfer(op, unit, device)
    if isinstance(op, Load):
        return load(op, unit, device)
    part = device.units[unit]
    return physics(part.cost)(op, unit, part, device, home)


@cache
def physics(name: str) -> Physics:
    """The cost function of that name: a function named like its file. InputError lists those there are."""
    here = Path(__file__)
    stems = sorted(path.stem for path in here.parent.glob("[a-z]*.py") if path != here)
    found = {stem: one for stem in stems if (one := _defined_in(stem))}
    if name not in found:
        raise InputError(f"cost: {name[:60]!r}; accepted: {', '.join(found)}")
    return found[name]


def _defined_in(stem: str) -> Physics | None:
    found: Physics | None = getattr(import_module(f"hwsim.cost.{stem}"), stem, None)
    return found if getattr(found, "__module__", "") == f"hwsim.cost.{stem}" else None
