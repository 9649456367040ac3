"""MoE tables: one call is a rank's expert feed-forward, without communication between ranks.

A table says how tokens are routed, not where they went: `hwsim.fit.loads` draws it as the collectors do. Nothing is excluded.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from hwsim.fit.group import Group, counted, floats, shapes, split
from hwsim.fit.loads import layer
from hwsim.fit.quant import QUANT, Quant

_QUANT = QUANT | {"int4_wo": Quant("int4_bf16", "bf16", "bf16", "int4_g128")}
_PARTS = 8
_BACKENDS = {
    "marlin": "marlin", "flashinfer_cutlass": "cutlass", "flashinfer_trtllm": "trtllm", "triton": "triton", "fused_moe": "triton",
    "torch_flow": "cutlass",
}  # fmt: skip


def moe_kernels(table: pd.DataFrame) -> Iterator[Group]:
    """MoE layers of LLM frameworks; sets are named by framework and kernel library."""
    stack = table["fw"].astype(str) + table["kernel_source"].astype(str).map(_backend)
    for (gpu, name, quant), rows in split(table.assign(stack=stack), "gpu", "stack", "quant"):
        if quant not in _QUANT:
            yield counted("moe_kernels", gpu, "moe", name, quant, floats(rows["latency_s"]))
            continue
        kind = _QUANT[quant]
        yield Group(
            "moe_kernels", gpu, "moe", name, quant, floats(rows["latency_s"]),
            layer(rows) | {"weight_bytes": kind.w_bytes, "activation_bytes": kind.a_bytes},
            kind.format, kind.peak, label=shapes(rows, "hidden_size", "inter_size", "topk", "num_experts"),
        )  # fmt: skip


def _backend(source: str) -> str:
    return next((f"-{name}" for word, name in _BACKENDS.items() if word in source), "")


def infersim_grouped_gemm(table: pd.DataFrame) -> Iterator[Group]:
    """DeepGEMM's two grouped products in fp8 with block scales; nothing is gathered, activated or summed.

    Its benchmark gives each expert the mean load, rounded (one at least), times a number between 0.7 and 1.3, rounded down.
    """
    local, tokens, topk = (floats(table[name]) for name in ("num_local_experts", "tokens_per_gpu", "topk"))
    spread = 0.7 + 0.6 * (np.arange(_PARTS) + 0.5)[:, None] / _PARTS
    load = np.floor(np.maximum(np.rint(tokens * topk / local), 1.0) * spread)
    arguments = {
        "load": np.maximum(load, 1.0), "count": np.where(load > 0.0, local / _PARTS, 0.0), "tokens": tokens, "topk": topk,
        "hidden": floats(table["hidden_size"]), "inter": floats(table["inter_size"]), "matrices": 3.0, "local": local,
        "weight_bytes": 1.0, "activation_bytes": 1.0,
    }  # fmt: skip
    seconds = floats(table["up_proj_s"] + table["down_proj_s"])
    yield Group(
        "infersim_grouped_gemm", "H20", "moe", "deepgemm", "fp8", seconds, arguments, "fp8_block", "fp8",
        label=shapes(table, "hidden_size", "inter_size"),
    )  # fmt: skip


def llmservingsim_moe(table: pd.DataFrame) -> Iterator[Group]:
    """Qwen3-30B-A3B (hidden 2048, inner 768, 8 of 128 experts) in bf16, all experts on one GPU; how many were hit is given."""
    hit, tokens = floats(table["activated_experts"]), floats(table["tokens"])
    arguments = {
        "load": (tokens * 8.0 / hit)[None, :], "count": hit[None, :], "tokens": tokens, "topk": 8.0, "hidden": 2048.0,
        "inter": 768.0, "matrices": 3.0, "local": 128.0, "weight_bytes": 2.0, "activation_bytes": 2.0,
    }  # fmt: skip
    yield Group("llmservingsim_moe", "RTXPRO6000", "moe", "vllm", "bf16", floats(table["latency_s"]), arguments, "bf16", "bf16")
