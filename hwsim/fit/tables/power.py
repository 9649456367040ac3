"""Power tables: watts of the board while one kernel repeats. Sets are named by kernel family; the power limit is the row's.

Only rows over 100 us: for shorter ones the meter's window remembers what ran before. `tiles` are blocks of threads that can run
at once; further SMs are idle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from hwsim.fit.group import Group, counted, floats, shapes, split
from hwsim.fit.loads import layer
from hwsim.fit.quant import QUANT, Quant

_SHORTEST = 100e-6
_SUBSET = "over 100 us"
_SHAPES = {
    "gemm_power": ("n", "k"), "attention_power": ("num_heads", "num_kv_heads", "head_dim"),
    "moe_power": ("hidden_size", "inter_size", "topk", "num_experts"),
}  # fmt: skip


def gemm_power(table: pd.DataFrame) -> Iterator[Group]:
    """Linear layers, in tiles of 128 x 128."""
    for (gpu, quant), rows in split(_long(table), "gpu", "quant"):
        if quant not in QUANT:
            yield _counted("gemm_power", gpu, "gemm", quant, rows)
            continue
        kind = QUANT[quant]
        m, n, k = (floats(rows[name]) for name in "mnk")
        work = {"ops": 2.0 * m * n * k, "bytes": n * k * kind.w_bytes + m * k * kind.a_bytes + 2.0 * m * n}
        tiles = np.ceil(m / 128.0) * np.ceil(n / 128.0)
        yield _group("gemm_power", gpu, "gemm", quant, rows, work | {"tiles": tiles}, kind.format, kind.peak)


def attention_power(table: pd.DataFrame) -> Iterator[Group]:
    """Prefill in tiles of 128 queries of a head, decode in one of a KV head; the set's format is that of the KV cache."""
    for (gpu, phase, math, cache), rows in split(_long(table), "gpu", "phase", "attn_dtype", "kv_cache_dtype"):
        if not {math, cache} <= set(QUANT):
            yield _counted("attention_power", gpu, phase, f"{math}/{cache}", rows)
            continue
        work = _attention(rows, phase == "prefill", QUANT[cache].a_bytes)
        yield _group("attention_power", gpu, phase, f"{math}/{cache}", rows, work, QUANT[cache].format, QUANT[math].peak)


def _attention(rows: pd.DataFrame, prefill: bool, kv_bytes: float) -> dict[str, Any]:
    """Operations, bytes and tiles; queries and outputs are 16 bits."""
    batch, new, seen, heads = (floats(rows[name]) for name in ("batch", "q_len", "kv_len", "num_heads"))
    kv_heads, dim, window = (floats(rows[name]) for name in ("num_kv_heads", "head_dim", "window_size"))
    window = np.where(window > 0, np.minimum(window, seen), seen)
    short = np.minimum(new, window)
    pairs = short * (short + 1.0) / 2.0 + (new - short) * window if prefill else window
    read = seen if prefill else window
    return {
        "ops": 4.0 * batch * pairs * heads * dim,
        "bytes": batch * (read * kv_heads * 2.0 * dim * kv_bytes + new * heads * dim * 4.0),
        "tiles": batch * (heads * np.ceil(new / 128.0) if prefill else kv_heads),
    }


def moe_power(table: pd.DataFrame) -> Iterator[Group]:
    """MoE layers, every expert in tiles of 128 tokens x 128 of the hidden size."""
    for (gpu, quant), rows in split(_long(table), "gpu", "quant"):
        if quant not in QUANT:
            yield _counted("moe_power", gpu, "moe", quant, rows)
            continue
        kind = QUANT[quant]
        yield _group("moe_power", gpu, "moe", quant, rows, _experts(layer(rows), kind), kind.format, kind.peak)


def _experts(of: dict[str, Any], kind: Quant) -> dict[str, Any]:
    """Operations, bytes (weights of experts that are hit, vectors of each pair as `hwsim.kernels.moe` counts them) and tiles."""
    pairs, weights = (of["load"] * of["count"]).sum(axis=0), of["matrices"] * of["hidden"] * of["inter"]
    outer = of["hidden"] * (kind.a_bytes + 4.0)
    inner = of["inter"] * ((of["matrices"] - 1.0) * 4.0 + 2.0 * kind.a_bytes)
    tiles = (of["count"] * np.ceil(of["load"] / 128.0)).sum(axis=0)
    return {
        "ops": 2.0 * pairs * weights,
        "bytes": of["count"].sum(axis=0) * weights * kind.w_bytes + pairs * (outer + inner),
        "tiles": tiles * np.ceil(of["hidden"] / 128.0),
    }


def _long(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["latency_s"] > _SHORTEST]


def _counted(table: str, gpu: str, stack: str, dtype: str, rows: pd.DataFrame) -> Group:
    return counted(table, gpu, "power", stack, dtype, floats(rows["power_w"]), "power", _SUBSET)


def _group(
    table: str, gpu: str, stack: str, dtype: str, rows: pd.DataFrame, work: dict[str, Any], format: str, peak: str
) -> Group:
    meter = {"seconds": floats(rows["latency_s"]), "tdp": floats(rows["power_limit_w"])}
    return Group(
        table, gpu, "power", stack, dtype, floats(rows["power_w"]), work | meter, format, peak, quantity="power",
        subset=_SUBSET, label=shapes(rows, *_SHAPES[table]),
    )  # fmt: skip
