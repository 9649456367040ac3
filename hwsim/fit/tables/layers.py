"""Layer tables: ops of one transformer layer, measured inside a model. GEMMs find their weights cold; any other op streams its
operands once, each counted as read or written, and has a set of parameters named STACK-KIND.

Excluded by name: GEMMs of LLMCompass under 50 us, which are the host's; the router of LLMServingSim's older tool, whose 54 us at
one token and 130 us at 2,048 cannot be the product alone (that they hold the choice of experts is inferred). Rows that no kernel
model stands for (sampler, attention without its context, a network that is not known) are counted only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwsim.catalogue import known_model
from hwsim.fit.group import Group, floats, split
from hwsim.kernels.vector import OPERATIONS
from hwsim.lowering.model import Attention, MixtureOfExperts

_Floats = NDArray[np.float64]
_VIDUR = {
    "emb": "lookup", "input_layernorm": "norm", "post_attention_layernorm": "norm", "attn_rope": "rope", "mlp_act": "act",
    "add": "add",
}  # fmt: skip
_OPS = {"gelu": "gelu", "layernorm": "norm", "softmax": "softmax"}
_KINDS = {
    "act_fn": "act", "embedding": "lookup", "rope": "rope", "rotary_emb": "rope", "qk_norm": "qknorm", "layernorm": "norm",
    "final_layernorm": "norm", "input_layernorm": "norm", "post_layernorm": "norm",
}  # fmt: skip
_SIZES = ("hidden", "queries", "keys", "head_dim", "inner", "vocab", "experts", "biased")


def vidur_layer_ops(table: pd.DataFrame) -> Iterator[Group]:
    """Ops of LLM layers in fp16; m, n, k are given for the four GEMMs, which have a set of their own (stack "vidur")."""
    product = table["m"].notna()
    for (gpu,), rows in split(table[product], "gpu"):
        shape = {name: floats(rows[name]) for name in "mnk"}
        yield _group("vidur_layer_ops", gpu, "gemm", "vidur", "fp16", rows, shape, _label(shape))
    others = table[~product].assign(kind=table["op"].astype(str).map(_VIDUR))
    for (gpu, kind), rows in split(others, "gpu", "kind"):
        stream = _stream(floats(rows["num_tokens"]), _vidur_elements(rows), float(kind == "norm"))
        yield _group("vidur_layer_ops", gpu, "vector", f"vidur-{kind}", "fp16", rows, stream, _words(rows["model"]))


def llmcompass_ops(table: pd.DataFrame) -> Iterator[Group]:
    """PyTorch in fp16, one op over and over: the weights of a product are those of the call before (one copy)."""
    for (gpu, op), rows in split(table, "device", "op"):
        m, n = floats(rows["m"]), floats(rows["n"])
        if op == "matmul":
            shape = {"m": m, "n": n, "k": floats(rows["k"]), "copies": 1.0}
            short = {"without host-bound calls under 50 us": floats(rows["latency_s"]) < 50e-6}
            yield _group("llmcompass_ops", gpu, "gemm", "compass", "fp16", rows, shape, _label(shape), short)
        elif op in _OPS:
            stream = {"bytes": 4.0 * m * n, "ops": OPERATIONS[_OPS[op]] * m * n, "rows": 0.0 if op == "gelu" else m}
            yield _group("llmcompass_ops", gpu, "vector", f"compass-{op}", "fp16", rows, stream, None)


def llmservingsim_layers(table: pd.DataFrame) -> Iterator[Group]:
    """Ops of LLM layers in bf16: vLLM, and Hugging Face models under profiler hooks (tool v0, stack "hf")."""
    tool = np.where(table["tool"].astype(str).str.startswith("v0"), "hf", "vllm")
    sizes = dict(zip(_SIZES, _sizes(table["model"].astype(str)), strict=True))
    rows = table.assign(stack=tool, **sizes)
    n, k = _product(rows)
    kind = rows["layer"].astype(str).map(_KINDS).fillna("").astype(str)
    work = np.where(np.isnan(rows["hidden"]), "layer", np.where(n > 0.0, "gemm", np.where(kind != "", "vector", "layer")))
    rows = rows.assign(n=n, k=k, kind=np.where(work == "vector", _kind(rows, kind), ""), work=work)
    for (gpu, stack, family, name), part in split(rows, "hw", "stack", "work", "kind"):
        yield _served(gpu, stack, family, name, part)


def _served(gpu: str, stack: str, family: str, kind: str, rows: pd.DataFrame) -> Group:
    """One kind of op of LLMServingSim's tables."""
    tokens, shape, name, out = floats(rows["tokens"]), dict[str, Any](), stack, None
    if family == "gemm":
        shape = {"m": tokens, "n": floats(rows["n"]), "k": floats(rows["k"])}
        out = {"without the router": np.asarray(rows["layer"] == "gate", dtype=bool)}
    elif family == "vector":
        shape, name = _stream(tokens, _served_elements(rows), _reduced(rows)), f"{stack}-{kind}"
    label = _label(shape) if family == "gemm" else _words(rows["model"])
    return _group("llmservingsim_layers", gpu, family, name, "bf16", rows, shape, label, out)


