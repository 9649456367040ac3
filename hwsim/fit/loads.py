"""Expert layers of the benchmark's tables: their shapes, and the tokens of each expert of the timed rank (`hwsim.fit.dealing`).

That is not how a network routes; `hwsim.lowering.moe` has routings for that.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwsim.fit.dealing import Dealing, balanced, dealing, power_law
from hwsim.fit.group import floats

Floats = NDArray[np.float64]

_EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_MOST = 1_000_000
_KEY = ["num_tokens", "topk", "num_experts", "moe_ep", "routing"]
_NON_GATED = (
    (2688, 1856, 6, 128), (4096, 2688, 22, 512), (8192, 5120, 22, 512), (1024, 2688, 22, 512), (2048, 5120, 22, 512),
)  # fmt: skip


def layer(rows: pd.DataFrame) -> dict[str, Any]:
    """Arguments of `hwsim.kernels.moe.moe` that do not depend on the number format, by the tables' columns."""
    load, count, tokens = loads(rows)
    return {
        "load": load, "count": count, "tokens": tokens, "topk": floats(rows["topk"]),
        "hidden": floats(rows["hidden_size"]), "inter": floats(rows["inter_size"] / rows["moe_tp"]), "matrices": _matrices(rows),
        "local": floats(rows["num_experts"] / rows["moe_ep"]),
    }  # fmt: skip


def _matrices(rows: pd.DataFrame) -> Floats:
    """Two for shapes of Nemotron, else three; SGLang and vLLM on A100 ran the former with a gate, as their times say."""
    shape = pd.MultiIndex.from_frame(rows[["hidden_size", "inter_size", "topk", "num_experts"]])
    gated = rows["gpu"].astype(str).str.startswith("A100") & rows["fw"].astype(str).isin(["sglang", "vllm"])
    return np.where(shape.isin(_NON_GATED) & ~gated, 2.0, 3.0)


def loads(rows: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
    """Tokens of an expert and number of such experts on the timed rank, both classes x rows, and tokens of the call."""
    by = rows[_KEY].assign(**{name: rows[name].astype(str) if name in rows else "" for name in ("fw", "fw_version")})
    codes, found = pd.MultiIndex.from_frame(by).factorize()
    dealt = [_classes_of(*map(int, one[:4]), str(one[4]), dealing(str(one[5]), str(one[6]))) for one in found]
    load, count = (np.array(part).T[:, codes] for part in list(zip(*dealt, strict=True))[:2])
    return load, count, np.array([tokens for _, _, tokens in dealt])[codes]


@lru_cache(maxsize=16384)
def _classes_of(tokens: int, topk: int, experts: int, ranks: int, routing: str, how: Dealing) -> tuple[Floats, Floats, float]:
    if not (0 < tokens <= _MOST and 0 < topk <= experts <= _MOST and ranks > 0 and experts % ranks == 0):
        raise ValueError(f"{tokens} tokens to {topk} of {experts} experts on {ranks} ranks cannot be dealt")
    if routing == "balanced":
        dealt = balanced(tokens, topk, experts, ranks, how)
    else:
        dealt = power_law(tokens, topk, experts, ranks, float(routing.removeprefix("power_law_")), how)
    return *classes(-np.sort(-dealt.loaded, axis=1)), dealt.tokens


def classes(loaded: Floats) -> tuple[Floats, Floats]:
    """Experts (draws x experts, busiest first) in classes of 1, 1, 2, 4, ... 256 and all others, the last.

    Mean tokens of those of a class that have any, and how many those are in one draw.
    """
    parts = np.split(loaded, _EDGES, axis=1)
    pairs = np.array([part.sum() for part in parts])
    hit = np.array([float(np.count_nonzero(part)) for part in parts])
    return np.where(hit > 0, pairs / np.maximum(hit, 1.0), 1.0), hit / len(loaded)
