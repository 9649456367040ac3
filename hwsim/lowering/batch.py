"""Batch: which tokens one forward pass handles. Groups of equal sequences, so that batch 512 costs no more than batch 1.

Counts, new tokens and contexts may be NumPy arrays: decode(8, np.arange(2048, 3072)) is 1,024 decode steps at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hwsim.errors import InputError
from hwsim.op import Array


@dataclass(frozen=True, eq=False)
class Sequences:
    """`count` sequences that each add `new` tokens to `past` tokens already in the KV cache."""

    count: Array
    new: Array
    past: Array

    def __str__(self) -> str:
        return f"{self.count} x {self.new} new on {self.past}"

    def read(self, window: int | None) -> Array:
        """Cached tokens read by attention, new ones included, over all sequences of the group.

        With a window, a chunk of several tokens reads the union of their windows.
        """
        context = self.past + self.new
        return self.count * (context if window is None else np.minimum(context, window + self.new - 1))

    def cached(self, window: int | None) -> Array:
        """Tokens the cache holds afterwards; a window keeps no more than itself."""
        context = self.past + self.new
        return self.count * (context if window is None else np.minimum(context, window))

    def pairs(self, window: int | None, causal: bool = True) -> Array:
        """Query-key pairs: every new token sees all tokens before it and itself, at most `window` of them."""
        context = self.past + self.new
        if not causal:
            return self.count * self.new * context
        full = self.new * self.past + self.new * (self.new + 1) / 2
        if window is None:
            return self.count * full
        # tokens whose context exceeds the window lose the excess: 1 + 2 + ... for those new tokens beyond it
        beyond = np.maximum(context - window, 0)
        before = np.maximum(self.past - window, 0)
        lost: Array = (beyond * (beyond + 1) - before * (before + 1)) / 2
        return self.count * (full - lost)


Batch = tuple[Sequences, ...]


@dataclass(frozen=True, eq=False)
class Extent:
    """What attention sees of a group of sequences, all of them together.

    How many sequences, their new `tokens`, query-key `pairs`, cached tokens `read` and cached tokens kept afterwards.
    """

    sequences: Array
    tokens: Array
    pairs: Array
    read: Array
    cached: Array


def extent(groups: Batch, window: int | None, causal: bool = True) -> Extent:
    """The totals of `groups` under a sliding window, or none."""
    return Extent(
        sequences=sequences(groups),
        tokens=tokens(groups),
        pairs=sum(group.pairs(window, causal) for group in groups),
        read=sum(group.read(window) for group in groups),
        cached=sum(group.cached(window) for group in groups),
    )


def prefill(batch: Array, prompt: Array) -> Batch:
    """`batch` prompts of `prompt` tokens. InputError unless both are positive."""
    _positive("batch", batch)
    _positive("prompt", prompt)
    return (Sequences(batch, prompt, 0),)


def decode(batch: Array, context: Array) -> Batch:
    """One token for each of `batch` sequences, `context` tokens being in the cache before it. InputError unless batch > 0."""
    _positive("batch", batch)
    return (Sequences(batch, 1, context),)


def mixed(sequences: Iterable[tuple[int, ...]]) -> Batch:
    """Any mix of (new tokens, context) or (new tokens, context, how many) per sequence; equal ones are grouped."""
    groups: Counter[tuple[int, int]] = Counter()
    for one in sequences:
        if len(one) not in (2, 3) or one[0] < 1 or min(one) < 0:
            raise InputError(
                f"sequence {one}: accepted: (new tokens, context) or (new tokens, context, count), at least one new token"
            )
        groups[one[0], one[1]] += one[2] if len(one) == 3 else 1
    found = tuple(Sequences(count, new, past) for (new, past), count in sorted(groups.items()) if count)
    if not found:
        raise InputError("a batch needs at least one sequence of (new tokens, context)")
    return found


def _positive(name: str, value: Array) -> None:
    if not np.all(np.greater(value, 0)):
        raise InputError(f"{name}: {value!r:.60}; accepted: above zero")


def tokens(batch: Batch) -> Array:
    """New tokens of the whole pass."""
    return sum(group.count * group.new for group in batch)


def sequences(batch: Batch) -> Array:
    """Sequences in the pass: each yields the logits of one next token."""
    return sum(group.count for group in batch)
