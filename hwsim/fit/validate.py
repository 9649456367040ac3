"""`hwsim validate DIR`: every measured table in a folder against the models, one line per table, device, stack and format.

A device that is not known, or has no kernel model for the rows, is a line with its number of rows and no error; so is a number
format that is not known. Rows that a table's reader names as excluded (a fallback kernel, an eager launch) are reported with and
without. Rows that take minutes to simulate are priced only where somebody listens (`say`). Watts are reported as energy too: the
same errors row by row, whose `bias` is that of the sum over all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwsim.cost.chips import chip_of
from hwsim.device import Device
from hwsim.errors import HwsimError, InputError
from hwsim.fit.devices import finder
from hwsim.fit.error import errors
from hwsim.fit.group import Group, Progress
from hwsim.fit.read import groups, known_tables, readers
from hwsim.kernels.chip import Chip
from hwsim.kernels.sets import KernelSet, choose, kernel

REPORTED = {"attention_decode": "decode", "attention_prefill": "prefill", "mla_decode": "mla", "mla_prefill": "mla"}


def validate(folder: Path, arch: Path | None = None, say: Progress | None = None) -> dict[str, Any]:
    """The JSON document of `hwsim validate`; devices are looked up in the folder `arch` first. `say` is told how far it is.

    InputError for a folder without a table that is known.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; accepted: a folder of measured tables (.parquet, .csv)")
    device_of = finder(arch)
    rows = [row for path in known_tables(folder) for group in groups(path) for row in _lines(group, device_of(group.device), say)]
    if not rows:
        raise InputError(f"{folder}: holds no table that is known; accepted: {', '.join(sorted(readers()))}")
    return {"rows": rows}


def points(folder: Path, arch: Path | None = None, most: int = 1500) -> pd.DataFrame:
    """About `most` rows of each family, for a figure: family, device, quantity, measured and predicted, in seconds or watts."""
    device_of = finder(arch)
    found = [
        (group, device, values)
        for path in known_tables(folder)
        for group in groups(path)
        if (device := device_of(group.device)) and (values := predicted(group, device)) is not None
    ]
    rows = {family: sum(g.rows for g, _, _ in found if _reported(g) == family) for family in {_reported(g) for g, _, _ in found}}
    parts = [_thinned(group, device, values, most / rows[_reported(group)]) for group, device, values in found]
    columns = ["family", "device", "quantity", "measured", "predicted"]
    return pd.concat(parts) if parts else pd.DataFrame(columns=columns)


def _thinned(group: Group, device: Device, values: NDArray[np.float64], part: float) -> pd.DataFrame:
    """A part of a group's rows, evenly over the measured values."""
    count = min(group.rows, max(2, round(group.rows * part)))
    chosen = np.argsort(group.measured, kind="stable")[np.linspace(0, group.rows - 1, count).astype(int)]
    names = {"family": _reported(group), "device": device.name, "quantity": group.quantity}
    return pd.DataFrame(names | {"measured": group.measured[chosen], "predicted": values[chosen]})


def _reported(group: Group) -> str:
    return group.report or REPORTED.get(group.family, group.family)


def predicted(group: Group, device: Device) -> NDArray[np.float64] | None:
    """Seconds (or watts) of every row, None where the device has no model for them."""
    if group.price is not None:
        return _whole(group, group.price, device)
    chosen = choose(device.kernels.get(group.family, ()), group.stack, group.format)
    return priced(group, device, chosen) if chosen else None


def _whole(group: Group, price: Callable[[Device], NDArray[np.float64] | None], device: Device) -> NDArray[np.float64] | None:
    """Rows of many kernels; what the device refuses is said with the table's name."""
    try:
        with np.errstate(all="ignore"):
            found = price(device)
    except HwsimError as error:
        raise InputError(f"{group.table}: {group.device}: {error}") from error
    return None if found is None else _finite(group, found)


def _finite(group: Group, found: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.all(np.isfinite(found)):
        raise InputError(
            f"{group.table}: a row of {group.device} is beyond the {group.family} model; accepted: shapes of real calls"
        )
    return np.broadcast_to(found, group.measured.shape)


def priced(group: Group, device: Device, chosen: KernelSet) -> NDArray[np.float64] | None:
    """The same with the parameters of `chosen`; None where the device says too little about its chip."""
    chip = chip_of(device, "fp8" if chosen.parameters.get("matrix_bits") == 8 else group.peak)
    if chip is None:
        return None
    with np.errstate(all="ignore"):
        found = kernel(group.family)(**_arguments(group, chip), chip=chip, p=chosen.parameters)
    return _finite(group, found)


def _arguments(group: Group, chip: Chip) -> Mapping[str, Any]:
    """Those of the kernel: the part of the SMs that `tiles` fill depends on the chip."""
    if "tiles" not in group.arguments:
        return group.arguments
    rest = {name: value for name, value in group.arguments.items() if name != "tiles"}
    return rest | {"filled": np.minimum(group.arguments["tiles"] / chip.sms, 1.0)}


def _lines(group: Group, device: Device | None, say: Progress | None) -> Iterator[dict[str, Any]]:
    line = {
        "table": group.table, "device": device.name if device else None, "source_device": group.device,
        "family": _reported(group), "kernel": group.family, "stack": group.stack,
        "dtype": group.dtype, "quantity": group.quantity, "subset": group.subset, "n": group.rows, "mape": None,
    }  # fmt: skip
    found = _found(group, device, say) if device else None
    if found is None:
        yield line
        return
    if group.simulated and not np.isfinite(found).all():
        yield line
        yield from _fitting(group, line, found)
        return
    yield line | errors(found, group.measured)
    if group.quantity == "power":
        yield line | {"quantity": "energy"} | errors(found, group.measured) | {"bias": _summed(found, group)}
    for name, out in group.excluded.items():
        if not out.all() and (out.any() or not name.startswith("without")):  # a threshold is stated even where all rows pass
            yield line | {"subset": name, "n": int(np.count_nonzero(~out))} | errors(found[~out], group.measured[~out])


def _found(group: Group, device: Device, say: Progress | None) -> NDArray[np.float64] | None:
    if group.simulated is None:
        return predicted(group, device)
    return group.simulated(device, say) if say else None


def _fitting(group: Group, line: Mapping[str, Any], found: NDArray[np.float64]) -> Iterator[dict[str, Any]]:
    """The rows that could be simulated."""
    fits = np.isfinite(found)
    if fits.any():
        without = {"subset": "without rows that cannot be served", "n": int(np.count_nonzero(fits))}
        yield {**line, **without, **errors(found[fits], group.measured[fits])}


def _summed(found: NDArray[np.float64], group: Group) -> float:
    """Signed error of the energy of all rows together."""
    seconds = group.arguments["seconds"]
    return float((found * seconds).sum() / (group.measured * seconds).sum() - 1)
