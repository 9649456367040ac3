"""Published config.json layouts, written out by hand, against what is known of each network; and what is refused, by name.

Totals are billions of parameters as published (or as the weights add up to), within 2 %. KV is elements per token over all
layers, exact. `active` counts embedding and LM head.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import pytest

from hwsim.errors import InputError
from hwsim.lowering.huggingface import config_fields, read_config, unread_fields
from hwsim.lowering.model import Attention, FeedForward, LatentAttention, MixtureOfExperts, Model, Precision
from tests.unit.published_configs import (
    BLOOM,
    CHATGLM,
    COMMAND_R,
    DBRX,
    DEEPSEEK_MOE,
    DEEPSEEK_VL2,
    ERNIE,
    EXAONE4,
    FALCON_7B,
    FALCON_40B,
    GEMMA2,
    GEMMA3,
    GLM45_AIR,
    GPT2,
    GPT_NEO,
    GPT_OSS,
    GPTJ,
    GRANITE_MOE,
    GROK2,
    HUNYUAN,
    INTERNVL,
    LLAMA,
    LLAVA,
    LLAVA_FLAT,
    MAVERICK,
    MINICPM,
    MINIMAX_M2,
    MISTRAL,
    MISTRAL_SMALL,
    MPT,
    NEMO,
    NEMOTRON,
    NEOX,
    OLMOE,
    PHI_MOE,
    QWEN1,
    QWEN2_MOE,
    QWEN25_VL,
    SCOUT,
    SMALLTHINKER,
    SMOLLM3,
    STARCODER,
    STARCODER2,
    V3_DERIVATIVE,
)

BF16 = Precision()
FP16 = Precision("fp16", "fp16", "fp16", "fp16", "fp16", "fp16", "fp16")


def read(raw: dict[str, Any]) -> Model:
    return read_config(config_fields(raw), "x", "config.json")


@dataclass(frozen=True)
class Known:
    """What is known of a network: its config, and what reading it must give."""

    name: str
    config: dict[str, Any]
    total: float
    kv: int
    active: float | None = None
    windows: dict[int | None, int] | None = None  # window -> layers; None: all layers see everything
    moe_layers: int = 0
    shared: int | None = None  # inner size of the shared expert
    precision: Precision = BF16
    notes: int = 0


MXFP4 = replace(BF16, experts="mxfp4")
FP8_BLOCK = replace(BF16.with_weights("fp8_block"), activations="fp8")
FP32 = Precision(*["fp32"] * 7)

KNOWN = [
    Known("llama-3.2-1b", LLAMA, 1.236, 16 * 2 * 8 * 64),
    Known("mistral-nemo", NEMO, 12.25, 40 * 2 * 8 * 128),
    Known("mistral-7b", MISTRAL, 7.24, 32 * 2 * 8 * 128, windows={4096: 32}),
    Known("gemma-2-9b", GEMMA2, 9.24, 42 * 2 * 8 * 256, windows={4096: 21, None: 21}, precision=FP32),
    Known("gemma-3-4b", GEMMA3, 3.88, 34 * 2 * 4 * 256, windows={1024: 29, None: 5}, notes=1),
    Known("qwen1.5-moe-a2.7b", QWEN2_MOE, 14.3, 24 * 2 * 16 * 128, 2.7, moe_layers=24, shared=5632),
    Known("kimi-k2", V3_DERIVATIVE, 1026.0, 61 * 576, 32.9, moe_layers=60, shared=2048, precision=FP8_BLOCK),
    Known("deepseek-moe-16b", DEEPSEEK_MOE, 16.4, 28 * 2 * 16 * 128, 2.83, moe_layers=27, shared=2816),
    Known("llama-4-scout", SCOUT, 107.8, 48 * 2 * 8 * 128, 17.2, {8192: 36, None: 12}, 48, 8192, notes=2),
    Known("llama-4-maverick", MAVERICK, 400.7, 48 * 2 * 8 * 128, 17.2, {8192: 36, None: 12}, 24, 8192, notes=2),
    Known("phi-3.5-moe", PHI_MOE, 41.9, 32 * 2 * 8 * 128, 6.6, {131072: 32}, 32),
    Known("olmoe", OLMOE, 6.92, 16 * 2 * 16 * 128, 1.28, moe_layers=16),
    Known("dbrx", DBRX, 131.6, 40 * 2 * 8 * 128, 36.5, moe_layers=40),
    Known("falcon-7b", FALCON_7B, 6.92, 32 * 2 * 1 * 64),
    Known("falcon-40b", FALCON_40B, 41.3, 60 * 2 * 8 * 64),
    Known("gpt2-xl", GPT2, 1.558, 48 * 2 * 1600),
    Known("gpt-neox-20b", NEOX, 20.55, 44 * 2 * 6144, precision=FP16),
    Known("gpt-j-6b", GPTJ, 6.05, 28 * 2 * 4096),
    Known("gpt-neo-2.7b", GPT_NEO, 2.65, 32 * 2 * 2560, windows={256: 16, None: 16}),
    Known("bloom-7b1", BLOOM, 7.07, 30 * 2 * 4096, precision=FP16),
    Known("mpt-7b", MPT, 6.65, 32 * 2 * 4096),
    Known("chatglm3-6b", CHATGLM, 6.24, 28 * 2 * 2 * 128, precision=FP16),
    Known("qwen-7b", QWEN1, 7.72, 32 * 2 * 4096),
    Known("llava-1.5-7b", LLAVA, 6.74, 32 * 2 * 4096, precision=FP16, notes=1),
    Known("llava-1.5-7b-flat", LLAVA_FLAT, 6.74, 32 * 2 * 4096, precision=FP16, notes=1),
    Known("mistral-small-3.1", MISTRAL_SMALL, 23.57, 40 * 2 * 8 * 128, notes=1),
    Known("qwen2.5-vl-7b", QWEN25_VL, 7.62, 28 * 2 * 4 * 128, notes=1),
    Known("command-r", COMMAND_R, 34.98, 40 * 2 * 64 * 128, precision=FP16),
    Known("starcoder2-7b", STARCODER2, 7.17, 32 * 2 * 4 * 128, windows={4096: 32}),
    Known("minitron-4b", NEMOTRON, 4.19, 32 * 2 * 8 * 128),
    Known("exaone-4-32b", EXAONE4, 32.0, 64 * 2 * 8 * 128, windows={4096: 48, None: 16}),
    # 12 B as published leaves out embedding and LM head, 2 x 0.62 B
    Known("glm-4.5-air", GLM45_AIR, 106.8, 46 * 2 * 8 * 128, 13.4, moe_layers=45, shared=1408, notes=1),
    Known("hunyuan-a13b", HUNYUAN, 80.4, 32 * 2 * 8 * 128, 12.7, moe_layers=32, shared=3072),
    Known("ernie-4.5-21b-a3b", ERNIE, 21.8, 28 * 2 * 4 * 128, 3.35, moe_layers=27, shared=3072),
    Known("minimax-m2", MINIMAX_M2, 228.7, 62 * 2 * 8 * 128, 11.0, moe_layers=62, precision=FP8_BLOCK, notes=1),
    Known("grok-2", GROK2, 269.5, 64 * 2 * 8 * 128, 115.0, moe_layers=64, shared=32768),
    # 5.1 B as published leaves out the input embedding, 0.58 B
    Known("gpt-oss-120b", GPT_OSS, 116.8, 36 * 2 * 8 * 64, 5.71, {128: 18, None: 18}, 36, precision=MXFP4),
    Known("smollm3-3b", SMOLLM3, 3.075, 36 * 2 * 4 * 128),
    Known("starcoder", STARCODER, 15.52, 40 * 2 * 128, precision=FP32),
    Known("granite-3.0-3b-a800m", GRANITE_MOE, 3.30, 32 * 2 * 8 * 64, 0.88, moe_layers=32),
    Known("smallthinker-21b", SMALLTHINKER, 21.5, 52 * 2 * 4 * 128, 3.72, {4096: 39, None: 13}, 52),
    Known("minicpm-2b", MINICPM, 2.72, 40 * 2 * 2304),
    Known("internvl2.5-8b-qwen", INTERNVL, 7.61, 28 * 2 * 4 * 128, notes=1),
    # 4.1 B as published leaves out the input embedding, 0.33 B
    Known("deepseek-vl2", DEEPSEEK_VL2, 27.5, 30 * 576, 4.46, moe_layers=29, shared=3072, notes=1),
]  # fmt: skip


@pytest.fixture(params=KNOWN, ids=lambda known: known.name)
def known(request):
    return request.param


def test_parameters(known: Known):
    model = read(known.config)
    assert model.parameters / 1e9 == pytest.approx(known.total, rel=0.02)
    assert model.active_parameters / 1e9 == pytest.approx(known.active or known.total, rel=0.02)


def test_kv_elements_per_token(known: Known):
    assert read(known.config).kv_elements_per_token() == known.kv


def test_window_of_each_layer(known: Known):
    model = read(known.config)
    found: Counter[int | None] = Counter()
    for layer, count in model.layers:
        found[layer.attention.window] += count
    assert dict(found) == (known.windows or {None: model.num_layers})


def test_which_layers_are_mixtures(known: Known):
    mixtures = [
        (layer.feed_forward, n) for layer, n in read(known.config).layers if isinstance(layer.feed_forward, MixtureOfExperts)
    ]
    assert sum(count for _, count in mixtures) == known.moe_layers
    assert {moe.shared and moe.shared.inner for moe, _ in mixtures} <= {known.shared}


def test_precision(known: Known):
    assert read(known.config).precision == known.precision


def test_notes_are_short_and_nothing_is_missed(known: Known):
    notes = read(known.config).notes
    assert len(notes) == known.notes
    assert not [note for note in notes if "not read" in note]


# ---- layouts of one family against another -----------------------------------------------------------------------------------


def first(raw: dict[str, Any], index: int = 0) -> Any:
    return read(raw).layers[index][0]


def test_flat_and_nested_wrappers_are_the_same_network():
    text = {key: value for key, value in QWEN25_VL.items() if key != "vision_config"}
    nested = {**QWEN25_VL, "text_config": {**text, "model_type": "qwen2_5_vl_text"}}
    assert read(nested) == read(QWEN25_VL)


def test_a_wrapper_in_a_wrapper():
    thinker = {"text_config": LLAMA, "audio_config": {"d_model": 1280}, "vision_config": {"hidden_size": 1280}}
    model = read({"model_type": "omni", "thinker_config": thinker, "talker_config": {"hidden_size": 896}})
    assert replace(model, notes=()) == read(LLAMA)
    assert "audio_config" in model.notes[0]


def test_a_quantised_wrapper_hands_its_quantisation_down():
    quantisation = {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
    }
    assert read({**LLAVA, "quantization_config": quantisation}).precision.attention == "fp8"


def test_gated_unless_the_activation_or_the_family_says_otherwise():
    assert first(LLAMA).feed_forward == FeedForward(8192)
    assert first({**LLAMA, "hidden_act": "relu"}).feed_forward.gated  # ReLU put into a gated network (ProSparse)
    assert not first({**LLAMA, "model_type": "new", "hidden_act": "relu2"}).feed_forward.gated
    assert not first({**LLAMA, "model_type": "new", "hidden_act": "gelu"}).feed_forward.gated
    assert first({**LLAMA, "model_type": "new", "hidden_act": "gelu_pytorch_tanh"}).feed_forward.gated
    assert first(GROK2).feed_forward.expert.gated
    assert not first(NEMOTRON).feed_forward.gated
    assert not first(GPT2).feed_forward.gated


def test_qwen2_moe_has_a_gate_on_its_shared_expert():
    moe = first(QWEN2_MOE).feed_forward
    assert moe == MixtureOfExperts(60, 4, FeedForward(1408), FeedForward(5632), shared_gate=True)
    assert first(QWEN2_MOE).attention == Attention(16, 16, 128, qkv_bias=True)


def test_latent_attention():
    assert first(V3_DERIVATIVE).attention == LatentAttention(64, 512, 128, 64, 128, 1536)
    assert first({**V3_DERIVATIVE, "q_lora_rank": None}).attention.q_rank is None
    assert isinstance(first({**V3_DERIVATIVE, "use_mla": False}).attention, Attention)


def test_dense_layers_of_an_interleaved_network():
    (dense, count), *_ = [
        (layer.feed_forward, n) for layer, n in read(MAVERICK).layers if isinstance(layer.feed_forward, FeedForward)
    ]
    assert dense == FeedForward(16384)
    assert count == 24


@pytest.mark.parametrize(
    ("rule", "routed"),
    [
        ({"mlp_only_layers": [0, 5]}, [1, 2, 3, 4, 6, 7]),
        ({"moe_layers": [1, 3]}, [1, 3]),
        ({"moe_layers_enum": "4,5,6"}, [4, 5, 6]),
        ({"decoder_sparse_step": 2}, [1, 3, 5, 7]),
        ({"moe_layer_freq": 2}, [0, 2, 4, 6]),
        ({"moe_layer_freq": [0, 1, 1, 1, 0, 1, 1, 1]}, [1, 2, 3, 5, 6, 7]),
        ({"first_k_dense_replace": 3}, [3, 4, 5, 6, 7]),
        ({"moe_layer_start_index": 2, "moe_layer_end_index": 5}, [2, 3, 4, 5]),
        ({"moe_layer_start_index": 2, "moe_layer_end_index": -1}, [2, 3, 4, 5, 6, 7]),
        ({"expert_layer_period": 4, "expert_layer_offset": 1}, [1, 5]),
        ({"mlp_layer_types": ["dense"] + ["sparse"] * 7}, [1, 2, 3, 4, 5, 6, 7]),
        ({"moe_layer_num_skipped": 1, "first_k_dense_replace": None}, [1, 2, 3, 4, 5, 6, 7]),
    ],
)  # fmt: skip
def test_rules_for_which_layers_are_mixtures(rule: dict[str, Any], routed: list[int]):
    """The inner size differs per layer, so that folding keeps apart what the test wants to see."""
    sizes = [100 + i for i in range(8)]
    base = {**OLMOE, "model_type": "new", "num_hidden_layers": 8, "moe_intermediate_size": sizes}
    found = [layer.feed_forward for layer, _ in read({**base, **rule}).layers]
    assert [moe.expert.inner - 100 for moe in found if isinstance(moe, MixtureOfExperts)] == routed


@pytest.mark.parametrize(
    ("fields", "norm"),
    [
        ({}, 0),
        ({"qk_norm": True}, 128),
        ({"use_qk_norm": True}, 128),
        ({"qk_layernorm": True}, 128),
        ({"qk_norm": False}, 0),
        ({"use_qk_norm": True, "qk_norm_type": "per_layer"}, 40 * 64),
        ({"model_type": "qwen3"}, 128),
        ({"model_type": "olmo2"}, 40 * 64),
    ],
)
def test_norms_on_queries_and_keys(fields: dict[str, Any], norm: int):
    assert first({**LLAMA, **fields}).attention.qk_norm == norm


@pytest.mark.parametrize(
    ("fields", "windows"),
    [
        ({"sliding_window": 512}, {512: 16}),
        ({"sliding_window": 512, "use_sliding_window": False}, {None: 16}),
        ({"sliding_window": 512, "use_sliding_window": True, "max_window_layers": 12}, {None: 12, 512: 4}),
        ({"sliding_window": 512, "sliding_window_pattern": 4}, {512: 12, None: 4}),
        ({"sliding_window": 512, "_sliding_window_pattern": 2}, {512: 8, None: 8}),
        ({"sliding_window": 0}, {None: 16}),
        ({"sliding_window": -1}, {None: 16}),
        ({"sliding_window": 512, "layer_types": ["full_attention"] * 16}, {None: 16}),
        ({"model_type": "cohere2", "sliding_window": 512}, {512: 12, None: 4}),
        ({"model_type": "gpt_oss"}, {128: 8, None: 8}),
    ],
)
def test_sliding_windows(fields: dict[str, Any], windows: dict[int | None, int]):
    model = read({**LLAMA, **fields})
    assert {layer.attention.window: count for layer, count in model.layers} == windows


def test_bert_has_no_head_and_looks_both_ways():
    bert = read({"model_type": "bert", "architectures": ["BertForMaskedLM"], "type_vocab_size": 2, "pad_token_id": 0})
    assert (bert.head, bert.causal, bert.positions, bert.num_layers) == (False, False, 512, 12)
    unknown = read({**LLAMA, "model_type": "new", "architectures": ["NewForMaskedLM"]})
    assert not unknown.causal


def test_learned_positions():
    assert read(GPT2).positions == 1024
    assert read({"model_type": "opt", "hidden_size": 768, "ffn_dim": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
                 "vocab_size": 50272, "max_position_embeddings": 2048}).positions == 2050  # fmt: skip
    assert read(LLAMA).positions == 0
    assert not first(GPT2).attention.rope
    assert not first(MPT).attention.rope


def test_a_number_that_looks_like_a_shape_and_was_not_read_is_said():
    assert read({**LLAMA, "side_network_size": 512}).notes == ("not read: side_network_size",)
    assert read({**LLAMA, "num_null_experts": 4}).notes == ("not read: num_null_experts",)
    assert read({**LLAMA, "image_size": 336, "rotary_dim": 64, "side_network_size": None, "vocab_size_ratio": 0.5}).notes == ()


def test_unread_fields_are_those_without_a_say():
    assert unread_fields({**LLAMA, "hiden_size": 4096}, "x") >= {"hiden_size", "rms_norm_eps"}
    assert "hidden_size" not in unread_fields(LLAMA, "x")


# ---- quantisation ------------------------------------------------------------------------------------------------------------


def group(weights: dict[str, Any], activations: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    groups = {"group_0": {"input_activations": activations, "weights": weights, "targets": ["Linear"]}}
    return {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head"], **more}


def modelopt(**fields: Any) -> dict[str, Any]:
    return {**fields, "quant_method": "modelopt"}


def stored(weights: str, activations: str = "bf16", kv: str = "bf16") -> Precision:
    return replace(BF16.with_weights(weights), activations=activations, kv=kv)


INT8 = {"num_bits": 8, "type": "int", "group_size": None, "strategy": "channel"}
INT4 = {"num_bits": 4, "type": "int", "group_size": 128, "strategy": "group", "symmetric": True}
FP8 = {"num_bits": 8, "type": "float", "strategy": "channel"}
FP4 = {"num_bits": 4, "type": "float", "group_size": 16}
PER_LAYER = [f"model.layers.{i}.self_attn" for i in range(16)]


@pytest.mark.parametrize(
    ("quantisation", "expected"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, stored("fp8_block", "fp8")),
        ({"quant_method": "fp8", "activation_scheme": "static"}, stored("fp8", "fp8")),
        ({"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["model.layers.0.self_attn"]}, stored("fp8", "fp8")),
        (group(INT4), stored("int4_g128")),
        (group(INT8, {"num_bits": 8, "type": "int", "dynamic": True}), stored("int8", "int8")),
        (group(FP8, {"num_bits": 8, "type": "float"}), stored("fp8", "fp8")),
        (group(FP8, FP8, kv_cache_scheme={"num_bits": 8, "type": "float"}), stored("fp8", "fp8", "fp8")),
        (group({**FP8, "strategy": "block"}, FP8), stored("fp8_block", "fp8")),
        (group(FP4, FP4, format="nvfp4-pack-quantized"), stored("nvfp4", "nvfp4")),
        (group({"num_bits": 4, "type": "float", "group_size": 32}), stored("mxfp4")),
        (group({**INT4, "num_bits": 8, "group_size": 128}), stored("int8_g128")),
        (group({**INT4, "group_size": -1}), stored("int4")),
        (group(INT4, ignore=["re:.*self_attn.*", "re:.*shared_experts.*"]), replace(BF16, experts="int4_g128")),
        (group(INT4, ignore=["re:.*self_attn.kv_b_proj", "re:.*mlp.gate$"]), stored("int4_g128")),
        ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"}, stored("int4_g128")),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "modules_to_not_convert": None}, stored("int4_g64")),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}, stored("int4_g128")),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, stored("int8")),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, stored("int4_g64")),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}, stored("int8", "int8")),
        ({"quant_method": "mxfp4"}, MXFP4),
        (modelopt(quant_algo="NVFP4", kv_cache_quant_algo="FP8"), stored("nvfp4", "nvfp4", "fp8")),
        (modelopt(quantization={"quant_algo": "FP8", "exclude_modules": ["lm_head"]}), stored("fp8", "fp8")),
        (modelopt(quant_algo="NVFP4", exclude_modules=PER_LAYER), replace(stored("nvfp4", "nvfp4"), attention="bf16")),
        (modelopt(**group(FP4, FP4, kv_cache_scheme={"num_bits": 8, "type": "float"})), stored("nvfp4", "nvfp4", "fp8")),
        (None, BF16),
    ],
)  # fmt: skip
def test_quantisation(quantisation: dict[str, Any] | None, expected: Precision):
    assert read({**LLAMA, "quantization_config": quantisation}).precision == expected


@pytest.mark.parametrize(
    ("quantisation", "field"),
    [
        ({"quant_method": "quantum"}, "quant_method"),
        ({"bits": 4}, "quant_method"),
        ("fp8", "quantization_config"),
        ({"quant_method": "compressed-tensors"}, "config_groups"),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": 4}}, "config_groups"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "quant_algo"),
        ({"quant_method": "modelopt", "quantization": 3}, "quant_algo"),
        ({"quant_method": "gptq", "bits": 16}, "bits"),
        ({"quant_method": "gptq", "bits": True}, "bits"),
    ],
)
def test_quantisation_that_is_refused(quantisation: object, field: str):
    refused({**LLAMA, "quantization_config": quantisation}, field)


# ---- refusals ----------------------------------------------------------------------------------------------------------------


def refused(raw: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        read(raw)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    assert text.startswith("config.json: ")
    assert f"{field}: " in text
    assert "; accepted: " in text


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True, "d_model": 768, "num_layers": 12}, "is_encoder_decoder"),
        ({"model_type": "whisper", "is_encoder_decoder": True, "d_model": 1280, "vocab_size": 51866}, "is_encoder_decoder"),
        ({"model_type": "switch_transformers", "is_encoder_decoder": True, "num_experts": 8}, "is_encoder_decoder"),
        ({"model_type": "mllama", "text_config": {**LLAMA, "cross_attention_layers": [3, 8]}}, "cross_attention_layers"),
        ({"model_type": "mamba", "hidden_size": 2560, "num_hidden_layers": 64, "state_size": 16}, "state_size"),
        ({"d_model": 2560, "n_layer": 64, "ssm_cfg": {"layer": "Mamba2"}, "vocab_size": 50277}, "ssm_cfg"),
        ({**LLAMA, "model_type": "jamba", "attn_layer_period": 8, "mamba_d_state": 16}, "attn_layer_period"),
        ({**LLAMA, "model_type": "falcon_h1", "mamba_d_ssm": 1536}, "mamba_d_ssm"),
        ({**LLAMA, "model_type": "qwen3_next", "full_attention_interval": 4}, "full_attention_interval"),
        ({**LLAMA, "layer_types": ["linear_attention", "full_attention"] * 8}, "layer_types"),
        ({**LLAMA, "linear_attn_config": {"num_heads": 32}}, "linear_attn_config"),
        ({**LLAMA, "model_type": "recurrent_gemma", "lru_width": 2560}, "lru_width"),
        ({**LLAMA, "block_types": ["recurrent", "recurrent", "attention"]}, "block_types"),
        ({**LLAMA, "model_type": "lfm2", "conv_L_cache": 3}, "conv_L_cache"),
        ({**LLAMA, "layer_types": ["conv"] * 16}, "layer_types"),
        ({**LLAMA, "attn_type_list": [0] * 8 + [1] * 8}, "attn_type_list"),
        ({**LLAMA, "model_type": "rwkv", "rwkv_version": "6"}, "rwkv_version"),
        ({**LLAMA, "index_topk": 2048}, "index_topk"),
        ({**LLAMA, "num_kv_shared_layers": 10}, "num_kv_shared_layers"),
        ({**LLAMA, "use_cla": True}, "use_cla"),
        ({**LLAMA, "zero_expert_num": 256}, "zero_expert_num"),
        ({**LLAMA, "parallel_attn_mlp_res": True}, "parallel_attn_mlp_res"),
        ({**LLAMA, "swa_num_key_value_heads": 8}, "swa_num_key_value_heads"),
        ({**LLAMA, "block_configs": [{"attention": {}}]}, "block_configs"),
        ({"model_type": "resnet", "hidden_sizes": [256, 512, 1024, 2048], "depths": [3, 4, 6, 3]}, "hidden_size"),
        ({"model_type": "swinv2", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}, "vocab_size"),
        ({"model_type": "albert", "hidden_size": 768, "embedding_size": 128, "num_hidden_layers": 12, "num_attention_heads": 12,
          "vocab_size": 30000}, "embedding_size"),
        ({**LLAMA, "word_embed_proj_dim": 512}, "word_embed_proj_dim"),
        ({}, "hidden_size"),
    ],
)  # fmt: skip
def test_networks_that_are_refused(raw: dict[str, Any], field: str):
    refused(raw, field)


SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


@pytest.mark.parametrize("value", [-1, 10**12, True, float("nan"), float("inf"), 4096.5, "4096", [4096], {"size": 4096}])
@pytest.mark.parametrize("field", SIZES)
def test_sizes_that_are_refused(field: str, value: object):
    refused({**LLAMA, field: value}, field)


@pytest.mark.parametrize("field", [size for size in SIZES if size != "intermediate_size"])
def test_zero_is_refused_where_it_does_not_stand_for_a_default(field: str):
    refused({**LLAMA, field: 0}, field)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"num_attention_heads": 30, "head_dim": None}, "num_attention_heads"),
        ({"num_key_value_heads": 5}, "num_key_value_heads"),
        ({"num_key_value_heads": 0}, "num_key_value_heads"),
        ({"head_dim": -64}, "head_dim"),
        ({"sliding_window": "4k"}, "sliding_window"),
        ({"sliding_window": -4096}, "sliding_window"),
        ({"layer_types": ["full_attention"] * 15}, "layer_types"),
        ({"layer_types": [1] * 16}, "layer_types"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"attention_bias": 1}, "attention_bias"),
        ({"torch_dtype": "float12"}, "torch_dtype"),
        ({"torch_dtype": 16}, "dtype"),
        ({"max_position_embeddings": -1}, "max_position_embeddings"),
        ({"vocab_size": None}, "vocab_size"),
        ({"num_experts": 8}, "num_experts_per_tok"),
        ({"num_experts": 8, "num_experts_per_tok": 9}, "num_experts_per_tok"),
        ({"num_experts": [8, 8], "num_experts_per_tok": 2}, "num_experts"),
        ({"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": [512] * 15}, "moe_intermediate_size"),
        ({"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": ["a"] * 16}, "moe_intermediate_size"),
        ({"num_experts": 8, "num_experts_per_tok": 2, "mlp_only_layers": 3}, "mlp_only_layers"),
        ({"num_experts": 8, "num_experts_per_tok": 2, "mlp_only_layers": ["first"]}, "mlp_only_layers"),
        ({"num_experts": 8, "num_experts_per_tok": 2, "moe_layers": "all"}, "moe_layers"),
        ({"num_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": -1}, "n_shared_experts"),
        ({"kv_lora_rank": 512}, "qk_nope_head_dim"),
    ],
)  # fmt: skip
def test_fields_that_are_refused(fields: dict[str, Any], field: str):
    refused({**LLAMA, "model_type": "new", **fields}, field)
