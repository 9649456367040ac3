"""Service-level objective: bounds that a request, or a percentile of all, has to keep. Written ttft=2s,tpot=50ms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import InputError
from hwsim.quantity import parse, show

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("ttft", "tpot", "e2e", "queue")


@dataclass(frozen=True)
class Objective:
    """Upper bounds in seconds on `ttft`, `tpot`, `e2e` or `queue`; a request with one token has no TPOT and keeps any."""

    bounds: Mapping[str, float]

    def __str__(self) -> str:
        return ",".join(f"{name}={show(bound, 's', 6).replace(' ', '')}" for name, bound in self.bounds.items())

    def met(self, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows of a table of requests were completed within all bounds."""
        ok = (table["status"] == "completed").to_numpy()
        for name, bound in self.bounds.items():
            ok = ok & ~(table[f"{name}_s"].to_numpy() > bound)
        return np.asarray(ok)


def read_objective(text: str) -> Objective:
    """Read "ttft=2s,tpot=50ms". InputError names what is not understood."""
    bounds: dict[str, float] = {}
    for part in text.split(","):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        if name not in NAMES or not sign or name in bounds:
            raise InputError(f"slo: {part[:40]!r}; accepted: {', '.join(f'{known}=TIME' for known in NAMES)}, each once")
        try:
            bounds[name] = parse(value, "s")
        except InputError as error:
            raise InputError(f"slo: {name}: {error}") from error
        if not 0 < bounds[name] < float("inf"):
            raise InputError(f"slo: {part[:40]!r}; accepted: a time above 0 such as 50ms")
    return Objective(bounds)
