"""Attention tables. A benchmark repeats one call, which finds part of its cache in the L2 again (`resident` 1); a layer that is
profiled in a whole model finds nothing (0). Queries and results are 16 bit.

Excluded by name: kernels that a stack falls back to (Triton, FlashInfer on the big Blackwells, decode kernels that do a prefill);
head dimension 512; TensorRT-LLM's decode kernel for 48 and more query heads per KV head; its fp8 prefill on RTX PRO 6000 at head
dimensions other than 128; vLLM's eager MLA under 0.5 ms, which is the host's time. "Over 30 us" leaves out all of these, and what
is mostly launch. Rows of a cache or of matrices whose format is not in `_FORMATS` are counted only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwsim.catalogue import known_model
from hwsim.fit.group import Group, counted, floats, split
from hwsim.lowering.model import Attention

_Flags = NDArray[np.bool_]
_OVER = "over 30 us, named fallback kernels apart"
_FALLBACK = ("triton", "vllm_triton_attn", "torch_flow_flashinfer", "vllm_flash_attn_fa4")
_DECODING = ("vllm_flashinfer_trtllmdecode", "vllm_flashinfer_fidecode")
_FORMATS = {
    "bfloat16": "bf16", "bf16": "bf16", "float16": "bf16", "fp16": "bf16", "half": "bf16", "fp8": "fp8", "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
}  # fmt: skip
_TRITON = ("triton", "vllm_triton_mla")


def attention_decode(table: pd.DataFrame) -> Iterator[Group]:
    """One new token per sequence, kernels of LLM frameworks; dtype and format are those of the cache."""
    for (gpu, stack, kv), rows in split(table, "gpu", "fw", "kv_cache_dtype"):
        if kv not in _FORMATS:
            yield counted("attention_decode", gpu, "decode", stack, kv, floats(rows["latency_s"]))
            continue
        apart = {
            "fallback kernels by name": _fallback(rows, gpu, _FALLBACK),
            "head_dim 512": _flags(rows["head_dim"] == 512),
            "trtllm at 48+ heads per KV head": _flags(rows["num_heads"] >= 48 * rows["num_kv_heads"]) & (stack == "trtllm"),
        }
        yield Group(
            "attention_decode", gpu, "attention_decode", stack, kv, floats(rows["latency_s"]),
            _heads(rows, kv) | {"window": floats(rows["window_size"])}, _FORMATS[kv], "bf16", label=_label(rows),
            excluded=_apart(rows, apart),
        )  # fmt: skip


def attention_prefill(table: pd.DataFrame) -> Iterator[Group]:
    """Causal attention without a cached prefix; dtype "fp8kv" is 16-bit attention over an fp8 cache."""
    for (gpu, stack, dtype, kv), rows in split(table, "gpu", "fw", "attn_dtype", "kv_cache_dtype"):
        if not {dtype, kv} <= set(_FORMATS):
            yield counted("attention_prefill", gpu, "prefill", stack, f"{dtype}/{kv}", floats(rows["latency_s"]))
            continue
        name = "fp8kv" if (_FORMATS[kv], _FORMATS[dtype]) == ("fp8", "bf16") else dtype
        slow = (stack, _FORMATS[dtype]) == ("trtllm", "fp8") and gpu.startswith("RTX-PRO")
        apart = {
            "fallback kernels by name": _fallback(rows, gpu, (*_FALLBACK, *_DECODING)),
            "head_dim 512": _flags(rows["head_dim"] == 512),
            "trtllm fp8 on RTX PRO 6000 at head_dim other than 128": _flags(rows["head_dim"] != 128) & slow,
        }
        yield Group(
            "attention_prefill", gpu, "attention_prefill", stack, name, floats(rows["latency_s"]),
            _heads(rows, kv) | {"q_len": floats(rows["q_len"]), "window": floats(rows["window_size"])},
            name if name == "fp8kv" else _FORMATS[dtype], "bf16", label=_label(rows), excluded=_apart(rows, apart),
        )  # fmt: skip


def mla_kernels(table: pd.DataFrame) -> Iterator[Group]:
    """Latent attention of DeepSeek, latent 512 and rope 64; heads are those on this GPU, dtype and format those of the cache."""
    for (gpu, stack, phase, kv), rows in split(table, "gpu", "fw", "phase", "kv_cache_dtype"):
        if kv not in _FORMATS:
            yield counted("mla_kernels", gpu, "mla", stack, kv, floats(rows["latency_s"]))
            continue
        apart = {
            "Triton kernels": _flags(rows["kernel_source"].isin(_TRITON)),
            "eager calls of vLLM under 0.5 ms": (floats(rows["latency_s"]) < 5e-4) & (stack == "vllm"),
        }
        yield Group(
            "mla_kernels", gpu, f"mla_{phase}", stack, kv, floats(rows["latency_s"]), _latent(rows, phase, kv), _FORMATS[kv],
            "bf16", label=_words(rows["num_heads"]), excluded=_apart(rows, apart),
        )  # fmt: skip


def infersim_attention(table: pd.DataFrame) -> Iterator[Group]:
    """Grouped-query attention of FlashInfer on H20 and FlashMLA on H800, both phases.

    FlashMLA was measured at too few counts of heads to hold one out, so that a shape of it is one count and one context.
    """
    for (gpu, kind, phase, kv), rows in split(table, "gpu", "kind", "phase", "kv_dtype"):
        latent = kind == "mla"
        stack = "flashmla" if latent else "flashinfer"
        if kv not in _FORMATS:
            yield counted("infersim_attention", gpu, "mla" if latent else phase, stack, kv, floats(rows["latency_s"]))
            continue
        if latent:
            family, shape, label = f"mla_{phase}", _latent(rows, phase, kv), _words(rows["num_heads"], rows["kv_len"])
        else:
            family, label = f"attention_{phase}", _label(rows)
            shape = _heads(rows, kv) | ({"q_len": floats(rows["q_len"])} if phase == "prefill" else {})
        yield Group(
            "infersim_attention", gpu, family, stack, kv, floats(rows["latency_s"]), shape, _FORMATS[kv], "bf16", label=label,
            excluded=_apart(rows, {}),
        )  # fmt: skip


def llmservingsim_attention(table: pd.DataFrame) -> Iterator[Group]:
    """vLLM's attention layer, profiled eagerly: only batches of decodes alone and of one prefill chunk alone (after its prefix).

    A batch of both is one launch, priced as prefill(chunk) + prefill(decodes as single queries) - launch: not one kernel call, so
    such rows (most of the table) are left out. So is A6000, profiled by the older tool (v0): 96 % of its decode rows over 30 MB
    would read faster than the DRAM's peak, since `kv_decode` is not the context of each decode there.
    """
    for (gpu, name, known), part in split(_unmixed(table), "hw", "phase", "known"):
        sure = known == "True"
        yield Group(
            "llmservingsim_attention", gpu, f"attention_{name}" if sure else name, "vllm", "bfloat16", floats(part["latency_s"]),
            _served(part, name) if sure else {}, "bf16", "bf16", label=_words(part["model"]), excluded=_apart(part, {}),
        )  # fmt: skip


def _unmixed(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of one phase with a context that is known, with the sizes of their network."""
    rows = table[~table["tool"].astype(str).str.startswith("v0")]
    rows = rows[(rows["prefill_chunk"] == 0) | (rows["n_decode"] == 0)]
    rows = rows.assign(phase=np.where(rows["prefill_chunk"] == 0, "decode", "prefill"), **_sizes(rows))
    return rows.assign(known=rows["heads"].notna())


