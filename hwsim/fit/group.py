"""A group of measured rows that one parameter set prices: same device, kernel family, software stack and number format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwsim.device import Device


@dataclass(frozen=True, eq=False)
class Group:
    """Rows of one table. `arguments` go to the family's function by name, arrays of one entry per row (or numbers for all).

    `format` is the number format that parameter sets are named by, `peak` the one whose peak the kernel computes at; `label` the
    shape family of each row, so that whole ones can be held out. `excluded` names rows that the error without them leaves out.
    `report` is the family that reports name, where it is not the kernel's. A family without kernel models has rows but no error.
    `subset` says which rows of the table a reader keeps, where it is not all. Rows of many kernels have a `price`: seconds of
    every row on a device, None where that has no model for them; they are never fitted.
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

    @property
    def rows(self) -> int:
        """Number of measured rows."""
        return len(self.measured)


def split(table: pd.DataFrame, *columns: str) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """Rows with equal words in `columns`, with those words."""
    for words, rows in table.groupby(list(columns), observed=True, sort=True, dropna=False):
        yield tuple(map(str, words)), rows


def floats(column: pd.Series[Any]) -> NDArray[np.float64]:
    """A column as floats."""
    return np.asarray(column, dtype=float)
