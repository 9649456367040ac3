"""Mixture of experts: who goes where. A routing says how tokens spread over experts; the ops follow from it.

Routings
- balanced: tokens are spread evenly, so min(experts, tokens x top-k) experts are hit.
- uniform: every token picks top-k distinct experts at random. An expert is picked with probability k/N, hit by T tokens with
  1 - (1 - k/N)^T, so N(1 - (1 - k/N)^T) experts are expected to be hit (Duplex, arXiv:2409.01141, section III).
- zipf: expert e has popularity 1/(e+1)^s and a token draws k distinct experts in proportion (successive sampling). With
  exponential arrival times of rate w_e the experts drawn are the first k to arrive (Efraimidis and Spirakis 2006), so
      P(e chosen) = integral of w_e exp(-w_e t) P(fewer than k others have arrived by t) dt,
  which is computed exactly but for the quadrature (trapezoids in log t, error below 1e-6).
With a seed, uniform and zipf draw every layer's tokens from the stream "expert_routing" instead, and layers are not folded. With
`draws` as well, that many draws of one layer are one array op and layers stay folded: the mean over draws is that over layers.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import InputError
from hwsim.op import Array

MAX_DRAWN = 100_000_000  # tokens x experts of one draw, about two seconds
_ROUTING = re.compile(r"(balanced|uniform|zipf)(?::s=(\d+(?:\.\d+)?))?")


def stream(seed: int, name: str, draw: int = 0) -> np.random.Generator:
    """One random stream per purpose, so that a draw added to one never moves another."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), draw])


@dataclass(frozen=True)
class Routing:
    """How tokens choose experts. `exponent` is for zipf; a `seed` samples instead of taking expected values.

    `draw` tells the passes of one run apart, so that every decode step draws anew; `draws` of them at once are those from `draw`
    on, each from its own stream, so that many at once are many one by one. Tokens of `replicas` data-parallel replicas
    meet at the experts and are drawn together.
    """

    kind: Literal["balanced", "uniform", "zipf"] = "uniform"
    exponent: float = 0.0
    seed: int | None = None
    draw: int = 0
    draws: int = 0
    replicas: int = 1

    @property
    def weights_exponent(self) -> float:
        """Zipf exponent of expert popularity; zero is uniform."""
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
    weight = np.arange(1, experts + 1, dtype=float) ** -exponent
    log_t = np.linspace(np.log(1e-8), np.log(60 / weight[-1]), 300)
    t = np.exp(log_t)
    waiting = np.exp(-np.outer(weight, t))
    few = _fewer_arrived(1 - waiting, top_k)
    odds = np.trapezoid(weight[:, None] * t * waiting * few, log_t, axis=1)
    return np.asarray(odds * (top_k / odds.sum()))


def _fewer_arrived(arrived: NDArray[np.float64], top_k: int) -> NDArray[np.float64]:
    """P(fewer than top_k of all experts but e have arrived by t), for each e and t.

    Poisson-binomial counts of the experts before e and of those after e, each cut at top_k, then joined.
    """
    before, after = _counts_before(arrived, top_k), _counts_before(arrived[::-1], top_k)[::-1]
    at_most = np.cumsum(after, axis=1)
    return np.asarray(sum(before[:, i] * at_most[:, top_k - 1 - i] for i in range(top_k)))


def _counts_before(arrived: NDArray[np.float64], top_k: int) -> NDArray[np.float64]:
    """counts[e, i, t]: probability that exactly i of the experts before e have arrived by t."""
    experts, times = arrived.shape
    counts = np.zeros((experts, top_k, times))
    counts[0, 0] = 1.0
    for e in range(experts - 1):
        p = arrived[e]
        counts[e + 1] = counts[e] * (1 - p)
        counts[e + 1, 1:] += counts[e, :-1] * p
    return counts


def sampled_counts(tokens: Array, experts: int, top_k: int, exponent: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Tokens that picked each expert, drawn by Gumbel top-k (successive sampling), in chunks of bounded memory."""
    if np.ndim(tokens) or tokens != int(tokens):
        raise InputError("sampled routing needs a whole number of tokens; accepted: leave out the seed for expected values")
    if tokens * experts > MAX_DRAWN:
        raise InputError(
            f"sampled routing of {tokens:.0f} tokens over {experts} experts; accepted: leave out the seed for expected values"
        )
    bias = -exponent * np.log(np.arange(1, experts + 1))
    counts = np.zeros(experts)
    left, chunk = int(tokens), max(1, 2_000_000 // experts)
    while left > 0:
        keys = rng.gumbel(size=(min(left, chunk), experts)) + bias
        picks = np.argpartition(keys, experts - top_k, axis=1)[:, experts - top_k :]
        counts += np.bincount(picks.ravel(), minlength=experts)
        left -= chunk
    return counts


def drawn_counts(
    tokens: Array, experts: int, top_k: int, routing: Routing, rngs: Sequence[np.random.Generator]
) -> NDArray[np.float64]:
    """Tokens per expert of one replica, [expert] or [expert, draw]; those of all replicas, divided by their number."""
    every = np.round(tokens * routing.replicas, 6)  # a third of 20 tokens, three times
    columns = [sampled_counts(every, experts, top_k, routing.weights_exponent, rng) for rng in rngs]
    return (np.stack(columns, axis=1) if routing.draws else columns[0]) / routing.replicas
