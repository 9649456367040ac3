"""Which shapes are measured: rows of each table without their time, and the bytes that a row needs.

Few, so that all of them should take a minute or two on a GPU, but of eight shape families or more in each table, so that a fit
has some to hold out. They were chosen on the H200 rows nearest to them: fitted on those alone, GEMM and attention sets do almost
as well on the whole tables as sets that saw all of them. Small products and few heads matter most, since launches show there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

Row = Mapping[str, Any]

COPIES = 6  # of the weights, taken in turn: what the reader of gemm_llm_kernels assumes, so that the L2 does not keep them
SIZES = {"fp16": 2, "fp32": 4}
OPS = ("copy", "add", "mul", "relu", "gelu", "tanh", "ln", "softmax")


@dataclass(frozen=True)
class Grid:
    """Sizes: tokens and (n, k) of linear layers; (heads, KV heads, head dimension) and (batch, length); (rows, cols)."""

    tokens: Sequence[int]
    linears: Sequence[tuple[int, int]]
    classic_tokens: Sequence[int]
    classic_linears: Sequence[tuple[int, int]]
    heads: Sequence[tuple[int, int, int]]
    prefills: Sequence[tuple[int, int]]
    decodes: Sequence[tuple[int, int]]
    vectors: Sequence[tuple[int, int]]


GPU = Grid(
    tokens=(1, 16, 64, 128, 256, 257, 1024, 4096),
    linears=(
        (128, 128), (256, 2048), (512, 512), (512, 4096), (768, 3072), (1024, 1024), (1024, 4096), (1536, 8960), (2048, 256),
        (2560, 2560), (3072, 768), (4096, 4096), (4096, 14336), (5120, 5120), (6144, 4096), (8192, 8192), (10240, 8192),
        (14336, 4096), (28672, 8192), (65536, 1024),
    ),
    classic_tokens=(1, 32, 256, 257, 1024, 4096),
    classic_linears=(
        (512, 512), (768, 3072), (1024, 4096), (2048, 2048), (3072, 768), (4096, 1024), (4096, 4096), (8192, 2048),
    ),
    heads=(
        (2, 1, 128), (4, 4, 128), (8, 1, 128), (12, 12, 64), (16, 2, 256), (16, 8, 64), (24, 4, 192), (28, 4, 128), (32, 8, 64),
        (32, 8, 128), (32, 32, 128), (40, 8, 128), (64, 8, 128), (96, 8, 128),
    ),
    prefills=(
        (1, 64), (1, 512), (1, 1024), (1, 2048), (1, 8192), (4, 512), (4, 2048), (16, 128), (16, 1024), (64, 256),
    ),
    decodes=(*product((1, 8, 64), (64, 512, 2048, 8192)), (1, 32768), (256, 512)),
    vectors=tuple(product((64, 1024, 16384), (768, 1024, 1600, 2048, 3072, 4096, 5120, 8192))),
)  # fmt: skip
CPU = Grid(
    tokens=(1, 16, 64, 128),
    linears=((256, 256), (256, 768), (384, 384), (512, 256), (512, 512), (768, 256), (768, 768), (1024, 512)),
    classic_tokens=(1, 16, 64, 128),
    classic_linears=((256, 256), (256, 768), (512, 512), (768, 256)),
    heads=((4, 1, 64), (4, 4, 64), (8, 2, 64), (8, 8, 64)),
    prefills=((1, 32), (1, 128), (1, 256), (4, 64)),
    decodes=tuple(product((1, 4), (128, 512))),
    vectors=tuple(product((16, 256), (256, 512, 768, 1024))),
)  # fmt: skip


def shapes(grid: Grid, bf16: bool) -> dict[str, list[Row]]:
    """Table -> its rows. A device without bfloat16 has fp16 products among the classic ones, and no attention."""
    found: dict[str, list[Row]] = {"gemm_llm_kernels": _linears(grid)} if bf16 else {}
    found["gemm_fp32_classic"] = _classics(grid, ("fp32",) if bf16 else ("fp32", "fp16"))
    if bf16:
        found["attention_prefill"] = [_heads(h, batch, new, new) for h, (batch, new) in product(grid.heads, grid.prefills)]
        found["attention_decode"] = [_heads(h, batch, 1, seen) for h, (batch, seen) in product(grid.heads, grid.decodes)]
    found["vector_ops_fp32"] = _vectors(grid)
    return found


def needed(table: str, row: Row) -> float:
    """Bytes that the tensors of one row take."""
    if table == "vector_ops_fp32":
        return 12.0 * float(row["rows"] * row["cols"])
    if table.startswith("attention"):
        cache, ends = row["kv_len"] * row["num_kv_heads"], row["q_len"] * row["num_heads"]
        return 4.0 * float(row["batch"] * (cache + ends) * row["head_dim"])
    copies, size = (COPIES, 2) if table == "gemm_llm_kernels" else (1, SIZES[row["dtype"]])
    m, n, k = row["m"], row["n"], row["k"]
    return float(size * (copies * n * k + m * k + m * n))


def _linears(grid: Grid) -> list[Row]:
    return [{"quant": "bfloat16", "m": m, "n": n, "k": k} for (n, k), m in product(grid.linears, grid.tokens)]


def _classics(grid: Grid, dtypes: Sequence[str]) -> list[Row]:
    found = product(dtypes, grid.classic_linears, grid.classic_tokens)
    return [{"op": "linear", "dtype": dtype, "batch": 1, "m": m, "n": n, "k": k} for dtype, (n, k), m in found]


def _heads(heads: tuple[int, int, int], batch: int, new: int, seen: int) -> Row:
    return {
        "attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16", "batch": batch, "q_len": new, "kv_len": seen,
        "num_heads": heads[0], "num_kv_heads": heads[1], "head_dim": heads[2], "window_size": 0,
    }  # fmt: skip


def _vectors(grid: Grid) -> list[Row]:
    return [{"op": op, "dtype": "fp32", "rows": rows, "cols": cols} for op, (rows, cols) in product(OPS, grid.vectors)]
