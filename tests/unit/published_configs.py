"""Configs as published, written out by hand from what is known of each network: one for every layout that is read."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

LLAMA: Config = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 2048,
    "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
    "vocab_size": 128256, "max_position_embeddings": 131072, "attention_bias": False, "mlp_bias": False, "pretraining_tp": 1,
    "rms_norm_eps": 1e-5, "rope_scaling": {"factor": 32.0, "rope_type": "llama3"}, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}  # fmt: skip
NEMO: Config = {
    "model_type": "mistral", "hidden_size": 5120, "head_dim": 128, "intermediate_size": 14336, "num_hidden_layers": 40,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 131072, "sliding_window": None, "hidden_act": "silu",
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
MISTRAL: Config = {
    "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "sliding_window": 4096,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
GEMMA2: Config = {
    "model_type": "gemma2", "hidden_size": 3584, "intermediate_size": 14336, "num_hidden_layers": 42,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "vocab_size": 256000, "sliding_window": 4096,
    "sliding_window_size": 4096, "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0,
    "hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid", "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192, "torch_dtype": "float32",
}  # fmt: skip
GEMMA3: Config = {
    "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "boi_token_index": 255999,
    "mm_tokens_per_image": 256,
    "text_config": {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
        "sliding_window": 1024, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    },
    "vision_config": {
        "hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "model_type": "siglip_vision_model",
        "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14,
    },
    "torch_dtype": "bfloat16",
}  # fmt: skip
QWEN2_MOE: Config = {
    "model_type": "qwen2_moe", "hidden_size": 2048, "intermediate_size": 5632, "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632, "num_experts": 60, "num_experts_per_tok": 4, "num_hidden_layers": 24,
    "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 151936, "decoder_sparse_step": 1,
    "sliding_window": 32768, "max_window_layers": 21, "use_sliding_window": False, "norm_topk_prob": False,
    "tie_word_embeddings": False, "max_position_embeddings": 8192, "torch_dtype": "bfloat16",
}  # fmt: skip
V3_DERIVATIVE: Config = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "some_new_type", "hidden_size": 7168, "intermediate_size": 18432,
    "moe_intermediate_size": 2048, "n_routed_experts": 384, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1, "moe_layer_freq": 1, "num_hidden_layers": 61, "num_attention_heads": 64,
    "num_key_value_heads": 64, "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "v_head_dim": 128, "vocab_size": 163840, "topk_method": "noaux_tc", "scoring_func": "sigmoid",
    "num_nextn_predict_layers": 0, "max_position_embeddings": 131072, "ep_size": 1, "aux_loss_alpha": 0.001,
    "tie_word_embeddings": False,
    "quantization_config": {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128],
    },
}  # fmt: skip
DEEPSEEK_MOE: Config = {
    "model_type": "deepseek", "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408,
    "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1, "moe_layer_freq": 1,
    "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 102400,
    "max_position_embeddings": 4096, "scoring_func": "softmax", "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
SCOUT: Config = {
    "architectures": ["Llama4ForConditionalGeneration"], "model_type": "llama4", "image_token_index": 200092,
    "torch_dtype": "bfloat16",
    "text_config": {
        "attention_bias": False, "attention_chunk_size": 8192, "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120,
        "interleave_moe_layer_step": 1, "intermediate_size": 8192, "intermediate_size_mlp": 16384, "model_type": "llama4_text",
        "no_rope_layers": [], "num_attention_heads": 40, "num_experts_per_tok": 1, "num_hidden_layers": 48,
        "num_key_value_heads": 8, "num_local_experts": 16, "use_qk_norm": True, "vocab_size": 202048,
        "max_position_embeddings": 10485760, "tie_word_embeddings": False, "router_jitter_noise": 0.0, "attn_scale": 0.1,
        "floor_scale": 8192, "attn_temperature_tuning": 4,
    },
    "vision_config": {"hidden_size": 1408, "num_hidden_layers": 34, "model_type": "llama4_vision_model"},
}  # fmt: skip
MAVERICK: Config = {
    **SCOUT,
    "text_config": {
        **SCOUT["text_config"], "interleave_moe_layer_step": 2, "num_local_experts": 128, "use_qk_norm": False,
        "no_rope_layers": [1, 1, 1, 0] * 12,
    },
}  # fmt: skip
PHI_MOE: Config = {
    "model_type": "phimoe", "hidden_size": 4096, "intermediate_size": 6400, "num_local_experts": 16, "num_experts_per_tok": 2,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32064, "attention_bias": True,
    "lm_head_bias": True, "hidden_act": "silu", "sliding_window": 131072, "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
OLMOE: Config = {
    "model_type": "olmoe", "hidden_size": 2048, "intermediate_size": 1024, "num_experts": 64, "num_experts_per_tok": 8,
    "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 50304, "clip_qkv": None,
    "norm_topk_prob": False, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
DBRX: Config = {
    "architectures": ["DbrxForCausalLM"], "model_type": "dbrx", "d_model": 6144, "n_heads": 48, "n_layers": 40,
    "max_seq_len": 32768, "attn_config": {"clip_qkv": 8, "kv_n_heads": 8, "model_type": "", "rope_theta": 500000},
    "ffn_config": {
        "ffn_hidden_size": 10752, "model_type": "", "moe_jitter_eps": 0.01, "moe_loss_weight": 0.05, "moe_num_experts": 16,
        "moe_top_k": 4, "ffn_act_fn": {"name": "silu"},
    },
    "vocab_size": 100352, "resid_pdrop": 0.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
FALCON_7B: Config = {
    "model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71, "num_kv_heads": 71,
    "multi_query": True, "new_decoder_architecture": False, "parallel_attn": True, "alibi": False, "bias": False,
    "vocab_size": 65024, "torch_dtype": "bfloat16",
}  # fmt: skip
FALCON_40B: Config = {
    **FALCON_7B, "hidden_size": 8192, "num_hidden_layers": 60, "num_attention_heads": 128, "num_kv_heads": 8,
    "new_decoder_architecture": True,
}  # fmt: skip
GPT2: Config = {
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new", "n_ctx": 1024,
    "n_embd": 1600, "n_head": 25, "n_layer": 48, "n_positions": 1024, "vocab_size": 50257, "summary_use_proj": True,
}  # fmt: skip
NEOX: Config = {
    "model_type": "gpt_neox", "hidden_act": "gelu_fast", "hidden_size": 6144, "intermediate_size": 24576,
    "num_hidden_layers": 44, "num_attention_heads": 64, "rotary_pct": 0.25, "vocab_size": 50432,
    "max_position_embeddings": 2048, "use_parallel_residual": True, "tie_word_embeddings": False, "torch_dtype": "float16",
}  # fmt: skip
GPTJ: Config = {
    "model_type": "gptj", "activation_function": "gelu_new", "n_embd": 4096, "n_head": 16, "n_inner": None, "n_layer": 28,
    "n_positions": 2048, "rotary": True, "rotary_dim": 64, "vocab_size": 50400, "tie_word_embeddings": False,
}  # fmt: skip
GPT_NEO: Config = {
    "model_type": "gpt_neo", "activation_function": "gelu_new", "hidden_size": 2560, "intermediate_size": None,
    "num_heads": 20, "num_layers": 32, "window_size": 256, "attention_layers": ["global", "local"] * 16,
    "max_position_embeddings": 2048, "vocab_size": 50257,
}  # fmt: skip
BLOOM: Config = {
    "model_type": "bloom", "n_embed": 4096, "n_inner": None, "n_layer": 30, "num_attention_heads": 32, "offset_alibi": 100,
    "seq_length": 2048, "vocab_size": 250880, "torch_dtype": "float16", "pretraining_tp": 4,
}  # fmt: skip
MPT: Config = {
    "model_type": "mpt", "d_model": 4096, "n_heads": 32, "n_layers": 32, "expansion_ratio": 4, "max_seq_len": 2048,
    "no_bias": True,
    "attn_config": {
        "alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "attn_type": "multihead_attention", "prefix_lm": False,
    },
    "vocab_size": 50432, "learned_pos_emb": True, "torch_dtype": "bfloat16", "init_config": {"name": "kaiming_normal_"},
}  # fmt: skip
CHATGLM: Config = {
    "architectures": ["ChatGLMModel"], "model_type": "chatglm", "add_bias_linear": False, "add_qkv_bias": True,
    "ffn_hidden_size": 13696, "hidden_size": 4096, "kv_channels": 128, "multi_query_attention": True,
    "multi_query_group_num": 2, "num_attention_heads": 32, "num_layers": 28, "padded_vocab_size": 65024, "seq_length": 8192,
    "rmsnorm": True, "original_rope": True, "post_layer_norm": True, "tie_word_embeddings": False, "torch_dtype": "float16",
}  # fmt: skip
QWEN1: Config = {
    "model_type": "qwen", "hidden_size": 4096, "intermediate_size": 22016, "kv_channels": 128, "num_attention_heads": 32,
    "num_hidden_layers": 32, "no_bias": True, "seq_length": 8192, "vocab_size": 151936, "tie_word_embeddings": False,
    "bf16": False,
}  # fmt: skip
LLAVA: Config = {
    "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "image_token_index": 32000,
    "text_config": {
        "_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096,
        "model_type": "llama", "torch_dtype": "float16", "vocab_size": 32064,
    },
    "vision_config": {
        "hidden_size": 1024, "image_size": 336, "model_type": "clip_vision_model", "num_hidden_layers": 24,
    },
    "torch_dtype": "float16", "vocab_size": 32064,
}  # fmt: skip
LLAVA_FLAT: Config = {
    "model_type": "llava_llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000, "mm_hidden_size": 1024,
    "mm_vision_tower": "openai/clip-vit-large-patch14-336", "mm_projector_type": "mlp2x_gelu", "torch_dtype": "float16",
}  # fmt: skip
MISTRAL_SMALL: Config = {
    "architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3", "spatial_merge_size": 2,
    "torch_dtype": "bfloat16",
    "text_config": {
        "head_dim": 128, "hidden_act": "silu", "hidden_size": 5120, "intermediate_size": 32768, "model_type": "mistral",
        "max_position_embeddings": 131072, "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8,
        "sliding_window": None, "vocab_size": 131072,
    },
    "vision_config": {"hidden_size": 1024, "model_type": "pixtral", "num_hidden_layers": 24},
}  # fmt: skip
QWEN25_VL: Config = {
    "model_type": "qwen2_5_vl", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 128000,
    "max_window_layers": 28, "sliding_window": 32768, "use_sliding_window": False, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vision_config": {"depth": 32, "hidden_size": 1280, "out_hidden_size": 3584, "window_size": 112},
}  # fmt: skip
COMMAND_R: Config = {
    "model_type": "cohere", "hidden_act": "silu", "hidden_size": 8192, "intermediate_size": 22528, "num_hidden_layers": 40,
    "num_attention_heads": 64, "num_key_value_heads": 64, "vocab_size": 256000, "logit_scale": 0.0625, "use_qk_norm": False,
    "max_position_embeddings": 8192, "model_max_length": 131072, "torch_dtype": "float16",
}  # fmt: skip
STARCODER2: Config = {
    "model_type": "starcoder2", "hidden_act": "gelu_pytorch_tanh", "hidden_size": 4608, "intermediate_size": 18432,
    "mlp_type": "default", "num_hidden_layers": 32, "num_attention_heads": 36, "num_key_value_heads": 4, "vocab_size": 49152,
    "use_bias": True, "sliding_window": 4096, "norm_type": "layer_norm", "max_position_embeddings": 16384,
    "torch_dtype": "bfloat16",
}  # fmt: skip
NEMOTRON: Config = {
    "model_type": "nemotron", "hidden_act": "relu2", "hidden_size": 3072, "intermediate_size": 9216, "num_hidden_layers": 32,
    "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 256000, "attention_bias": False,
    "mlp_bias": False, "partial_rotary_factor": 0.5, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
EXAONE4: Config = {
    "model_type": "exaone4", "hidden_size": 5120, "intermediate_size": 27392, "num_hidden_layers": 64,
    "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 102400, "sliding_window": 4096,
    "sliding_window_pattern": "LLLG", "max_position_embeddings": 131072, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}  # fmt: skip
GLM45_AIR: Config = {
    "model_type": "glm4_moe", "attention_bias": True, "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096,
    "intermediate_size": 10944, "first_k_dense_replace": 1, "moe_intermediate_size": 1408, "n_group": 1,
    "n_routed_experts": 128, "n_shared_experts": 1, "norm_topk_prob": True, "num_attention_heads": 96,
    "num_experts_per_tok": 8, "num_hidden_layers": 46, "num_key_value_heads": 8, "num_nextn_predict_layers": 1,
    "partial_rotary_factor": 0.5, "use_qk_norm": False, "vocab_size": 151552, "max_position_embeddings": 131072,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
HUNYUAN: Config = {
    "model_type": "hunyuan_v1_moe", "attention_head_dim": 128, "cla_share_factor": 2, "dense_list": [4096, 0], "head_dim": 128,
    "hidden_size": 4096, "intermediate_size": 3072, "kv_lora_rank": None, "moe_intermediate_size": [3072] * 32,
    "moe_layer_num_skipped": 0, "moe_topk": [8] * 32, "n_group": False, "num_attention_heads": 32, "num_experts": 64,
    "num_hidden_layers": 32, "use_cla": False, "num_key_value_heads": 8, "num_shared_expert": [1] * 32,
    "org_vocab_size": 128167, "use_mixed_mlp_moe": True, "use_mla": False, "use_qk_norm": True, "vocab_size": 128167,
    "tie_word_embeddings": True, "torch_dtype": "bfloat16", "anyres_pooling_size": 2,
}  # fmt: skip
ERNIE: Config = {
    "model_type": "ernie4_5_moe", "hidden_size": 2560, "intermediate_size": 12288, "moe_intermediate_size": 1536, "moe_k": 6,
    "moe_capacity": [64, 64, 64], "moe_layer_start_index": 1, "moe_layer_end_index": 27, "moe_layer_interval": 1,
    "moe_num_experts": 64, "moe_num_shared_experts": 2, "moe_use_aux_free": True, "num_attention_heads": 20,
    "num_hidden_layers": 28, "use_bias": False, "num_key_value_heads": 4, "vocab_size": 103424, "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}  # fmt: skip
MINIMAX_M2: Config = {
    "architectures": ["MiniMaxM2ForCausalLM"], "model_type": "minimax", "attn_type_list": [1] * 62, "head_dim": 128,
    "hidden_size": 3072, "intermediate_size": 1536, "mtp_transformer_layers": 1, "num_attention_heads": 48,
    "num_experts_per_tok": 8, "rotary_dim": 64, "num_hidden_layers": 62, "num_key_value_heads": 8, "num_local_experts": 256,
    "num_mtp_modules": 3, "qk_norm_type": "per_layer", "scoring_func": "sigmoid", "shared_intermediate_size": 0,
    "use_mtp": True, "use_qk_norm": True, "use_routing_bias": True, "vocab_size": 200064, "tie_word_embeddings": False,
    "quantization_config": {
        "activation_scheme": "dynamic", "fmt": "float8_e4m3fn", "quant_method": "fp8", "weight_block_size": [128, 128],
        "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"],
    },
}  # fmt: skip
GROK2: Config = {
    "architectures": ["Grok1ForCausalLM"], "model_type": "git", "hidden_act": "gelu", "hidden_size": 8192,
    "intermediate_size": 32768, "moe_intermediate_size": 16384, "num_experts_per_tok": 2, "num_local_experts": 8,
    "residual_moe": True, "num_attention_heads": 64, "num_key_value_heads": 8, "num_hidden_layers": 64, "head_dim": 128,
    "vocab_size": 131072, "sliding_window_size": -1, "global_attn_every_n": 1, "max_position_embeddings": 131072,
    "final_logit_softcapping": 50, "torch_dtype": "bfloat16",
}  # fmt: skip
GPT_OSS: Config = {
    "model_type": "gpt_oss", "attention_bias": True, "experts_per_token": 4, "num_experts_per_tok": 4, "head_dim": 64,
    "hidden_act": "silu", "hidden_size": 2880, "intermediate_size": 2880, "initial_context_length": 4096,
    "num_attention_heads": 64, "num_hidden_layers": 36, "num_key_value_heads": 8, "num_local_experts": 128,
    "sliding_window": 128, "vocab_size": 201088, "swiglu_limit": 7.0,
    "layer_types": ["sliding_attention", "full_attention"] * 18, "tie_word_embeddings": False,
    "max_position_embeddings": 131072,
    "quantization_config": {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
    },
}  # fmt: skip
SMOLLM3: Config = {
    "model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
    "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 128256, "layer_types": ["full_attention"] * 36,
    "no_rope_layers": [1, 1, 1, 0] * 9, "no_rope_layer_interval": 4, "sliding_window": None, "use_sliding_window": False,
    "max_window_layers": 28, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip
STARCODER: Config = {
    "model_type": "gpt_bigcode", "activation_function": "gelu", "multi_query": True, "n_embd": 6144, "n_head": 48,
    "n_inner": 24576, "n_layer": 40, "n_positions": 8192, "vocab_size": 49152, "torch_dtype": "float32",
}  # fmt: skip
GRANITE_MOE: Config = {
    "model_type": "granitemoe", "hidden_size": 1536, "intermediate_size": 512, "num_local_experts": 40,
    "num_experts_per_tok": 8, "num_hidden_layers": 32, "num_attention_heads": 24, "num_key_value_heads": 8,
    "vocab_size": 49155, "tie_word_embeddings": True, "logits_scaling": 6.0, "torch_dtype": "bfloat16",
}  # fmt: skip
SMALLTHINKER: Config = {
    "model_type": "smallthinker", "head_dim": 128, "hidden_size": 2560, "moe_enable_secondary_experts": False,
    "moe_ffn_hidden_size": 768, "moe_num_active_primary_experts": 6, "moe_num_primary_experts": 64, "num_attention_heads": 28,
    "num_hidden_layers": 52, "num_key_value_heads": 4, "rope_layout": [0, 1, 1, 1] * 13,
    "sliding_window_layout": [0, 1, 1, 1] * 13, "sliding_window_size": 4096, "vocab_size": 151936,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
MINICPM: Config = {
    "architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm", "hidden_act": "silu", "hidden_size": 2304,
    "intermediate_size": 5760, "num_hidden_layers": 40, "num_attention_heads": 36, "num_key_value_heads": 36,
    "vocab_size": 122753, "scale_emb": 12, "dim_model_base": 256, "scale_depth": 1.4, "torch_dtype": "bfloat16",
}  # fmt: skip
INTERNVL: Config = {
    "architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "downsample_ratio": 0.5, "torch_dtype": "bfloat16",
    "llm_config": {
        "architectures": ["Qwen2ForCausalLM"], "hidden_size": 3584, "intermediate_size": 18944, "model_type": "qwen2",
        "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "vocab_size": 151674,
        "tie_word_embeddings": False, "use_sliding_window": False, "sliding_window": None, "torch_dtype": "bfloat16",
    },
    "vision_config": {"hidden_size": 1024, "num_hidden_layers": 24}, "force_image_size": 448,
}  # fmt: skip
DEEPSEEK_VL2: Config = {
    "model_type": "deepseek_vl_v2", "torch_dtype": "bfloat16",
    "projector_config": {"n_embed": 2560, "model_type": "mlp_projector"},
    "language_config": {
        "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "first_k_dense_replace": 1,
        "hidden_size": 2560, "intermediate_size": 12288, "kv_lora_rank": 512, "lm_head": True, "moe_intermediate_size": 1536,
        "n_routed_experts": 72, "n_shared_experts": 2, "num_attention_heads": 32, "num_experts_per_tok": 6,
        "num_hidden_layers": 30, "num_key_value_heads": 32, "q_lora_rank": None, "topk_method": "noaux_tc",
        "vocab_size": 129280, "max_position_embeddings": 4096,
    },
    "vision_config": {
        "layers": 27, "mlp_ratio": 3.7362, "model_name": "siglip_so400m_patch14_384", "model_type": "vision", "width": 1152,
    },
}  # fmt: skip
