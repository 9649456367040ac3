"""The PyTorch calls behind a row: a round of them, one for each copy of what should not stay in the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch.nn import functional

from hwsim.fit.measure.grid import COPIES, Row

Call = Callable[[], object]

_DTYPES = {"bfloat16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def calls(table: str, row: Row, device: str) -> Sequence[Call]:
    """What to time for one row of `table`; its tensors are on `device` ("cuda" or "cpu")."""
    if table == "gemm_llm_kernels":
        return _linear(row, _DTYPES[row["quant"]], COPIES, device)
    if table == "gemm_fp32_classic":
        return _linear(row, _DTYPES[row["dtype"]], 1, device)
    return [_vector(row, device) if table == "vector_ops_fp32" else _attention(row, device)]


def _linear(row: Row, dtype: torch.dtype, copies: int, device: str) -> list[Call]:
    x = torch.randn(row["m"], row["k"], dtype=dtype, device=device)
    weights = [torch.randn(row["n"], row["k"], dtype=dtype, device=device) for _ in range(copies)]
    return [partial(functional.linear, x, w) for w in weights]


def _attention(row: Row, device: str) -> Call:
    """Causal over its own tokens, or one query over a cache: the query sees all of that, so there is no mask."""
    dtype, dim, batch = _DTYPES[row["attn_dtype"]], row["head_dim"], row["batch"]
    q = torch.randn(batch, row["num_heads"], row["q_len"], dim, dtype=dtype, device=device)
    k, v = (torch.randn(batch, row["num_kv_heads"], row["kv_len"], dim, dtype=dtype, device=device) for _ in range(2))
    causal, grouped = row["q_len"] > 1, row["num_heads"] > row["num_kv_heads"]
    return lambda: functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)


def _vector(row: Row, device: str) -> Call:
    x, y = (torch.randn(row["rows"], row["cols"], device=device) for _ in range(2))
    made: dict[str, Call] = {
        "copy": x.clone,
        "add": lambda: x + y,
        "mul": lambda: x * y,
        "relu": lambda: functional.relu(x),
        "gelu": lambda: functional.gelu(x),
        "tanh": lambda: torch.tanh(x),
        "ln": lambda: functional.layer_norm(x, (row["cols"],)),
        "softmax": lambda: functional.softmax(x, dim=-1),
    }
    return made[row["op"]]