def _sizes(rows: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Heads, KV heads and head dimension of each row's network; NaN where it is not known."""
    models = rows["model"].astype(str)
    sizes = {name: _attention(name) for name in models.unique()}
    heads, kv_heads, head_dim = np.array([sizes[name] for name in models], dtype=float).reshape(-1, 3).T
    return {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}


def _attention(model: str) -> tuple[float, float, float]:
    network = known_model(model)
    found = network.layers[0][0].attention if network else None
    return (found.heads, found.kv_heads, found.head_dim) if isinstance(found, Attention) else (np.nan,) * 3


def _served(rows: pd.DataFrame, phase: str) -> dict[str, Any]:
    """Arguments of decodes alone or of one chunk alone; tensor parallelism splits the heads."""
    shape: dict[str, Any]
    tp, new = floats(rows["tp"]), floats(rows["prefill_chunk"])
    heads, kv_heads = floats(rows["heads"]) / tp, floats(rows["kv_heads"]) / tp
    shape = {"heads": heads, "kv_heads": kv_heads, "head_dim": floats(rows["head_dim"]), "kv_bytes": 2.0, "resident": 0.0}
    if phase == "decode":
        return shape | {"batch": floats(rows["n_decode"]), "kv_len": floats(rows["kv_decode"]) + 1.0}
    return shape | {"batch": 1.0, "q_len": new, "kv_len": floats(rows["kv_prefill"]) + new}


def _heads(rows: pd.DataFrame, kv: str) -> dict[str, Any]:
    """What both phases of grouped-query attention are given."""
    names = {"batch": "batch", "kv_len": "kv_len", "heads": "num_heads", "kv_heads": "num_kv_heads", "head_dim": "head_dim"}
    return {name: floats(rows[column]) for name, column in names.items()} | {"kv_bytes": _kv_bytes(kv)}


def _latent(rows: pd.DataFrame, phase: str, kv: str) -> dict[str, Any]:
    """Latent attention: the cache's bytes per element count in decode only, since prefill rebuilds its keys and values."""
    shape = {"batch": floats(rows["batch"]), "kv_len": floats(rows["kv_len"]), "heads": floats(rows["num_heads"])}
    return shape | ({"kv_bytes": _kv_bytes(kv)} if phase == "decode" else {"q_len": floats(rows["q_len"])})


def _kv_bytes(kv: str) -> float:
    return 1.0 if _FORMATS[kv] == "fp8" else 2.0


def _fallback(rows: pd.DataFrame, gpu: str, kernels: Sequence[str]) -> _Flags:
    """Kernels that a stack runs where it has no better one; FlashInfer is that on Blackwell's big chips only."""
    big = gpu.startswith(("B200", "B300", "GB"))
    return _flags(rows["kernel_source"].isin(kernels)) | (_flags(rows["kernel_source"] == "flashinfer") & big)


def _apart(rows: pd.DataFrame, named: Mapping[str, _Flags]) -> dict[str, _Flags]:
    """Subsets without each named kind of rows, and one without all of them and the rows up to 30 us."""
    out = floats(rows["latency_s"]) <= 30e-6
    for flags in named.values():
        out = out | flags
    return {f"without {name}": flags for name, flags in named.items()} | {_OVER: out}


def _flags(column: pd.Series[Any]) -> _Flags:
    return np.asarray(column, dtype=bool)


def _words(*columns: pd.Series[Any]) -> NDArray[np.object_]:
    """One word per row, of whole numbers or names."""
    words = columns[0].astype(str)
    for column in columns[1:]:
        words = words + "/" + column.astype(str)
    return words.to_numpy(dtype=object)


def _label(rows: pd.DataFrame) -> NDArray[np.object_]:
    return _words(rows["num_heads"], rows["num_kv_heads"], rows["head_dim"])
