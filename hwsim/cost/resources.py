"""What FlightLLM's cores take of an FPGA, and a machine of other sizes (arXiv:2401.03868, section 5.3).

    DSP  = p_m p_k p_n mpu / macs_per_dsp x cores          URAM = p_m p_k x 8 bit / word x mpu x cores
    BRAM = (weight, global, index and bias buffers) / block x cores     channels = (mpu / 8 + 2) x cores

with the bits of a URAM word and the bytes of a BRAM block that are used (64 of 72 bits). Buffers other than those of weights are
sized only: their capacity changes no time. Left out: logic and registers, for which no formula was published, and what
special function units, dequantisation and interconnect take of DSP and BRAM (3 % and 12 % of the published totals of the U280).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from hwsim.device import Device, Unit
from hwsim.errors import CapacityError, InputError
from hwsim.op import Array

_IN_BLOCK_RAM = ("b", "global", "meta", "fsb", "bias")
_SIZES = ("p_m", "p_k", "p_n", "mpu", "cores")


def matrix_unit(device: Device) -> tuple[str, Unit]:
    """Name and unit of the matrix engine of a device with `cost: csd_chain`. InputError for another device."""
    for name, unit in device.units.items():
        if unit.cost == "csd_chain" and "matmul" in unit.does and unit.cores and unit.clock:
            return name, unit
    raise InputError(f"{device.name}: no matmul unit with cost csd_chain, cores and clock; accepted: a device like u280")


def resources(device: Device) -> dict[str, Array]:
    """DSP, URAM and BRAM blocks and memory channels that the cores take, and bytes/s of these channels."""
    _, unit = matrix_unit(device)
    size, cores = unit.organisation, float(unit.cores or 0)
    wide = size["p_m"] * size["p_k"] * size["mpu"]
    held = sum(np.ceil(device.buffers[name].capacity / size["bram_bytes"]) for name in _IN_BLOCK_RAM if name in device.buffers)
    channels = (size["mpu"] / size["mpu_per_channel"] + 2) * cores
    return {
        "dsp": np.ceil(wide * size["p_n"] / size["macs_per_dsp"]) * cores,
        "uram": np.ceil(wide * 8 / size["uram_bits"]) * cores,
        "bram": held * cores,
        "channels": channels,
        "bandwidth": channels * _channel(device, unit),
    }


def check_part(device: Device) -> None:
    """CapacityError when the cores take more of a resource than the part has (where the file says how much it has)."""
    name, unit = matrix_unit(device)
    needed = resources(device)
    for resource in ("dsp", "uram", "bram", "channels"):
        has = unit.organisation.get(resource, math.inf)
        if np.any(needed[resource] > has):
            sizes = ", ".join(f"{one} {_size(unit, one):g}" for one in _SIZES)
            raise CapacityError(
                f"{device.name}: units.{name} takes {np.max(needed[resource]):g} {resource}, the part has {np.max(has):g}; "
                f"accepted: smaller sizes than {sizes}"
            )


def sized(device: Device, sizes: Mapping[str, float]) -> Device:
    """A machine with other `p_m`, `p_k`, `p_n`, `mpu` or `cores`, and the peaks that follow; its power stays what it was.

    Raises InputError for an unknown size or one that is not whole, CapacityError for one that the part has no room for.
    """
    name, old = matrix_unit(device)
    unknown = set(sizes) - set(_SIZES)
    if unknown:
        raise InputError(f"sizes: {sorted(unknown)[0]!r}; accepted: {', '.join(_SIZES)}")
    for one, size in sizes.items():
        if size < 1 or size % 1:
            raise InputError(f"sizes: {one}: {size!r}; accepted: a whole number, 1 or more")
    new = {one: float(sizes.get(one, _size(old, one))) for one in _SIZES}
    path = f"units.{name}"
    changed: dict[str, Array] = {f"{path}.organisation.{one}": new[one] for one in ("p_m", "p_k", "p_n", "mpu")}
    changed |= {f"{path}.cores": int(new["cores"]), f"{path}.peak.int8": 2 * math.prod(new.values()) * (old.clock or 0.0)}
    for other, unit in device.units.items():
        if "vector" in unit.does:  # one in each core
            more = new["cores"] / _size(old, "cores")
            changed |= {f"units.{other}.peak.{format}": peak * more for format, peak in unit.peak.items()}
    machine = device.with_values(changed)
    check_part(machine)
    return machine


def _channel(device: Device, unit: Unit) -> Array:
    """Bytes/s of one channel of the memory."""
    memory = device.memories[unit.memory]
    return memory.bandwidth / memory.organisation["channels"]


def _size(unit: Unit, name: str) -> float:
    return float(np.max((unit.cores or 0) if name == "cores" else unit.organisation[name]))
