"""GEMM tables. Weights are cold in a network; a benchmark cycles through a few copies of them (`copies`).

Excluded by name: a vLLM fp8 kernel on B200 that takes 20 us for one row whatever the shape; Tesla P4 shapes that run at a third
of the rate of round ones; V100 fp16 shapes without a tensor-core kernel; rows that their table marks as faster than the DRAM
(`l2_hot_likely`). vLLM's eager fp8_block launches, which are host-bound, are stacks of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwsim.fit.group import Group, counted, floats, shapes, split
from hwsim.fit.quant import QUANT

_EAGER = {"DeepGemm": "deepgemm", "FlashInf": "flashinfer", "CutlassF": "cutlass"}


def gemm_llm_kernels(table: pd.DataFrame) -> Iterator[Group]:
    """Linear layers of LLM frameworks."""
    for (gpu, stack, quant), rows in split(table, "gpu", "fw", "quant"):
        if quant not in QUANT:
            yield counted("gemm_llm_kernels", gpu, "gemm", stack, quant, floats(rows["latency_s"]))
            continue
        kind = QUANT[quant]
        single = stack == "vllm" and quant in ("fp8_block", "nvfp4")
        eager = stack == "vllm" and quant == "fp8_block"
        slow = gpu == "B200-SXM-180GB" and stack == "vllm" and quant == "fp8"
        for name, part in _launched(rows, stack) if eager else [(stack, rows)]:
            yield Group(
                "gemm_llm_kernels", gpu, "gemm", name, quant, floats(part["latency_s"]),
                _shape(part) | {
                    "a_bytes": kind.a_bytes, "w_bytes": kind.w_bytes, "o_bytes": 2.0, "copies": 1.0 if single else 6.0,
                    "scaled": 128.0 if kind.format == "fp8_block" else np.inf,
                },
                kind.format, kind.peak, label=shapes(part, "n", "k"),
                excluded=_odd(part, slow),
            )  # fmt: skip


def _odd(rows: pd.DataFrame, slow: bool) -> dict[str, NDArray[np.bool_]]:
    """Rows to leave out by name, where there are any; `slow` where the kernel for one row is."""
    hot = rows["l2_hot_likely"].isin([True, "True"]) if "l2_hot_likely" in rows else np.zeros(len(rows))
    named = {
        "without vLLM fp8 at m = 1 on B200": np.asarray((rows["m"] == 1) & slow, dtype=bool),
        "without l2-hot rows": np.asarray(hot, dtype=bool),
    }
    return {name: flags for name, flags in named.items() if flags.any()}


def _launched(rows: pd.DataFrame, stack: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """vLLM's fp8_block calls by the library that does them, each launched by itself."""
    for source, part in rows.groupby(rows["kernel_source"].astype(str).str[:8], observed=True):
        yield f"{stack}-eager-{_EAGER.get(str(source), 'other')}", part


def gemm_fp32_classic(table: pd.DataFrame) -> Iterator[Group]:
    """fp32 linear and batched products without TF32; V100 in fp16."""
    for (gpu, op, dtype), rows in split(table, "device", "op", "dtype"):
        if dtype not in ("fp16", "fp32"):
            yield counted("gemm_fp32_classic", gpu, "gemm", "pytorch", dtype, floats(rows["latency_s"]))
            continue
        half, size = dtype == "fp16", 2.0 if dtype == "fp16" else 4.0
        odd = np.zeros(len(rows), bool)
        if half:
            odd = ((rows["k"] < 8) | (rows["n"] % 8 != 0)).to_numpy()
        elif gpu == "Tesla P4" and op != "bmm":
            odd = ((rows["m"] % 64 != 0) | (rows["n"] % 2 != 0)).to_numpy()
        yield Group(
            "gemm_fp32_classic", gpu, "gemm", "pytorch", dtype, floats(rows["latency_s"]),
            _shape(rows) | {
                "groups": floats(rows["batch"]), "a_bytes": size, "w_bytes": size, "o_bytes": size, "copies": 1.0,
            },
            "fp16" if half else "fp32_bmm" if op == "bmm" else "fp32", "fp16" if half else "fp32", label=shapes(rows, "n", "k"),
            excluded={"without shapes that have no kernel": odd} if odd.any() else {},
        )  # fmt: skip


def infersim_gemm_fp8(table: pd.DataFrame) -> Iterator[Group]:
    """DeepGEMM on H20: activations come quantised, with block scales."""
    shape = _shape(table) | {"a_bytes": 1.0, "w_bytes": 1.0, "o_bytes": 2.0, "scaled": 128.0, "quantised": 0.0}
    yield Group(
        "infersim_gemm_fp8", "H20", "gemm", "deepgemm", "fp8", floats(table["latency_s"]), shape, "fp8_block", "fp8",
        label=shapes(table, "n", "k"),
    )  # fmt: skip


def _shape(rows: pd.DataFrame) -> dict[str, Any]:
    return {name: floats(rows[name]) for name in "mnk"}
