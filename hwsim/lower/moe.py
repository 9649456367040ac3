"""Mixture of experts: who goes where. A routing says how tokens spread over experts; the ops follow from it.

Routings
- balanced: tokens are spread evenly, so min(experts, tokens x top-k) experts are hit.
- uniform: every token picks top-k distinct experts at random. An expert is picked with probability k/N, hit by T tokens with
  1 - (1 - k/N)^T, so N(1 - (1 - k/N)^T) experts are expected to be hit (Duplex, arXiv:2409.01141, section III).
- zipf: expert e has popularity 1/(e+1)^s and a token draws k distinct experts in proportion (successive sampling). The
  probability of being among the k is taken as 1 - exp(-t w_e), with t such that they add up to k: the exponential-race
  approximation of Rosen (1972). It is exact for equal weights and within 2 % of sampling for the shapes tested.
With a seed, uniform and zipf draw every layer's tokens from the stream "expert_routing" instead, and layers are not folded.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import InputError
from hwsim.op import Array

_ROUTING = re.compile(r"(balanced|uniform|zipf)(?::s=(\d+(?:\.\d+)?))?")


def stream(seed: int, name: str, draw: int = 0) -> np.random.Generator:
    """One random stream per purpose, so that a draw added to one never moves another."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), draw])


@dataclass(frozen=True)
class Routing:
    """How tokens choose experts. `exponent` is for zipf; a `seed` samples instead of taking expected values.

    `draw` tells the passes of one run apart, so that every decode step draws anew.
    """

    kind: Literal["balanced", "uniform", "zipf"] = "uniform"
    exponent: float = 0.0
    seed: int | None = None
    draw: int = 0

    @property
    def weights_exponent(self) -> float:
        return self.exponent if self.kind == "zipf" else 0.0


def read_routing(text: str, seed: int | None = None) -> Routing:
    """Read "balanced", "uniform" or "zipf:s=1.2"."""
    match = _ROUTING.fullmatch(text)
    if match is None or (match[1] == "zipf") != (match[2] is not None):
        raise InputError(f"routing: {text[:60]!r}; accepted: balanced, uniform or zipf:s=NUMBER")
    exponent = float(match[2] or 0)
    if exponent > 10:
        raise InputError(f"routing: zipf exponent {exponent}; accepted: 0 to 10")
    return Routing(match[1], exponent, None if match[1] == "balanced" else seed)  # type: ignore[arg-type]


@lru_cache(maxsize=256)
def chosen_probability(experts: int, top_k: int, exponent: float) -> NDArray[np.float64]:
    """Probability that a token picks each expert, adding up to top_k; most popular expert first."""
    if exponent == 0 or top_k == experts:
        return np.full(experts, top_k / experts)
    from scipy.optimize import brentq

    weight = np.arange(1, experts + 1, dtype=float) ** -exponent
    # below: even the most popular expert alone cannot reach top_k; above: even the least popular is all but certain
    enough = brentq(lambda t: top_k + np.expm1(-t * weight).sum(), 1e-9, 40 / weight[-1], xtol=1e-12, rtol=1e-12)
    odds = -np.expm1(-enough * weight)
    return np.asarray(odds * (top_k / odds.sum()))


def sampled_counts(tokens: Array, experts: int, top_k: int, exponent: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Tokens that picked each expert, drawn by Gumbel top-k (successive sampling), in chunks of bounded memory."""
    if np.ndim(tokens) or tokens != int(tokens):
        raise InputError("sampled routing needs a whole number of tokens; accepted: leave out the seed for expected values")
    bias = -exponent * np.log(np.arange(1, experts + 1))
    counts = np.zeros(experts)
    left, chunk = int(tokens), max(1, 2_000_000 // experts)
    while left > 0:
        keys = rng.gumbel(size=(min(left, chunk), experts)) + bias
        picks = np.argpartition(keys, experts - top_k, axis=1)[:, experts - top_k :]
        counts += np.bincount(picks.ravel(), minlength=experts)
        left -= chunk
    return counts
