"""Expert layers of the benchmark's tables and the tokens of each expert, of which a table only names the routing.

Loads follow the collectors that made the benchmark (ai-dynamo/aiconfigurator): they draw loads, balanced or by a power law, and
time the most loaded rank. That is not how a network routes; `hwsim.lowering.moe` has routings for that. A row of a power law was
one draw, which is not recorded: the mean of several stands for it, the same ones in every run.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwsim.fit.group import floats

Floats = NDArray[np.float64]

_DRAWS = 16
_EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_MOST = 1_000_000
_KEY = ["num_tokens", "topk", "num_experts", "moe_ep", "routing"]
_NON_GATED = (
    (2688, 1856, 6, 128), (4096, 2688, 22, 512), (8192, 5120, 22, 512), (1024, 2688, 22, 512), (2048, 5120, 22, 512),
)  # fmt: skip


def layer(rows: pd.DataFrame) -> dict[str, Any]:
    """Arguments of `hwsim.kernels.moe.moe` that do not depend on the number format, by the tables' columns."""
    load, count = loads(rows)
    return {
        "load": load, "count": count, "tokens": floats(rows["num_tokens"]), "topk": floats(rows["topk"]),
        "hidden": floats(rows["hidden_size"]), "inter": floats(rows["inter_size"] / rows["moe_tp"]), "matrices": _matrices(rows),
        "local": floats(rows["num_experts"] / rows["moe_ep"]),
    }  # fmt: skip


def _matrices(rows: pd.DataFrame) -> Floats:
    """Two for shapes of Nemotron, else three; SGLang and vLLM on A100 ran the former with a gate, as their times say."""
    shape = pd.MultiIndex.from_frame(rows[["hidden_size", "inter_size", "topk", "num_experts"]])
    gated = rows["gpu"].astype(str).str.startswith("A100") & rows["fw"].astype(str).isin(["sglang", "vllm"])
    return np.where(shape.isin(_NON_GATED) & ~gated, 2.0, 3.0)


def loads(rows: pd.DataFrame) -> tuple[Floats, Floats]:
    """Tokens of an expert and number of such experts on the timed rank, both classes x rows, by the tables' columns."""
    codes, found = pd.MultiIndex.from_frame(rows[_KEY]).factorize()
    both = np.array([_classes_of(*map(int, one[:4]), str(one[4])) for one in found])
    return both[:, 0].T[:, codes], both[:, 1].T[:, codes]


@lru_cache(maxsize=16384)
def _classes_of(tokens: int, topk: int, experts: int, ranks: int, routing: str) -> tuple[Floats, Floats]:
    if not (0 < tokens <= _MOST and 0 < topk <= experts <= _MOST and ranks > 0 and experts % ranks == 0):
        raise ValueError(f"{tokens} tokens to {topk} of {experts} experts on {ranks} ranks cannot be dealt")
    if routing == "balanced":
        return classes(balanced(tokens, topk, experts, ranks))
    return classes(power_law(tokens, topk, experts, ranks, float(routing.removeprefix("power_law_"))))


def power_law(tokens: int, topk: int, experts: int, ranks: int, alpha: float, draws: int = _DRAWS) -> Floats:
    """Tokens of each expert of the most loaded rank, draws x experts of a rank, busiest first.

    As the benchmark's collectors draw them, not as a network routes: popularity follows a power law of exponent -`alpha` between
    1 and 0.8 x tokens (0.01 and 2 where there are no more pairs of token and expert than experts), is scaled to all pairs and
    rounded; what rounding leaves over goes to the most popular.
    """
    rng, pairs = np.random.default_rng(0), tokens * topk
    low, high = (1.0, max(0.8 * tokens, 1.0001)) if pairs > experts else (0.01, 2.0)
    rest = 1.0 - alpha or 1e-6  # 1 is the limit
    popular = ((high**rest - low**rest) * rng.random((draws, experts)) + low**rest) ** (1.0 / rest)
    loaded = np.rint(popular / popular.sum(axis=1, keepdims=True) * pairs)
    order = np.argsort(-loaded - 0.5 * rng.random(loaded.shape), axis=1)  # ties at random
    for one, by_popularity in zip(loaded, order, strict=True):
        _settle(one, pairs, by_popularity)
    by_rank = loaded.reshape(draws, ranks, experts // ranks)
    return _busiest_first(by_rank[np.arange(draws), by_rank.sum(axis=2).argmax(axis=1)])


def _settle(loaded: Floats, pairs: int, order: NDArray[np.intp]) -> None:
    """Give each expert in `order` one more (or, of those with any, one less) until all pairs are dealt."""
    missing = pairs - int(loaded.sum())
    while missing:
        able = order if missing > 0 else order[loaded[order] > 0]
        able = able[: abs(missing)]
        loaded[able] += np.sign(missing)
        missing -= int(np.sign(missing)) * len(able)


def balanced(tokens: int, topk: int, experts: int, ranks: int) -> Floats:
    """Tokens of each expert of the first rank, 1 x experts of a rank, busiest first.

    As the benchmark's collectors spread them, not as a network routes: token t goes to the experts t + i x ceil(experts / topk),
    modulo their number; fewer tokens than that step are spread over it.
    """
    step = -(-experts // topk)
    token = np.arange(tokens)
    first = token if tokens >= step else token * step // tokens
    loaded = np.bincount(((first[:, None] + step * np.arange(topk)) % experts).ravel(), minlength=experts)
    return _busiest_first(loaded[None, : experts // ranks].astype(float))


def _busiest_first(loaded: Floats) -> Floats:
    return -np.sort(-loaded, axis=1)


def classes(loaded: Floats) -> tuple[Floats, Floats]:
    """Experts (draws x experts, busiest first) in classes of 1, 1, 2, 4, ... 256 and all others, the last.

    Mean tokens of those of a class that have any, and how many those are in one draw.
    """
    parts = np.split(loaded, _EDGES, axis=1)
    pairs = np.array([part.sum() for part in parts])
    hit = np.array([float(np.count_nonzero(part)) for part in parts])
    return np.where(hit > 0, pairs / np.maximum(hit, 1.0), 1.0), hit / len(loaded)
