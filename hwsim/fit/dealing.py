"""How the benchmark's collectors (ai-dynamo/aiconfigurator) dealt tokens to experts, of which the tables name only the routing.

    popularity of an expert ~ power law of exponent -alpha between 1 and 0.8 x tokens
                              (between 0.01 and 2 where there are no more pairs of token and expert than experts)
    pairs of an expert      = popularity, scaled to all pairs and rounded, at most one of each token; what rounding leaves over
                              goes rank by rank to the least loaded expert there (is taken from the most loaded)

The most loaded rank is timed. Collectors differ by version, and rows tell which one made them. Those before vLLM 0.17 and
TensorRT-LLM 1.3 gave what rounding left over to the most popular, equal ones by number: a few tokens all meet on one rank. That
of SGLang 0.5.10 timed a rank on the tokens that reach it, with every pair of theirs: numbers of experts elsewhere were raised to
0, so that the rank's first expert computed those pairs too (on A100 the median error is 13.7 % without that and 7.9 % with it).
All of it stands in the collectors' sources; from which version on, we know only by the tables: 0.14 and 0.24 of vLLM, 1.0 and
1.3 of TensorRT-LLM, 0.5.10 and 0.5.14 of SGLang.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRAWS = 16


class Dealing(NamedTuple):
    """How a collector deals: what rounding left over to the most popular; pairs of other ranks to this rank's first expert."""

    to_popular: bool = False
    all_here: bool = False


LATEST = Dealing()


class Hands(NamedTuple):
    """Pairs of each expert of the timed rank, draws x experts of a rank, and the mean number of tokens of the call."""

    loaded: Floats
    tokens: float


_POPULAR = {"vllm": (0, 17), "trtllm": (1, 3)}
_HERE = {"sglang": ((0, 5, 10), (0, 5, 14))}


def dealing(framework: str, version: str) -> Dealing:
    """That of the collector for a version of a framework, as tables write it (1.3.0rc20)."""
    number = tuple(int(digits) for part in version.split(".")[:3] if (digits := _leading(part)))
    first, last = _HERE.get(framework, ((0,), (0,)))
    return Dealing(bool(number) and number < _POPULAR.get(framework, (0,)), first <= number < last)


def _leading(word: str) -> str:
    return word[: len(word) - len(word.lstrip("0123456789"))]


def power_law(tokens: int, topk: int, experts: int, ranks: int, alpha: float, how: Dealing = LATEST) -> Hands:
    """Several draws, the same ones in every run: a row was one draw, which is not recorded, so that their mean stands for it."""
    rng, pairs = np.random.default_rng(0), tokens * topk
    low, high = (1.0, max(0.8 * tokens, 1.0001)) if pairs > experts else (0.01, 2.0)
    rest = 1.0 - alpha or 1e-6  # 1 is the limit
    popular = ((high**rest - low**rest) * rng.random((DRAWS, experts)) + low**rest) ** (1.0 / rest)
    rounded = np.rint(popular / popular.sum(axis=1, keepdims=True) * pairs)
    dealt = _to_popular(rounded, pairs) if how.to_popular else _by_rank(rounded, pairs, tokens, ranks)
    return _timed(dealt, topk, ranks, tokens, how)


