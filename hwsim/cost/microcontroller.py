"""A microcontroller core: cycles by the kernel tables of its inference engine (`hwsim.kernels.microcontroller`).

    busy = cycles / (clock x ipc),  never below operations / peak         bytes of maps from SRAM, of weights from flash, once

`ipc` (the unit's organisation) is the work per cycle of this board's core, relative to the one whose kernels were timed. Wait
states of flash and cache misses are in the cycles, and so are weights that are read again for every few pixels: the traffic here
is a lower bound.
What is no op on feature maps is priced by the roofline. Energy: the board's power is almost the same whatever runs, so it is the
device's static power.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hwsim.cost.roofline import roofline
from hwsim.cost.terms import Cost
from hwsim.device import Device, Unit
from hwsim.errors import PlacementError
from hwsim.formats import bits
from hwsim.kernels import microcontroller as engine
from hwsim.kernels.sets import KernelSet, choose
from hwsim.op import Convolution, MapOp, Op, larger


def microcontroller(op: Op, name: str, unit: Unit, device: Device, home: Mapping[str, str]) -> Cost:
    """Cost of `op` on the core. PlacementError where the engine was not timed on such a core."""
    cost = roofline(op, name, unit, device, home)
    if not isinstance(op, MapOp) or unit.clock is None:
        return cost
    p = engine_of(device).parameters
    macs = op.macs if isinstance(op, Convolution) else 0.0
    narrow = min(bits(op.weights), bits(op.activations)) if isinstance(op, Convolution) else 8.0
    cycles = engine.microcontroller(kind=op.kind, macs=macs, results=op.results, bits=narrow, p=p)
    seconds = cycles / (unit.clock * unit.organisation.get("ipc", 1.0))
    return replace(cost, busy_s=larger(cost.busy_s, seconds), method="microcontroller")


def engine_of(device: Device) -> KernelSet:
    """The kernel table of the device's engine (`stack`)."""
    found = choose(device.kernels.get("microcontroller", ()), device.stack, "int8")
    if found is None:
        raise PlacementError(f"{device.name}: no kernel table of engine {device.stack!r} for this core")
    return found
