"""`hwsim validate DIR`: every measured table in a folder against the models, one line per table, device, stack and format.

A device that is not known, or has no kernel model for the rows, is a line with its number of rows and no error. Rows that a table's
reader names as excluded (a fallback kernel, an eager launch) are reported with and without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.catalogue import load_device
from hwsim.cost.gpu import chip_of
from hwsim.device import Device
from hwsim.errors import HwsimError, InputError
from hwsim.fit.error import errors
from hwsim.fit.group import Group
from hwsim.kernels.sets import choose

FAMILIES = ("gemm", "attention", "mla", "moe", "collective", "vector", "power")


def validate(folder: Path) -> dict[str, Any]:
    """The JSON document of `hwsim validate`. InputError for a folder without a table that is known."""
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; accepted: a folder of measured tables (.parquet, .csv)")
    rows = [row for path in sorted(folder.iterdir()) for group in groups(path) for row in _lines(group)]
    if not rows:
        raise InputError(f"{folder}: holds no table that is known; accepted: {', '.join(sorted(readers()))}")
    return {"rows": rows}


def readers() -> Mapping[str, Any]:
    """Table name -> reader: the public functions of hwsim/fit/tables."""
    found = {}
    for family in FAMILIES:
        module = import_module(f"hwsim.fit.tables.{family}")
        found |= {
            name: value
            for name, value in vars(module).items()
            if getattr(value, "__module__", "") == module.__name__ and name[0] != "_"
        }
    return found


def groups(path: Path) -> Iterator[Group]:
    """The groups of one file; none for a file that is not a known table."""
    reader = readers().get(path.stem)
    if reader is None or path.suffix not in (".parquet", ".csv"):
        return
    import pandas as pd

    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
        yield from reader(table)
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: {str(error)[:200]}; accepted: the columns of the table's README") from error


def predicted(group: Group, device: Device) -> NDArray[np.float64] | None:
    """Seconds (or watts) of every row, None where the device has no model for them."""
    chosen = choose(device.kernels.get(group.family, ()), group.stack, group.format)
    if chosen is None:
        return None
    model = getattr(import_module(f"hwsim.kernels.{group.family}"), group.family)
    chip = chip_of(device, group.peak)
    if chip is None:
        return None
    return np.broadcast_to(model(**group.arguments, chip=chip, p=chosen.parameters), group.measured.shape)


def _lines(group: Group) -> Iterator[dict[str, Any]]:
    line = {
        "table": group.table, "device": None, "source_device": group.device, "family": group.family.replace("attention_", ""),
        "stack": group.stack, "dtype": group.dtype, "quantity": group.quantity, "subset": "all", "n": group.rows, "mape": None,
    }  # fmt: skip
    try:
        device = load_device(group.device)
    except HwsimError:
        yield line
        return
    line["device"] = device.name
    found = predicted(group, device)
    if found is None:
        yield line
        return
    yield line | errors(found, group.measured)
    for name, out in group.excluded.items():
        if 0 < np.count_nonzero(~out) < group.rows:
            yield line | {"subset": name, "n": int(np.count_nonzero(~out))} | errors(found[~out], group.measured[~out])