def _group(
    table: str, gpu: str, family: str, stack: str, dtype: str, rows: pd.DataFrame, shape: dict[str, Any], label: Any,
    excluded: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Group:  # fmt: skip
    """16 bit throughout."""
    return Group(
        table, gpu, family, stack, dtype, floats(rows["latency_s"]), shape, dtype, dtype, label=label, excluded=excluded or {},
        report="layer",
    )  # fmt: skip


def _stream(tokens: _Floats, elements: Any, reduced: Any) -> dict[str, Any]:
    """Elements read and written per token, an operation for each byte of them, and rows reduced per token."""
    return {"bytes": 2.0 * tokens * elements, "ops": 2.0 * tokens * elements, "rows": tokens * reduced}


def _vidur_elements(rows: pd.DataFrame) -> _Floats:
    """Elements that each op of Vidur reads and writes per token."""
    hidden, tp = floats(rows["hidden"]), floats(rows["tp"])
    turned = hidden * (1.0 + floats(rows["n_kv_head"]) / floats(rows["n_head"])) / tp
    tensors = np.where(rows["gated"] == 1, 3.0, 2.0)
    kinds = {
        "lookup": 2.0 * hidden, "norm": 2.0 * hidden, "rope": 2.0 * turned, "act": tensors * floats(rows["ffn"]) / tp,
        "add": 3.0 * hidden,
    }  # fmt: skip
    return np.select([rows["kind"] == kind for kind in kinds], list(kinds.values()), np.nan)


def _served_elements(rows: pd.DataFrame) -> _Floats:
    """Elements that each op of LLMServingSim reads and writes per token.

    vLLM fuses: its norm adds the residual (four tensors), its activation multiplies by the gate (three). Experts are not split.
    """
    hidden, tp, fused = floats(rows["hidden"]), floats(rows["tp"]), rows["stack"].to_numpy() == "vllm"
    heads = (floats(rows["queries"]) + floats(rows["keys"])) / tp
    inner = floats(rows["inner"]) / np.where(rows["experts"] > 0, 1.0, tp)
    norm = np.where(fused, 4.0, 2.0) * hidden
    kinds = {
        "act": np.where(fused, 3.0, 2.0) * inner, "lookup": 2.0 * hidden, "norm": norm, "layernorm": norm, "rope": 2.0 * heads,
        "qknorm": 2.0 * heads,
    }  # fmt: skip
    return np.select([rows["kind"] == name for name in kinds], list(kinds.values()), np.nan)


def _reduced(rows: pd.DataFrame) -> _Floats:
    """Rows that each op reduces per token: a norm one, that of queries and keys one per head."""
    heads = (floats(rows["queries"]) + floats(rows["keys"])) / floats(rows["head_dim"]) / floats(rows["tp"])
    return np.where(rows["kind"] == "qknorm", heads, np.where(rows["kind"].isin(["norm", "layernorm"]), 1.0, 0.0))


def _product(rows: pd.DataFrame) -> tuple[_Floats, _Floats]:
    """n and k of each GEMM, 0 for what is none; one expert takes all tokens and is not split over the GPUs."""
    tp, hidden = floats(rows["tp"]), floats(rows["hidden"])
    q, kv, f, vocab = (floats(rows[name]) / tp for name in ("queries", "keys", "inner", "vocab"))
    inner, experts = floats(rows["inner"]), floats(rows["experts"])
    out = {
        "q_proj": q, "k_proj": kv, "v_proj": kv, "qkv_proj": q + 2.0 * kv, "o_proj": hidden, "gate_proj": f, "up_proj": f,
        "gate_up_proj": 2.0 * f, "down_proj": hidden, "lm_head": vocab, "gate": experts, "expert.w1": inner, "expert.w3": inner,
        "expert.w2": hidden,
    }  # fmt: skip
    deep = {"o_proj": q, "down_proj": f, "expert.w2": inner}
    layers = [rows["layer"] == name for name in out]
    return np.select(layers, list(out.values()), 0.0), np.select(layers, [deep.get(name, hidden) for name in out], 0.0)


def _kind(rows: pd.DataFrame, kind: pd.Series[Any]) -> NDArray[np.object_]:
    """Hugging Face writes RMSNorm out in PyTorch; LayerNorm is one kernel."""
    one = (rows["stack"] == "hf") & (rows["biased"] == 1.0) & (kind == "norm")
    return np.where(one, "layernorm", kind)


def _sizes(models: pd.Series[Any]) -> NDArray[np.float64]:
    """One row of sizes for each of `_SIZES`; NaN where the network is not known."""
    sizes = {name: _network(name) for name in models.unique()}
    return np.array([sizes[name] for name in models], dtype=float).reshape(-1, len(_SIZES)).T


def _network(name: str) -> tuple[float, ...]:
    """Sizes of a network by its name or alias, in the order of `_SIZES`."""
    model = known_model(name)
    if model is None:
        return (np.nan,) * len(_SIZES)
    attention, forward = model.layers[0][0].attention, model.layers[0][0].feed_forward
    if not isinstance(attention, Attention):
        return (np.nan,) * len(_SIZES)
    inner, experts = (forward.expert.inner, forward.experts) if isinstance(forward, MixtureOfExperts) else (forward.inner, 0)
    queries, keys = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
    return (model.hidden, queries, keys, attention.head_dim, inner, model.vocab, experts, model.norm_bias)


def _words(column: pd.Series[Any]) -> NDArray[np.object_]:
    return column.astype(str).to_numpy(dtype=object)


def _label(shape: Mapping[str, Any]) -> NDArray[np.object_]:
    return np.array([f"{n:.0f}x{k:.0f}" for n, k in zip(shape["n"], shape["k"], strict=True)], dtype=object)
