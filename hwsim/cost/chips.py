"""The datasheet of a GPU as the kernel models ask for it, out of a device file."""

from __future__ import annotations

from dataclasses import replace

from hwsim.device import Device, Link
from hwsim.kernels.chip import Chip


def chip_of(device: Device, format: str) -> Chip | None:
    """The datasheet of a GPU for kernels that multiply in `format`; None where the device says too little or has no such peak."""
    if format not in device.remembered:
        device.remembered[format] = _chip_of(device, format)
    found: Chip | None = device.remembered[format]
    return found


def sustained(device: Device, format: str) -> Chip | None:
    """`chip_of` with the peak that large products reach on the device instead of the datasheet's."""
    chip = chip_of(device, format)
    unit = next((unit for unit in device.units.values() if unit.cores and unit.clock and unit.cache), None)
    return replace(chip, peak=chip.peak * unit.efficiency) if chip and unit else None


def _chip_of(device: Device, format: str) -> Chip | None:
    unit = next((unit for unit in device.units.values() if unit.cores and unit.clock and unit.cache), None)
    precision = unit.precision_for(format) if unit else None
    if unit is None or precision is None:
        return None
    vectors = [other.peak["fp32"] for other in device.units.values() if "vector" in other.does and "fp32" in other.peak]
    near = nearest(device)
    return Chip(
        sms=float(unit.cores or 0), clock=unit.clock or 0.0, peak=unit.peak[precision], vector=vectors[0] if vectors else 0.0,
        dram=device.memories[unit.memory].bandwidth, l2=unit.cache or 0.0, link=near.bandwidth if near else 0.0,
    )  # fmt: skip


def nearest(device: Device) -> Link | None:
    """The link between neighbours."""
    return min(device.wires.values(), key=lambda link: link.reach, default=None)
