"""Which neurons of a sparse feed-forward network are used, token by token: what caches of neurons live on.

`Neurons` is what was measured of a network: of a layer's neurons, the part that a window of tokens uses, and the part of it that
its last token is the first to use. With Denning's working-set theory (Denning and Schwartz 1972) these are a curve and its slope:

    s(k) = cached x (k / window)^b        s(window) - s(window - 1) = new        at most all neurons; s(1) is one token's

Each neuron is a stationary renewal process with just that curve: it was used last j tokens ago with probability s(j) - s(j - 1),
and waits more than j tokens with (s(j + 1) - s(j)) / s(1). `expected` gives the means of that process, `walk` draws it.
Neurons of one layer that were used equally long ago are alike, so that a layer is a histogram of ages and a draw one binomial
per age: exact, and cheap. Layers differ by `active`, the true activity of some layers evenly spaced over the depth.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

AGES = 256  # tokens after which a neuron counts as unused

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Neurons:
    """Published marginals of the neurons that a predictor finds active, over layers on average.

    `window` tokens use the part `cached` of all neurons, and `new` of all neurons are in no other token of it. `rank` is the
    mean rank of the layers' predictors, 0 for none.
    """

    window: float
    cached: float
    new: float
    rank: float = 0.0
    active: tuple[float, ...] = ()

    @property
    def exponent(self) -> float:
        """b of the curve."""
        return float(np.log1p(-self.new / self.cached) / np.log1p(-1.0 / self.window))

    def factors(self, layers: int) -> Values:
        """Activity of each layer over the mean of all layers."""
        if not self.active:
            return np.ones(layers)
        found = np.interp(np.linspace(0.0, 1.0, layers), np.linspace(0.0, 1.0, len(self.active)), self.active)
        return np.asarray(found / found.mean())

    def used(self, tokens: Values, factors: Values) -> Values:
        """s: the part of each layer's neurons that so many tokens in a row use; layers first."""
        curve = self.cached * (tokens / self.window) ** self.exponent
        return np.minimum(np.multiply.outer(factors, curve), 1.0)


@dataclass(frozen=True, eq=False)
class Activity:
    """The neurons of a layer at one pass, as parts of all of them, by when they were used last: one token ago, two, ...

    `live` before the pass, `fired` those of them that the pass uses; ages first, further axes are passes. `tokens` of the pass.
    """

    live: Values
    fired: Values
    rank: float = 0.0
    tokens: float = 1.0

    @property
    def used(self) -> Values:
        """Neurons that the pass uses."""
        return np.asarray(self.fired.sum(axis=0))

    def missing(self, window: Values | float) -> Values:
        """Neurons that the pass uses and the `window` tokens before it did not."""
        return self.used - _first(self.fired, window)

    def touched(self, window: Values | float) -> Values:
        """Neurons that the pass or the `window` tokens before it use: what a cache of that window holds at its end."""
        return _first(self.live, window) + self.missing(window)

    def stays(self, window: Values | float) -> Values:
        """Neurons that take room in a cache: all that it holds at the end, but of several tokens at once those of the window."""
        return _first(self.live, window) if self.tokens > 1 else self.touched(window)

    def expired(self, window: Values | float) -> Values:
        """Neurons that leave the window with the pass; for several tokens at once as many as arrive."""
        if self.tokens > 1:
            return self.missing(window)
        idle = self.live - self.fired
        return np.asarray(_first(idle, window) - _first(idle, np.maximum(np.asarray(window) - 1.0, 0.0)))

    def shrunk(self, window: float, most: float) -> Values:
        """The longest window, in tokens, whose cache holds at most the part `most` of the neurons at the end of the pass."""
        held = self.used + np.cumsum(self.live - self.fired, axis=0)
        held = np.concatenate([self.used[None], held]).reshape(len(held) + 1, -1)
        found = [min(window, float(np.interp(most, column, np.arange(len(column))))) for column in held.T]
        return np.asarray(found).reshape(self.used.shape)


def _first(parts: Values, window: Values | float) -> Values:
    """Sum over the first `window` ages; a part of an age counts by that part."""
    ages = np.arange(len(parts)).reshape(-1, *[1] * (parts.ndim - 1))
    return np.asarray((parts * np.clip(np.asarray(window) - ages, 0.0, 1.0)).sum(axis=0))


def expected(neurons: Neurons, layers: int, tokens: float = 1.0) -> Activity:
    """Means of a pass of `tokens` over the process, averaged over the layers."""
    live, fired = _means(neurons, layers, tokens)
    return Activity(live.mean(axis=0), fired.mean(axis=0), neurons.rank, tokens)


@lru_cache(maxsize=64)
def _means(neurons: Neurons, layers: int, tokens: float) -> tuple[Values, Values]:
    """P(used last j tokens ago) and P(that and used in the next `tokens`), [layer, age]; the last age is all others."""
    factors, ages = neurons.factors(layers), np.arange(AGES, dtype=float)

    def unused(after: Values) -> Values:
        """P(not used by so many tokens)."""
        return 1.0 - neurons.used(after, factors)

    before, later = unused(ages), unused(ages + tokens)
    live = np.concatenate([before[:, :-1] - before[:, 1:], before[:, -1:]], axis=1)
    waits = np.concatenate([later[:, :-1] - later[:, 1:], later[:, -1:]], axis=1)
    return live, live - waits


def walk(neurons: Neurons, layers: int, inner: int, seed: int, cold: bool = False) -> Iterator[tuple[Values, Values]]:
    """Draw the process token by token: `live` and `fired` neurons, [layer, age], as parts of `inner`.

    It starts in its stationary state, or `cold`, with neurons that nobody has used. The same seed gives the same neurons.
    """
    rng = np.random.default_rng([seed, zlib.crc32(b"active_neurons")])
    live, fired = _means(neurons, layers, 1.0)
    odds = np.clip(np.divide(fired, live, out=np.zeros_like(live), where=live > 0), 0.0, 1.0)
    start = np.eye(1, AGES, AGES - 1).repeat(layers, axis=0) if cold else np.clip(live, 0.0, None)
    now = rng.multinomial(inner, start / start.sum(axis=1, keepdims=True))
    while True:
        hit = rng.binomial(now, odds)
        yield now / inner, hit / inner
        idle = now - hit
        older = np.concatenate([hit.sum(axis=1, keepdims=True), idle[:, :-1]], axis=1)
        older[:, -1] += idle[:, -1]
        now = older


class Drawn:
    """A walk that remembers what it has drawn, so that passes can be asked for in any order."""

    def __init__(self, neurons: Neurons, layers: int, inner: int, seed: int) -> None:
        self.rank, self._walk = neurons.rank, walk(neurons, layers, inner, seed)
        self._drawn: list[tuple[Values, Values]] = []

    def layer(self, index: int, first: int, passes: int = 0) -> Activity:
        """Pass `first` of a layer, or `passes` of them from there on as one array."""
        while len(self._drawn) < first + max(passes, 1):
            self._drawn.append(next(self._walk))
        chosen = self._drawn[first : first + max(passes, 1)]
        live, fired = (np.stack([one[part][index] for one in chosen], axis=1) for part in (0, 1))
        return Activity(live, fired, self.rank) if passes else Activity(live[:, 0], fired[:, 0], self.rank)


@lru_cache(maxsize=8)
def drawn(neurons: Neurons, layers: int, inner: int, seed: int) -> Drawn:
    """The walk of a network, shared by the passes of a run."""
    return Drawn(neurons, layers, inner, seed)
