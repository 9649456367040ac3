"""Capacity: the highest request rate at which a service keeps its objective.

A rate is kept when a part of all requests (0.99 by default: goodput as in DistServe, arXiv:2401.09670) meets the objective. The
same requests arrive faster or slower: gaps are stretched, lengths stay, so that rates are compared on one sample. Rates are
doubled until one fails, then halved between a kept and a failed one to 1 %; where the first one fails, a rate at which requests
meet nobody tells whether any is kept. Rates have four digits, so that what is printed is what was served. A longer sample keeps a
lower rate, since its queue has longer to grow: of Llama-3.1-8B on an H100 300 requests keep 32 a second, 1,000 keep 23 and 4,000
or more 21.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hwsim.errors import InputError
from hwsim.serving.objective import Objective
from hwsim.serving.served import Served

LEAST, MOST = 1e-4, 1e6  # requests per second
_PRECISION = 0.01


@dataclass(frozen=True, eq=False)
class Capacity:
    """The highest `rate` kept (0 for none) with its run, and all rates that were tried: (rate, part that met, run)."""

    rate: float
    tried: tuple[tuple[float, float, Served], ...]

    @property
    def best(self) -> Served | None:
        """The run at that rate."""
        return next((served for rate, _, served in self.tried if rate == self.rate), None)


def capacity(start: float, run: Callable[[float], Served], objective: Objective, part: float = 0.99) -> Capacity:
    """Search, from `start` on, the highest rate at which `part` of the requests meet the objective; `run` serves a rate."""
    if not 0 < part <= 1:
        raise InputError(f"slo-part: {part}; accepted: above 0, at most 1")
    tried: dict[float, tuple[float, Served]] = {}

    def kept(rate: float) -> bool:
        served = run(rate)
        tried[rate] = (served.met(objective) / len(served.requests), served)
        return tried[rate][0] >= part

    low = _short(start)
    if kept(low):
        while low < MOST and kept(_short(low * 2)):
            low = _short(low * 2)
        high = _short(low * 2)
    elif kept(LEAST):
        high = low
        while high > LEAST and not kept(_short(high / 2)):
            high = _short(high / 2)
        low = _short(high / 2)
    else:  # not even requests that meet nobody
        high = low = LEAST
    while low > LEAST and high / low > 1 + _PRECISION and low < MOST:
        middle = _short((low * high) ** 0.5)
        low, high = (middle, high) if kept(middle) else (low, middle)
    rows = tuple((rate, met, served) for rate, (met, served) in sorted(tried.items()))
    return Capacity(low if tried.get(low, (0.0,))[0] >= part else 0.0, rows)


def _short(rate: float) -> float:
    """A rate with as many digits as reports print."""
    return float(f"{rate:.4g}")
