"""A group of measured rows that one parameter set prices: same device, kernel family, software stack and number format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwsim.device import Device

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Group:
    """Rows of one table. `arguments` go to the family's function by name, arrays of one entry per row (or numbers for all).

    `format` is the number format that parameter sets are named by, `peak` the one whose peak the kernel computes at; `label` the
    shape family of each row, so that whole ones can be held out. `excluded` names rows that the error without them leaves out.
    `report` is the family that reports name, where it is not the kernel's. A family without kernel models has rows but no error;
    rows of a number format that nobody knows have no family at all (`counted`).
    `subset` says which rows of the table a reader keeps, where it is not all. Rows of many kernels have a `price`: seconds of
    every row on a device, None where that has no model for them; they are never fitted. Rows that take minutes are `simulated`
    instead, only when that is asked for; a row that cannot be is NaN.
    """

    table: str
    device: str
    family: str
    stack: str
    dtype: str
    measured: NDArray[np.float64]
    arguments: Mapping[str, Any]
    format: str
    peak: str
    quantity: str = "latency"
    label: NDArray[np.object_] | None = None
    excluded: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    report: str = ""
    subset: str = "all"
    price: Callable[[Device], NDArray[np.float64] | None] | None = None
    simulated: Callable[[Device, Progress], NDArray[np.float64]] | None = None

    @property
    def rows(self) -> int:
        """Number of measured rows."""
        return len(self.measured)


def counted(
    table: str, device: str, report: str, stack: str, dtype: str, measured: NDArray[np.float64], quantity: str = "latency",
    subset: str = "all",
) -> Group:  # fmt: skip
    """Rows whose number format is not known: reports count them under `report` and give no error."""
    return Group(table, device, "", stack, dtype, measured, {}, dtype, "", quantity=quantity, report=report, subset=subset)


def split(table: pd.DataFrame, *columns: str) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """Rows with equal words in `columns`, with those words."""
    for words, rows in table.groupby(list(columns), observed=True, sort=True, dropna=False):
        yield tuple(map(str, words)), rows


def shapes(rows: pd.DataFrame, *columns: str) -> NDArray[np.object_]:
    """The shape of each row: its words in `columns`, joined by x."""
    words = rows[columns[0]].astype(str)
    for name in columns[1:]:
        words = words + "x" + rows[name].astype(str)
    return words.to_numpy(dtype=object)


def floats(column: pd.Series[Any]) -> NDArray[np.float64]:
    """A column as floats."""
    return np.asarray(column, dtype=float)
