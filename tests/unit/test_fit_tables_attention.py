"""Readers of attention and layer tables: arguments of tiny tables worked out by hand, rows left out, devices nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hwsim.catalogue import load_device, root
from hwsim.cost.chips import chip_of
from hwsim.fit.devices import finder
from hwsim.fit.group import Group
from hwsim.fit.tables.attention import (
    attention_decode,
    attention_prefill,
    infersim_attention,
    llmservingsim_attention,
    mla_kernels,
)
from hwsim.fit.tables.layers import llmcompass_ops, llmservingsim_layers, vidur_layer_ops
from hwsim.fit.validate import predicted, readers, validate
from hwsim.kernels.attention_prefill import attention_prefill as prefill_kernel
from hwsim.kernels.sets import choose

OVER = "over 30 us, named fallback kernels apart"
KERNEL = {
    "gpu": "H200-SXM-141GB", "fw": "vllm", "kernel_source": "vllm_flash_attn_fa3", "attn_dtype": "bfloat16",
    "kv_cache_dtype": "bfloat16", "batch": 4, "q_len": 1, "kv_len": 2048, "num_heads": 32, "num_kv_heads": 8, "head_dim": 128,
    "window_size": 0, "latency_s": 5e-5,
}  # fmt: skip
MLA = {
    "gpu": "H200-SXM-141GB", "fw": "vllm", "kernel_source": "vllm_flashmla", "phase": "decode", "kv_cache_dtype": "fp8",
    "num_heads": 16, "tp": 8, "batch": 2, "q_len": 1, "kv_len": 100, "latency_s": 1e-3,
}  # fmt: skip
INFERSIM = {
    "gpu": "H20", "kind": "mha", "phase": "decode", "num_heads": 16, "kv_dtype": "bf16", "batch": 1, "q_len": 1, "kv_len": 1024,
    "latency_s": 5e-5, "num_kv_heads": 2, "head_dim": 128.0,
}  # fmt: skip
LATENT = INFERSIM | {"gpu": "H800", "kind": "mla"}
SERVED = {
    "hw": "RTX4090", "model": "meta-llama/Llama-3.1-8B", "tp": 2, "tool": "vllm-0.19.0 eager, kernel time", "prefill_chunk": 0,
    "kv_prefill": 0, "n_decode": 3, "kv_decode": 99, "latency_s": 1e-5,
}  # fmt: skip
LAYER = {
    "hw": "RTXPRO6000", "model": "meta-llama/Llama-3.1-8B", "tp": 2, "tool": "vllm-0.19.0 eager, kernel time",
    "layer": "rotary_emb", "tokens": 10, "latency_s": 1e-5,
}  # fmt: skip
CLASSIC = {"device": "Tesla P4", "op": "linear", "dtype": "fp32", "batch": 1, "m": 512, "n": 512, "k": 512, "latency_s": 1e-3}
VIDUR = {
    "gpu": "A40-48GB", "model": "m", "op": "attn_rope", "tp": 2, "num_tokens": 10, "m": None, "n": None, "k": None,
    "hidden": 4096, "ffn": 11008, "n_head": 32, "n_kv_head": 8, "gated": 1, "latency_s": 1e-5,
}  # fmt: skip


def table(base: dict[str, Any], *changes: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([base | change for change in changes])


def one(groups: Iterator[Group]) -> Group:
    (group,) = groups
    return group


def test_decode_reads_shapes_and_cache_bytes() -> None:
    wide, narrow = attention_decode(table(KERNEL, {"window_size": 128}, {"kv_cache_dtype": "fp8", "batch": 7}))
    assert (wide.family, wide.stack, wide.dtype, wide.format, wide.peak) == (
        "attention_decode", "vllm", "bfloat16", "bf16", "bf16",
    )  # fmt: skip
    assert {name: np.unique(value).tolist() for name, value in wide.arguments.items()} == {
        "batch": [4], "kv_len": [2048], "heads": [32], "kv_heads": [8], "head_dim": [128], "kv_bytes": [2], "window": [128],
    }  # fmt: skip
    assert (narrow.dtype, narrow.format, narrow.arguments["kv_bytes"], narrow.arguments["batch"][0]) == ("fp8", "fp8", 1.0, 7.0)
    assert wide.label is not None
    assert wide.label.tolist() == ["32/8/128"]


def test_decode_names_what_it_leaves_out() -> None:
    rows = table(KERNEL, {}, {"latency_s": 2e-5}, {"kernel_source": "triton"}, {"head_dim": 512})
    group = one(attention_decode(rows))
    out = {name: flags.tolist() for name, flags in group.excluded.items()}
    assert out == {
        "without fallback kernels by name": [False, False, True, False],
        "without head_dim 512": [False, False, False, True],
        "without trtllm at 48+ heads per KV head": [False] * 4,
        OVER: [False, True, True, True],
    }


@pytest.mark.parametrize(
    ("gpu", "fallback"), [("B200-SXM-180GB", True), ("H200-SXM-141GB", False), ("RTX-PRO-6000-Server", False)]
)
def test_flashinfer_is_a_fallback_on_big_blackwells(gpu: str, fallback: bool) -> None:
    group = one(attention_decode(table(KERNEL, {"gpu": gpu, "kernel_source": "flashinfer"})))
    assert group.excluded["without fallback kernels by name"].tolist() == [fallback]


def test_only_trtllm_has_a_kernel_for_wide_groups() -> None:
    rows = table(KERNEL, {"num_heads": 48, "num_kv_heads": 1, "fw": "trtllm"}, {"num_heads": 48, "num_kv_heads": 1})
    found = {group.stack: group.excluded["without trtllm at 48+ heads per KV head"].tolist() for group in attention_decode(rows)}
    assert found == {"trtllm": [True], "vllm": [False]}


@pytest.mark.parametrize(
    ("attention", "cache", "dtype", "format", "kv_bytes"),
    [("bfloat16", "bfloat16", "bfloat16", "bf16", 2), ("bfloat16", "fp8", "fp8kv", "fp8kv", 1), ("fp8", "fp8", "fp8", "fp8", 1)],
)
def test_prefill_formats(attention: str, cache: str, dtype: str, format: str, kv_bytes: float) -> None:
    rows = table(KERNEL, {"attn_dtype": attention, "kv_cache_dtype": cache, "q_len": 512, "kv_len": 512})
    group = one(attention_prefill(rows))
    assert (group.dtype, group.format, group.arguments["kv_bytes"]) == (dtype, format, kv_bytes)
    assert group.arguments["q_len"].tolist() == group.arguments["kv_len"].tolist() == [512.0]


def test_prefill_leaves_out_decode_kernels() -> None:
    group = one(attention_prefill(table(KERNEL, {"kernel_source": "vllm_flashinfer_trtllmdecode"}, {})))
    assert group.excluded["without fallback kernels by name"].tolist() == [True, False]


def test_latent_attention_by_phase() -> None:
    rows = table(MLA, {}, {"latency_s": 1e-4}, {"phase": "prefill", "q_len": 100})
    decode, prefill = mla_kernels(rows)
    assert (decode.family, decode.format, prefill.family) == ("mla_decode", "fp8", "mla_prefill")
    assert decode.arguments["kv_bytes"] == 1.0
    assert decode.arguments["heads"].tolist() == [16.0, 16.0]
    assert "kv_bytes" not in prefill.arguments
    assert prefill.arguments["q_len"].tolist() == [100.0]
    assert decode.excluded["without eager calls of vLLM under 0.5 ms"].tolist() == [False, True]


def test_infersim_has_four_kinds() -> None:
    latent = {"gpu": "H800", "kind": "mla", "num_kv_heads": 1, "head_dim": None}
    rows = table(INFERSIM, {}, {"phase": "prefill", "q_len": 1024}, latent, latent | {"phase": "prefill", "q_len": 1024})
    found = {group.family: group for group in infersim_attention(rows)}
    assert set(found) == {"attention_decode", "attention_prefill", "mla_decode", "mla_prefill"}
    assert "window" not in found["attention_decode"].arguments
    assert "q_len" not in found["attention_decode"].arguments
    assert found["mla_decode"].arguments["kv_bytes"] == 2.0


def test_served_batches_of_one_kind_come_from_dram() -> None:
    chunk = {"prefill_chunk": 512, "kv_prefill": 1024, "n_decode": 0, "kv_decode": 0}
    mixed, old = {"prefill_chunk": 16}, {"hw": "A6000", "tool": "v0 PyTorch-profiler hooks"}
    decode, prefill = llmservingsim_attention(table(SERVED, {}, chunk, mixed, old))
    assert {name: np.unique(value).tolist() for name, value in decode.arguments.items()} == {
        "batch": [3], "kv_len": [100], "heads": [16], "kv_heads": [4], "head_dim": [128], "kv_bytes": [2], "resident": [0],
    }  # fmt: skip
    assert prefill.arguments["q_len"].tolist() == [512.0]
    assert prefill.arguments["kv_len"].tolist() == [1536.0]
    assert (prefill.arguments["batch"], prefill.arguments["resident"], decode.rows, prefill.rows) == (1.0, 0.0, 1, 1)


def test_vidur_ops() -> None:
    product = {"op": "mlp_up_proj", "m": 10, "n": 22016, "k": 4096}
    rows = table(VIDUR, {}, product, {"op": "mlp_act"}, {"op": "mlp_act", "gated": 0}, {"op": "input_layernorm"}, {"op": "add"})
    found = {group.stack: group for group in vidur_layer_ops(rows)}
    assert {name: value.tolist() for name, value in found["vidur"].arguments.items()} == {"m": [10], "n": [22016], "k": [4096]}
    # 2 bytes x 10 tokens x elements: rope reads and writes 40 heads of 128 over 2 GPUs; the activation 3 or 2 tensors of 5504
    assert found["vidur-rope"].arguments["bytes"].tolist() == [2 * 10 * 2 * 40 * 128 / 2]
    assert found["vidur-act"].arguments["bytes"].tolist() == [2 * 10 * 3 * 5504, 2 * 10 * 2 * 5504]
    assert found["vidur-norm"].arguments["bytes"].tolist() == [2 * 10 * 2 * 4096]
    assert found["vidur-norm"].arguments["rows"].tolist() == [10.0]
    assert found["vidur-add"].arguments["rows"].tolist() == [0.0]
    assert {group.report for group in found.values()} == {"layer"}


def test_llmcompass_ops() -> None:
    base = {"device": "A100", "op": "matmul", "m": 64, "n": 12288, "k": 12288, "latency_s": 4e-5}
    rows = table(base, {}, {"op": "gelu", "m": 1000, "n": 1, "k": 0}, {"op": "softmax", "m": 8, "n": 100, "k": 0})
    found = {group.stack: group for group in llmcompass_ops(rows)}
    assert found["compass"].arguments["copies"] == 1.0
    assert found["compass"].excluded["without host-bound calls under 50 us"].tolist() == [True]
    assert found["compass-gelu"].arguments["bytes"].tolist() == [4000.0]
    assert found["compass-gelu"].arguments["rows"] == 0.0
    assert found["compass-softmax"].arguments["rows"].tolist() == [8.0]


def test_served_layers() -> None:
    phi = {"hw": "A6000", "model": "microsoft/Phi-mini-MoE-instruct", "tool": "v0 PyTorch-profiler hooks"}
    rows = table(
        LAYER, {}, {"layer": "qkv_proj"}, {"layer": "o_proj"}, {"layer": "layernorm"}, {"layer": "act_fn"},
        phi | {"layer": "layernorm"}, phi | {"layer": "expert.w2"}, phi | {"layer": "gate"}, phi | {"layer": "act_fn"},
    )  # fmt: skip
    found = {(group.stack, group.family): group for group in llmservingsim_layers(rows)}
    gemm, expert = found["vllm", "gemm"].arguments, found["hf", "gemm"].arguments
    # Llama 3.1 8B over two GPUs: 32 query and 2 x 8 KV heads of 128 make n; an expert of Phi is 960 wide and whole
    assert (gemm["n"].tolist(), gemm["k"].tolist()) == ([48 * 128 / 2, 4096], [4096, 4096 / 2])
    assert (expert["n"].tolist(), expert["k"].tolist()) == ([4096, 16], [960, 4096])
    assert found["hf", "gemm"].excluded["without the router"].tolist() == [False, True]
    assert found["vllm-rope", "vector"].arguments["bytes"].tolist() == [2 * 10 * 2 * 40 * 128 / 2]
    assert found["vllm-norm", "vector"].arguments["bytes"].tolist() == [2 * 10 * 4 * 4096]
    assert found["hf-layernorm", "vector"].arguments["bytes"].tolist() == [2 * 10 * 2 * 4096]
    assert found["vllm-act", "vector"].arguments["bytes"].tolist() == [2 * 10 * 3 * 14336 / 2]
    assert found["hf-act", "vector"].arguments["bytes"].tolist() == [2 * 10 * 2 * 960]


def test_fp8_matrices_are_priced_at_the_fp8_peak() -> None:
    change = {"fw": "trtllm", "attn_dtype": "fp8", "kv_cache_dtype": "fp8", "q_len": 8192, "kv_len": 8192}
    group, device = one(attention_prefill(table(KERNEL, change))), load_device("h200")
    chosen, chip = choose(device.kernels["attention_prefill"], "trtllm", "fp8"), chip_of(device, "fp8")
    assert chosen is not None
    assert chip is not None
    assert chosen.parameters["matrix_bits"] == 8
    found = predicted(group, device)
    assert found is not None
    assert found.tolist() == np.asarray(prefill_kernel(**group.arguments, chip=chip, p=chosen.parameters)).tolist()


def test_unknown_devices_and_networks_are_rows_without_an_error(tmp_path: Path) -> None:
    table(KERNEL, {"gpu": "Foo 9000"}, {}).to_csv(tmp_path / "attention_decode.csv", index=False)
    table(SERVED, {"model": "nobody/knows-this"}).to_csv(tmp_path / "llmservingsim_attention.csv", index=False)
    table(LAYER, {"model": "nobody/knows-this"}, {"layer": "sampler"}).to_csv(tmp_path / "llmservingsim_layers.csv", index=False)
    rows = {(row["table"], row["source_device"]): row for row in validate(tmp_path)["rows"]}
    unknown, known = rows["attention_decode", "Foo 9000"], rows["attention_decode", "H200-SXM-141GB"]
    assert (unknown["device"], unknown["n"], unknown["mape"], unknown["family"]) == (None, 1, None, "decode")
    assert known["device"] == "h200"
    assert known["mape"] >= 0.0
    served, layers = rows["llmservingsim_attention", "RTX4090"], rows["llmservingsim_layers", "RTXPRO6000"]
    assert (served["family"], served["mape"]) == ("decode", None)
    assert (layers["family"], layers["n"], layers["mape"]) == ("layer", 2, None)


@pytest.mark.parametrize(
    ("name", "row", "column", "family"),
    [
        ("attention_decode", KERNEL, "kv_cache_dtype", "decode"), ("attention_prefill", KERNEL, "kv_cache_dtype", "prefill"),
        ("attention_prefill", KERNEL, "attn_dtype", "prefill"), ("mla_kernels", MLA, "kv_cache_dtype", "mla"),
        ("infersim_attention", INFERSIM, "kv_dtype", "decode"), ("infersim_attention", LATENT, "kv_dtype", "mla"),
        ("gemm_fp32_classic", CLASSIC, "dtype", "gemm"),
    ],
)  # fmt: skip
def test_a_format_that_nobody_knows_is_not_taken_for_16_bits(
    tmp_path: Path, name: str, row: dict[str, Any], column: str, family: str
) -> None:
    table(row, {}, {column: "fp8_odd"}).to_csv(tmp_path / f"{name}.csv", index=False)
    (odd,) = (line for line in validate(tmp_path)["rows"] if "fp8_odd" in line["dtype"])
    assert (odd["family"], odd["n"], odd["mape"]) == (family, 1, None)
    assert any(line["mape"] is not None for line in validate(tmp_path)["rows"])


@pytest.mark.parametrize("name", ["stranger.yaml", "./stranger.yaml", "own/config.json", "meta-llama/Llama-3.1-8B", "."])
def test_the_network_of_a_row_is_a_name_and_never_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A table can come from anyone: what it names is looked up in models/ and not on the disk."""
    monkeypatch.chdir(tmp_path)
    alias = name.startswith("meta")
    for path in ("stranger.yaml", "own/config.json", "meta-llama/Llama-3.1-8B"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text((root("models") / "llama-3-70b.yaml").read_text())
    (served,) = llmservingsim_attention(table(SERVED, {"model": name}))
    (layer,) = llmservingsim_layers(table(LAYER, {"model": name}))
    assert (served.family, layer.family) == (("attention_decode", "vector") if alias else ("decode", "layer"))
    assert served.arguments.get("heads", np.array([16.0])).tolist() == [16.0]  # over two GPUs; the 70B network has 32


def test_the_device_of_a_row_is_a_name_and_never_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "H200-SXM-141GB").mkdir()
    (tmp_path / "stranger.yaml").write_text("extends: h200\n")
    found = finder()
    assert found("stranger.yaml") is None
    known = found("H200-SXM-141GB")
    assert known is not None
    assert known.name == "h200"


def test_families_are_reported_by_the_names_of_the_document(tmp_path: Path) -> None:
    table(MLA, {}, {"phase": "prefill", "q_len": 100}).to_csv(tmp_path / "mla_kernels.csv", index=False)
    table(KERNEL, {"q_len": 2048}).to_csv(tmp_path / "attention_prefill.csv", index=False)
    table(VIDUR, {}, {"op": "mlp_up_proj", "m": 10, "n": 22016, "k": 4096}).to_csv(tmp_path / "vidur_layer_ops.csv", index=False)
    rows = validate(tmp_path)["rows"]
    assert {(row["family"], row["kernel"]) for row in rows} == {
        ("prefill", "attention_prefill"), ("mla", "mla_decode"), ("mla", "mla_prefill"), ("layer", "gemm"), ("layer", "vector"),
    }  # fmt: skip


def test_every_public_function_of_the_folder_reads_a_table() -> None:
    mine = {"attention_decode", "attention_prefill", "mla_kernels", "infersim_attention", "llmservingsim_attention"}
    assert mine | {"vidur_layer_ops", "llmcompass_ops", "llmservingsim_layers", "gemm_llm_kernels"} <= set(readers())
