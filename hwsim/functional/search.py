"""QuantMCU's two decisions by value (arXiv:2401.13714): which patches stay in 8 bit, and how many bits every feature map gets.

VDPC, patch classification: values of the map that is cut are taken as a Gaussian; one outside its central mass phi is an outlier,
and a patch with an outlier stays in 8 bit. VDQS, the search: for map i and b of 8, 4, 2 bit

    S(i, b) = (1 - lambda) Phi(i, b) - lambda Omega(i, b)
    Phi = (B(i, 8) - B(i, b)) / max over j of (B(j, 8) - B(j, 2))     Omega = (H(i, 8) - H(i, b)) / max of (H(j, 8) - H(j, 2))

with B the bit operations of the layers that read the map and H the entropy of the map in 2^b levels of its range. Maps take their
best width in order; while two neighbours exceed the memory, the larger takes the next lower width; sweeps until nothing changes.

The paper's text was not available to us: which of the two terms lambda weighs, phi, the normalisation and the sweep are our
reading of summaries. Whether maps behind the patches are searched as well is open too; here whoever calls says which maps are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from hwsim.errors import InputError

WIDTHS = (8, 4, 2)
Interval = tuple[int, int]


@dataclass(frozen=True)
class Found:
    """Bits of every map that was searched, and the seconds that the search took on this machine."""

    bits: Mapping[str, int]
    seconds: float


def outliers(values: NDArray[np.float64], phi: float) -> NDArray[np.bool_]:
    """Values outside the central mass `phi` of a Gaussian with their mean and variance."""
    if not 0 < phi < 1:
        raise InputError(f"phi: {phi}; accepted: a share of the values, above 0 and below 1")
    z = float(ndtri((1.0 + phi) / 2.0))
    found: NDArray[np.bool_] = np.abs(values - values.mean()) > z * values.std()
    return found


def patches_with_outliers(
    values: NDArray[np.float64], rows: Sequence[Interval], columns: Sequence[Interval], phi: float
) -> NDArray[np.bool_]:
    """(images, tiles of rows, tiles of columns): whether a window of a map (images, channels, rows, columns) has an outlier."""
    odd = np.asarray(outliers(values, phi).any(axis=1))
    whole = [[odd[:, _inside(r), _inside(c)].any(axis=(1, 2)) for c in columns] for r in rows]
    return np.moveaxis(np.array(whole), 2, 0)


def _inside(interval: Interval) -> slice:
    return slice(max(interval[0], 0), max(interval[1], 0))


def entropy(values: NDArray[np.float64], bits: int) -> float:
    """Shannon entropy in bits of `values` in 2^bits equal levels of their range; 0 where all are equal."""
    low, high = float(values.min()), float(values.max())
    if high <= low:
        return 0.0
    counts, _ = np.histogram(values, bins=2**bits, range=(low, high))
    shares = counts[counts > 0] / values.size
    return float(-(shares * np.log2(shares)).sum())


def search(
    maps: Mapping[str, NDArray[np.float64]], macs: Mapping[str, float], weight: float, room: float, weight_bits: int = 8
) -> Found:
    """VDQS over `maps` (values of each, in forward order) that `macs` multiply-accumulates read, in `room` bytes for neighbours.

    `weight` is lambda. InputError for a weight outside 0 to 1.
    """
    if not 0 <= weight <= 1:
        raise InputError(f"lambda: {weight}; accepted: 0 to 1")
    started = perf_counter()
    names = list(maps)
    lost = {name: {b: entropy(maps[name], 8) - entropy(maps[name], b) for b in WIDTHS} for name in names}
    saved = {name: {b: macs[name] * weight_bits * (8 - b) for b in WIDTHS} for name in names}
    most_lost = max((lost[name][2] for name in names), default=0.0) or 1.0
    most_saved = max((saved[name][2] for name in names), default=0.0) or 1.0

    def score(name: str, b: int) -> float:
        return (1.0 - weight) * saved[name][b] / most_saved - weight * lost[name][b] / most_lost

    bits = {name: max(WIDTHS, key=lambda b, name=name: (score(name, b), b)) for name in names}  # type: ignore[misc]
    sizes = {name: float(maps[name][0].size) for name in names}
    return Found(_within(bits, sizes, names, room), perf_counter() - started)


def _within(bits: dict[str, int], sizes: Mapping[str, float], names: Sequence[str], room: float) -> dict[str, int]:
    """Widths lowered until every map and its neighbour fit into `room` bytes, or nothing can be lowered."""
    changed = True
    while changed:
        changed = False
        for before, name in pairwise(names):
            while sizes[before] * bits[before] + sizes[name] * bits[name] > 8 * room:
                larger = max((before, name), key=lambda one: sizes[one] * bits[one])
                other = name if larger == before else before
                lowered = next((one for one in (larger, other) if bits[one] > WIDTHS[-1]), None)
                if lowered is None:
                    break
                bits[lowered] = WIDTHS[WIDTHS.index(bits[lowered]) + 1]
                changed = True
    return bits
