"""`price`: picks the physics that a unit names."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hwsim.cost.link import transfer
from hwsim.cost.roofline import roofline
from hwsim.cost.terms import Cost
from hwsim.device import Device, Unit
from hwsim.op import Move, Op

COSTS: Mapping[str, Callable[[Op, str, Unit, Device, Mapping[str, str]], Cost]] = {"roofline": roofline}


def price(op: Op, unit: str, device: Device, home: Mapping[str, str]) -> Cost:
    """The cost of `op` on the unit or link named `unit`, its operands living in the memories of `home`."""
    if isinstance(op, Move):
        return transfer(op, unit, device.links[unit])
    part = device.units[unit]
    return COSTS[part.cost](op, unit, part, device, home)