def balanced(tokens: int, topk: int, experts: int, ranks: int, how: Dealing = LATEST) -> Hands:
    """Token t goes to the experts t + i x ceil(experts / topk), modulo their number; fewer tokens are spread over such a step."""
    step = -(-experts // topk)
    token = np.arange(tokens)
    first = token if tokens >= step else token * step // tokens
    chosen = (first[:, None] + step * np.arange(topk)) % experts
    own = experts // ranks
    loaded = np.bincount(chosen.ravel(), minlength=experts)[None, :own].astype(float)
    if not how.all_here or ranks == 1:
        return Hands(loaded, float(tokens))
    reached = np.array([np.count_nonzero((chosen < own).any(axis=1))], dtype=float)
    return _all_here(loaded, reached, topk)


def _to_popular(rounded: Floats, pairs: int) -> Floats:
    """One more (or, of those with any, one less) for each expert, most popular first, until all pairs are dealt."""
    dealt = rounded.copy()
    for one, order in zip(dealt, np.argsort(-rounded, axis=1, kind="stable"), strict=True):
        while missing := pairs - int(one.sum()):
            able = (order if missing > 0 else order[one[order] > 0])[: abs(missing)]
            one[able] += np.sign(missing)
    return dealt


def _by_rank(rounded: Floats, pairs: int, tokens: int, ranks: int) -> Floats:
    """What is missing goes to the ranks in turn, there to the least loaded expert; what is too much is taken the same way."""
    by_rank = np.minimum(rounded, tokens).reshape(len(rounded), ranks, -1)
    missing = pairs - by_rank.sum(axis=(1, 2))
    room = np.where(missing[:, None, None] > 0, tokens - by_rank, by_rank).sum(axis=2)
    share = _in_turn(np.abs(missing), room)
    more = _raised(by_rank, share)
    less = -_raised(-by_rank, share)
    return np.where(missing[:, None, None] > 0, more, less).reshape(rounded.shape)


def _in_turn(amount: Floats, room: Floats) -> Floats:
    """One each in turn (draws x ranks) to those with room, until `amount` is gone."""
    given, left = np.zeros_like(room), amount.copy()
    while (left > 0).any():
        able = room > given
        each = np.maximum(left // np.maximum(able.sum(axis=1), 1), 1.0)[:, None]
        turn = np.where(able, np.minimum(each, room - given), 0.0)
        turn = np.minimum(turn, np.maximum(left[:, None] - np.cumsum(turn, axis=1) + turn, 0.0))
        given, left = given + turn, left - turn.sum(axis=1)
    return given


def _raised(loads: Floats, amount: Floats) -> Floats:
    """`amount` ones (draws x ranks) to the least loaded of the last axis, one by one: the lowest rise to one level."""
    order = np.argsort(loads, axis=-1, kind="stable")
    low = np.take_along_axis(loads, order, axis=-1)
    below, count = np.cumsum(low, axis=-1), np.arange(1.0, loads.shape[-1] + 1.0)
    lifted = (count * low - below <= amount[..., None]).sum(axis=-1, keepdims=True)
    level, rest = np.divmod(amount[..., None] + np.take_along_axis(below, lifted - 1, axis=-1), lifted)
    index = count - 1.0
    risen = np.where(index < lifted, level + (index < rest), low)
    raised = np.empty_like(loads)
    np.put_along_axis(raised, order, risen, axis=-1)
    return raised


def _timed(dealt: Floats, topk: int, ranks: int, tokens: int, how: Dealing) -> Hands:
    """The most loaded rank of each draw."""
    by_rank = dealt.reshape(len(dealt), ranks, -1)
    most = by_rank.sum(axis=2).argmax(axis=1)
    loaded = by_rank[np.arange(len(dealt)), most]
    if not how.all_here or ranks == 1:
        return Hands(loaded, float(tokens))
    return _all_here(loaded, _reached(by_rank, most, tokens), topk)


def _all_here(loaded: Floats, reached: Floats, topk: int) -> Hands:
    """The first expert computes every pair of `reached` tokens that is not another's of this rank."""
    whole = loaded.copy()
    whole[:, 0] += reached * topk - loaded.sum(axis=1)
    return Hands(whole, float(reached.mean()))


def _reached(by_rank: Floats, most: NDArray[np.intp], tokens: int) -> Floats:
    """Tokens with a pair on the rank `most` of each draw. All pairs lie in a row, busiest expert first, the i-th for token i
    modulo tokens, so that an expert's tokens are an interval and a rank's the union of them."""
    draws = np.arange(len(by_rank))
    flat = by_rank.reshape(len(by_rank), -1)
    order = np.argsort(-flat, axis=1, kind="stable")
    start = np.empty_like(flat)
    np.put_along_axis(start, order, np.cumsum(np.take_along_axis(flat, order, axis=1), axis=1), axis=1)
    end = start.reshape(by_rank.shape)[draws, most]
    length = by_rank[draws, most]
    first = np.where(length > 0, (end - length) % tokens, 0.0)
    wrapped = np.maximum(first + length - tokens, 0.0)
    begin = np.concatenate([first, np.zeros_like(first)], axis=1)
    until = np.concatenate([first + length - wrapped, wrapped], axis=1)
    by_begin = np.argsort(begin, axis=1, kind="stable")
    begin, until = (np.take_along_axis(one, by_begin, axis=1) for one in (begin, until))
    covered = np.maximum.accumulate(until, axis=1)
    before = np.concatenate([np.zeros_like(covered[:, :1]), covered[:, :-1]], axis=1)
    union: Floats = np.maximum(until - np.maximum(begin, before), 0.0).sum(axis=1)
    return union
