"""A published config.json -> Model. Networks are recognised by their fields, not by a list of names.

Every family names its sizes a little differently; each size is looked up under all names in use. What a family leaves unsaid
(its configuration class's defaults, biases, parallel blocks) is in families.yaml, by model_type; a model_type that is not there
reads by its fields alone. A field that changes shapes and is not understood (state-space layers, cross-attention, sparse
indexers) is refused by name. What is left out is said in `Model.notes`: a vision tower, multi-token prediction heads.

Multimodal wrappers: the language model inside text_config (or llm_config, language_config, thinker_config) is read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from hwsim.activity import Neurons
from hwsim.errors import InputError
from hwsim.files import read_mapping
from hwsim.lowering.fields import Fields
from hwsim.lowering.model import Attention, FeedForward, LatentAttention, Layer, MixtureOfExperts, Model, Patches
from hwsim.lowering.quantization import read_precision
from hwsim.quantity import parse

_WRAPPERS = ("text_config", "llm_config", "language_config", "thinker_config", "text_model_config")
_INHERITED = ("dtype", "torch_dtype", "tie_word_embeddings", "quantization_config", "compression_config", "source", "description")
_TOWERS = ("vision_config", "audio_config", "vision_tower", "mm_vision_tower", "visual")

# Fields that change shapes in a way not modelled here, with what they stand for; refused unless null, false, zero or empty.
_NOT_UNDERSTOOD = {
    "is_encoder_decoder": "encoder and decoder with cross-attention",
    "cross_attention_layers": "cross-attention layers",
    "add_cross_attention": "cross-attention layers",
    "index_topk": "sparse attention chosen by an indexer",
    "blocksparse_block_size": "block-sparse attention",
    "attn_layer_period": "layers that are not attention",
    "hybrid_override_pattern": "layers that are not attention",
    "layers_block_type": "layers that are not attention",
    "block_configs": "layers of individual shapes",
    "full_attention_interval": "linear attention between full attention",
    "linear_attn_config": "linear attention",
    "linear_num_key_heads": "linear attention",
    "lru_width": "recurrent layers",
    "conv_L_cache": "convolution layers",
    "state_size": "state-space layers",
    "ssm_cfg": "state-space layers",
    "num_kv_shared_layers": "KV cache shared between layers",
    "altup_num_inputs": "several residual streams",
    "use_cla": "KV cache shared between layers",
    "parallel_attn_mlp_res": "a dense network beside the experts",
    "num_memory_blocks": "memory layers",
    "recurrent_block_type": "recurrent layers",
    "block_types": "layers that are not attention",
    "layer_group_size": "linear attention between full attention",
    "zero_expert_num": "experts that compute nothing",
    "num_hidden_groups": "weights shared between layers",
    "share_q_dim": "queries through a shared low-rank projection",
    "swa_num_key_value_heads": "window layers with heads of their own",
    "swa_head_dim": "window layers with heads of their own",
    "hybrid_layer_pattern": "window layers with heads of their own",
    "attention_other_setting": "window layers with heads of their own",
    "global_head_dim": "full-attention layers with heads of their own",
    "num_global_key_value_heads": "full-attention layers with heads of their own",
    "position_encoding_2d": "two-dimensional positions in a prefix",
}
_NOT_UNDERSTOOD_PREFIXES = {"mamba_": "state-space layers", "ssm_": "state-space layers", "rwkv_": "recurrent layers"}

_LAYER_TYPES = {
    "full_attention": "full", "attention": "full", "global": "full", "sliding_attention": "window", "local": "window",
    "chunked_attention": "chunk",
}  # fmt: skip
_UNGATED = re.compile(r"relu2?|relu_squared|squared_relu|gelu(_new|_fast|_python)?|xielu")
_UNGATED_EXPERTS = re.compile(
    r"relu2?|relu_squared|squared_relu"
)  # experts with GELU are gated wherever they are published (Grok)

# Numbers that look like shapes; those of them that change none (of towers, rotary embedding, training, tokenisers, or that follow
# from others); and those that are read only where they matter (no dense layer, no KV heads beside a latent).
_LOOKS_LIKE_A_SHAPE = re.compile(r".*(_size|_dim|_rank|_heads|_width)|.*num_\w*experts\w*")
_NO_SHAPE = re.compile(
    r"(vision|image|img|patch|spatial|temporal|vit|mm|audio|video|projector|anyres|rotary|rope|ep|tp|pad|org|block|chunk|batch"
    r"|bucket|group|summary|token_type|max)_.*|.*(rotary|rope|group|block|tp|world|batch|window)_(size|dim)|qk_head_dim"
)
_ONLY_FOR_SOME = frozenset({
    "intermediate_size", "intermediate_size_mlp", "ffn_hidden_size", "moe_intermediate_size", "num_key_value_heads", "head_dim",
    "num_kv_heads", "multi_query_group_num", "n_shared_experts", "num_shared_experts", "num_experts_per_tok", "kv_lora_rank",
    "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "shared_expert_intermediate_size", "vocab_size",
    "num_attention_heads", "word_embed_proj_dim", "type_vocab_size", "shared_intermediate_size", "num_experts",
})  # fmt: skip


def config_fields(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of the language model: of the nested config of a multimodal wrapper, with what it inherits from around it."""
    for name in _WRAPPERS:
        inner = raw.get(name)
        if isinstance(inner, dict):
            inherited = {key: raw[key] for key in (*_INHERITED, *_TOWERS) if key in raw}
            return config_fields({**inherited, **inner})
    return raw


def read_config(raw: Mapping[str, Any], name: str, where: str) -> Model:
    """The network that the fields of a config.json (or of a models/*.yaml, which uses the same names) describe.

    Raises InputError, naming file, field, value and what is accepted, for sizes that are missing, out of range or contradictory
    and for fields that change shapes and are not understood.
    """
    return _Reader(_with_defaults(raw, where)).model(name)


def unread_fields(raw: Mapping[str, Any], where: str) -> frozenset[str]:
    """The fields of `raw` that have no say in its Model: a misspelt one is among them."""
    reader = _Reader(_with_defaults(raw, where))
    reader.model("")
    return frozenset(raw) - reader.fields.read


def _with_defaults(raw: Mapping[str, Any], where: str) -> Fields:
    """The config over its family's defaults, nested attn_config and ffn_config (MPT, DBRX) laid flat."""
    nested = {k: v for part in ("attn_config", "ffn_config") if isinstance(raw.get(part), dict) for k, v in raw[part].items()}
    defaults = _families().get(str(raw.get("model_type")), {})
    return Fields({**defaults, **nested, **raw}, where)


@cache
def _families() -> Mapping[str, Mapping[str, Any]]:
    families = read_mapping(Path(__file__).with_name("families.yaml"))
    return {name: fields for name, fields in families.items() if name != "source"}


class _Reader:
    """One config being read."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self._refuse_what_is_not_understood()
        self.hidden = fields.whole("hidden_size", "n_embd", "d_model", "n_embed")
        self.count = fields.whole("num_hidden_layers", "n_layer", "n_layers", "num_layers", most=1_000)
        self.layer_norm = fields.flag("layer_norm")
        self.norms = fields.whole("norms", default=2, most=8)
        self.experts = fields.per_layer(*_EXPERTS, layers=self.count, default=0)

    def model(self, name: str) -> Model:
        fields = self.fields
        encoder = self._is_encoder()
        context, patches = fields.optional(*_CONTEXT, most=10**9), self._patches()
        offset = fields.optional("positions")
        tied = fields.flag("tie_word_embeddings", "tie_embeddings")
        return Model(
            name=name, hidden=self.hidden, vocab=0 if patches else fields.whole("padded_vocab_size", "vocab_size"),
            layers=self._layers(),
            tied=tied and not encoder, head=not encoder, head_bias=fields.flag("head_bias", "lm_head_bias"), causal=not encoder,
            positions=0 if offset is None else (context or 0) + offset, extra_parameters=self._extra(encoder, patches),
            norm_bias=self.layer_norm and not fields.flag("no_bias"), norm_weight=fields.flag("norm_weight", default=True),
            final_norms=1, precision=read_precision(fields), max_context=patches.count + 1 if patches else context or None,
            patches=patches, source=fields.text("source"), notes=tuple(self._notes()),
        )  # fmt: skip

    def _is_encoder(self) -> bool:
        """Stated by the family, or by the head it was trained with."""
        trained = self.fields.get("architectures")
        masked = isinstance(trained, list) and any(str(name).endswith("ForMaskedLM") for name in trained)
        return self.fields.flag("encoder", default=masked)

    def _refuse_what_is_not_understood(self) -> None:
        kinds = self.fields.get("attn_type_list")
        if isinstance(kinds, list) and any(kind != 1 for kind in kinds):
            raise self.fields.error("attn_type_list", kinds, "a list of ones: linear attention (0) is not modelled")
        for key, value in self.fields.raw.items():
            prefix = next((p for p in _NOT_UNDERSTOOD_PREFIXES if key.startswith(p)), "")
            means = _NOT_UNDERSTOOD.get(key) or _NOT_UNDERSTOOD_PREFIXES.get(prefix)
            if means and value not in (None, False, 0, "") and value not in ([], {}):
                raise self.fields.error(key, value, f"a network without {means}, which hwsim does not model")

    def _patches(self) -> Patches | None:
        """Of families that see images only; a tower beside a language model is not read."""
        fields = self.fields
        if not fields.flag("sees_images"):
            return None
        image, size = fields.whole("image_size", most=10_000), fields.whole("patch_size", most=1_000)
        if image % size:
            raise fields.error("patch_size", size, f"a divisor of image_size {image}")
        return Patches(image, size, fields.whole("num_channels", default=3, most=1_000))

    def _extra(self, encoder: bool, patches: Patches | None) -> int:
        """Token types and pooler of BERT; embedding norm of BERT and BLOOM; class token, positions and classifier of ViT."""
        h = self.hidden
        if patches:
            return h + (patches.count + 2) * h + self.fields.whole("num_labels", default=0, least=0) * (h + 1)
        types = self.fields.optional("type_vocab_size") or 0
        for narrow in ("word_embed_proj_dim", "embedding_size"):  # OPT-350M, ALBERT
            width = self.fields.optional(narrow)
            if width is not None and width != h:
                raise self.fields.error(narrow, width, f"the hidden size {h}")
        return (types * h + h * h + h + 2 * h if encoder else 0) + 2 * h * self.fields.flag("embedding_norm")

    def _notes(self) -> list[str]:
        towers = [name for name in _TOWERS if self.fields.raw.get(name)]
        predicted = self.fields.optional("num_nextn_predict_layers", "mtp_num_layers", "num_mtp_modules") or 0
        notes = [f"{', '.join(towers)} left out: only the language model is simulated"] if towers else []
        if predicted:
            notes.append(f"{predicted} multi-token prediction layer(s) left out")
        if "chunk" in self._kinds_of_attention():
            notes.append("chunked attention is taken as a sliding window of the same length")
        unread = [name for name, value in self.fields.raw.items() if self._was_missed(name, value)]
        return [*notes, f"not read: {', '.join(unread)}"] if unread else notes

    def _was_missed(self, name: str, value: Any) -> bool:
        """True for a number that looks like a shape and was not looked at."""
        number = isinstance(value, int) and not isinstance(value, bool) and value > 1
        known = name in self.fields.read or name in _ONLY_FOR_SOME or _NO_SHAPE.fullmatch(name)
        return number and not known and _LOOKS_LIKE_A_SHAPE.fullmatch(name) is not None

    def _layers(self) -> tuple[tuple[Layer, int], ...]:
        """Equal layers folded; with a barrier between layers their order changes no time, energy or memory."""
        networks, windows = self._feed_forwards(), self._windows()
        parallel = self.fields.flag("parallel", "parallel_attn", "use_parallel_residual")
        norms = self._norm_count(parallel)
        every = [
            Layer(self._attention(window), network, norms=norms, parallel=parallel)
            for window, network in zip(windows, networks, strict=True)
        ]
        return tuple(Counter(every).items())

    def _norm_count(self, parallel: bool) -> int:
        """Falcon-7B's parallel block has one norm, Falcon-40B's new architecture two."""
        new = self.fields.flag("new_decoder_architecture")
        return 1 if parallel and not new and self.fields.get("parallel_attn") is not None else self.norms

    # ---- attention -----------------------------------------------------------------------------------------------------------

    def _attention(self, window: int | None) -> Attention | LatentAttention:
        heads = self.fields.whole("num_attention_heads", "n_head", "n_heads", "num_heads")
        rank = self.fields.flag("use_mla", default=True) and self.fields.optional("kv_lora_rank")
        return self._latent(heads, rank, window) if rank else self._plain(heads, window)

    def _plain(self, heads: int, window: int | None) -> Attention:
        fields = self.fields
        dim = fields.optional("head_dim", "kv_channels", "attention_head_dim")
        if not dim and self.hidden % heads:
            raise fields.error("num_attention_heads", heads, f"a divisor of hidden_size {self.hidden}, or head_dim beside it")
        dim = dim or self.hidden // heads
        kv_heads = self._kv_heads(heads)
        if heads % kv_heads:
            raise fields.error("num_key_value_heads", kv_heads, f"a divisor of the {heads} attention heads")
        bias = fields.flag("attention_bias", "use_bias", "bias", "add_bias_linear")
        return Attention(
            heads=heads, kv_heads=kv_heads, head_dim=dim, window=window,
            qkv_bias=bias or fields.flag("qkv_bias", "add_qkv_bias", "use_qkv_bias"), out_bias=bias or fields.flag("out_bias"),
            rope=fields.get("positions") is None and fields.flag("rotary", default=True) and not fields.flag("alibi"),
            qk_norm={"head": 2 * dim, "width": (heads + kv_heads) * dim, "": 0}[self._qk_norm()],
        )  # fmt: skip

    def _qk_norm(self) -> Literal["head", "width", ""]:
        """One norm for the dimensions of a head, one over all heads, or none."""
        stated = self.fields.get("qk_norm", "use_qk_norm", "qk_layernorm")
        if not stated:
            return ""
        return "width" if stated == "width" or self.fields.get("qk_norm_type") == "per_layer" else "head"

    def _kv_heads(self, heads: int) -> int:
        fields = self.fields
        if fields.flag("multi_query") and not fields.flag("new_decoder_architecture"):
            return 1
        if fields.flag("multi_query_attention"):
            return fields.whole("multi_query_group_num", most=heads)
        return fields.whole("num_key_value_heads", "num_kv_heads", "n_head_kv", "kv_n_heads", "n_kv_heads", default=heads)

    def _latent(self, heads: int, rank: int, window: int | None) -> LatentAttention:
        fields = self.fields
        return LatentAttention(
            heads=heads, kv_rank=rank, nope_dim=fields.whole("qk_nope_head_dim"), rope_dim=fields.whole("qk_rope_head_dim"),
            v_dim=fields.whole("v_head_dim"), q_rank=fields.optional("q_lora_rank") or None, window=window,
        )  # fmt: skip

    def _windows(self) -> list[int | None]:
        """The sliding window of each layer, None for full attention."""
        fields = self.fields
        used = fields.flag("use_sliding_window", default=True)
        local = ("window_size",) if fields.get("attention_layers") else ()  # GPT-Neo
        window = fields.optional("sliding_window", "sliding_window_size", "attention_window_size", *local, least=-1)
        chunk = _positive(fields.optional("attention_chunk_size"))
        length = {"full": None, "window": _positive(window) if used else None, "chunk": chunk}
        return [length[kind] for kind in self._kinds_of_attention()]

    def _kinds_of_attention(self) -> list[str]:
        """ "full", "window" or "chunk" for each layer."""
        fields = self.fields
        types = fields.get("layer_types", "attention_layers")
        if isinstance(types, list):
            return self._named_kinds(types)
        if isinstance(fields.get("sliding_window_layout"), list):
            layout = fields.per_layer("sliding_window_layout", layers=self.count, default=0)
            return ["window" if windowed else "full" for windowed in layout]
        if fields.get("sliding_window_pattern", "_sliding_window_pattern"):
            return self._patterned_kinds()
        if fields.optional("attention_chunk_size"):
            return self._chunked_kinds()
        return self._kinds_from_the_first_window()

    def _kinds_from_the_first_window(self) -> list[str]:
        """Qwen 2: the first max_window_layers see everything; elsewhere a window is one of every layer."""
        first = self.fields.optional("max_window_layers") if self.fields.flag("use_sliding_window") else None
        return ["window" if i >= (first or 0) else "full" for i in range(self.count)]

    def _patterned_kinds(self) -> list[str]:
        """A period (Gemma: every n-th layer sees everything) or a word (EXAONE 4: "LLLG")."""
        pattern = self.fields.get("sliding_window_pattern", "_sliding_window_pattern")
        if isinstance(pattern, str):
            return ["full" if pattern[i % len(pattern)].upper() == "G" else "window" for i in range(self.count)]
        period = self.fields.whole("sliding_window_pattern", "_sliding_window_pattern")
        return ["full" if (i + 1) % period == 0 else "window" for i in range(self.count)]

    def _named_kinds(self, types: list[Any]) -> list[str]:
        if len(types) != self.count:
            raise self.fields.error("layer_types", f"{len(types)} entries", f"one for each of the {self.count} layers")
        unknown = next((kind for kind in types if not isinstance(kind, str) or kind not in _LAYER_TYPES), None)
        if unknown is not None:
            raise self.fields.error("layer_types", unknown, ", ".join(_LAYER_TYPES))
        return [_LAYER_TYPES[kind] for kind in types]

    def _chunked_kinds(self) -> list[str]:
        """Llama 4: layers without rotary embedding see everything, by default every fourth."""
        listed = self.fields.get("no_rope_layers")
        if isinstance(listed, list) and len(listed) == self.count:
            return ["chunk" if rotary else "full" for rotary in listed]
        period = self.fields.whole("no_rope_layer_interval", default=4)
        return ["full" if (i + 1) % period == 0 else "chunk" for i in range(self.count)]

    # ---- feed-forward --------------------------------------------------------------------------------------------------------

    def _feed_forwards(self) -> list[FeedForward | MixtureOfExperts]:
        count = self.count
        if not any(self.experts):
            return [self._dense()] * count
        routed, sizes = self._routed_layers(), self._sizes_of_experts()
        return [self._experts(*sizes[i]) if routed[i] and self.experts[i] > 1 else self._dense() for i in range(count)]

    def _sizes_of_experts(self) -> list[tuple[int, int, int, int]]:
        """Experts, top-k, inner size and inner size of the shared expert (0 for none) of each layer."""
        fields, count = self.fields, self.count
        top_k = fields.per_layer(*_TOP_K, layers=count, default=0)
        inner = fields.per_layer(*_EXPERT_INNER, layers=count, default=0)
        width = fields.per_layer(*_SHARED_WIDTH, layers=count, default=0)
        number = fields.per_layer(*_SHARED_NUMBER, layers=count, default=int(fields.flag("implicit_shared")))
        usual = 0 if all(inner) else fields.whole("intermediate_size", "ffn_hidden_size")
        inner = [size or usual for size in inner]
        return [(self.experts[i], top_k[i], inner[i], width[i] or number[i] * inner[i]) for i in range(count)]

    def _dense(self) -> FeedForward:
        fields = self.fields
        inner = fields.optional("intermediate_size_mlp", "dense_intermediate_size", "intermediate_size", "n_inner", "ffn_dim")
        inner = inner or fields.optional("ffn_hidden_size", "expansion_size") or self._expanded()
        return self._network(inner // 2 if fields.flag("inner_halved") else inner)

    def _expanded(self) -> int:
        """Families whose config has no inner size use a multiple of the hidden size, four unless stated."""
        return self.hidden * self.fields.whole("expansion_ratio", default=4, most=64)

    def _network(self, inner: int) -> FeedForward:
        if inner < 1:
            raise self.fields.error("intermediate_size", inner, "at least 1")
        bias = self.fields.flag("mlp_bias", "use_bias", "bias", "use_mlp_bias", "add_bias_linear")
        return FeedForward(inner, gated=self._gated(), bias=bias, neurons=self._neurons())

    def _neurons(self) -> Neurons | None:
        """Measured use of the neurons, if `neurons` (of models/*.yaml) says it: see hwsim/activity.py."""
        raw = self.fields.get("neurons")
        if raw is None:
            return None
        try:
            return read_neurons(raw)
        except (InputError, KeyError, TypeError, ValueError, AttributeError):
            accepted = (
                "window (tokens, above 1), cached and new (parts of all neurons, new < cached / window < 1), rank, active, source"
            )
            raise self.fields.error("neurons", raw, accepted) from None

    def _gated(self) -> bool:
        """Stated by the family, else by the activation: plain ReLU and GELU networks have two matrices, SiLU ones three."""
        stated = self.fields.get("gated", "gated_mlp", "is_gated_act", "use_gated_mlp")
        if isinstance(stated, bool):
            return stated
        activation = self.fields.get("hidden_act", "hidden_activation", "activation_function", "hidden_activation_function")
        ungated = _UNGATED_EXPERTS if any(self.experts) else _UNGATED
        return not ungated.fullmatch(str(activation or "silu").lower())

    def _experts(self, experts: int, top_k: int, inner: int, shared: int) -> MixtureOfExperts:
        fields = self.fields
        if not 1 <= top_k <= experts:
            raise fields.error("num_experts_per_tok", top_k, f"1 to the {experts} experts")
        if fields.flag("residual_moe"):  # Grok 2: a dense network beside the experts
            shared = fields.whole("intermediate_size")
        return MixtureOfExperts(
            experts=experts, top_k=top_k, expert=self._network(inner), shared=self._network(shared) if shared else None,
            router_bias=fields.flag("router_bias", "use_routing_bias") or fields.text("topk_method") == "noaux_tc",
            shared_gate=fields.flag("shared_gate"),
        )  # fmt: skip

    def _routed_layers(self) -> list[bool]:
        """Which layers are mixtures of experts: every rule that a config states must agree."""
        rules = (self._routed_by_list(), self._routed_by_range(), self._routed_by_frequency())
        return [all(agreed) for agreed in zip(*rules, strict=True)]

    def _routed_by_list(self) -> list[bool]:
        """Layers named one by one, or every n-th; those named as dense taken away."""
        kinds, listed = self.fields.get("mlp_layer_types"), self.fields.indices("moe_layers", "moe_layers_enum")
        dense = self.fields.indices("mlp_only_layers") or []
        if isinstance(kinds, list) and len(kinds) == self.count:
            return [kind == "sparse" for kind in kinds]
        if listed:
            return [i in listed and i not in dense for i in range(self.count)]
        return [(i + 1) % self._step() == 0 and i not in dense for i in range(self.count)]

    def _routed_by_range(self) -> list[bool]:
        """From the first layer that is not dense to the last one stated, -1 being the last of all."""
        fields = self.fields
        first = fields.whole(
            "first_k_dense_replace", "moe_layer_start_index", "num_dense_layers", "moe_layer_num_skipped", default=0, least=0
        )
        last = fields.whole("moe_layer_end_index", default=-1, least=-1)
        return [first <= i and (last < 0 or i <= last) for i in range(self.count)]

    def _routed_by_frequency(self) -> list[bool]:
        """moe_layer_freq as one number (DeepSeek) or as a list of 0 and 1; expert_layer_period with its offset."""
        fields = self.fields
        period, offset = fields.optional("expert_layer_period") or 1, fields.whole("expert_layer_offset", default=0, least=0)
        often = fields.per_layer("moe_layer_freq", layers=self.count, default=1)
        listed = isinstance(fields.get("moe_layer_freq"), list)
        return [
            i % period == offset % period and (bool(often[i]) if listed else i % max(often[i], 1) == 0) for i in range(self.count)
        ]  # fmt: skip

    def _step(self) -> int:
        return self.fields.whole("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval", default=1)


_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx", "max_sequence_length")
_EXPERTS = (
    "num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts", "num_routed_experts", "moe_num_primary_experts",
)  # fmt: skip
_TOP_K = (
    "num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_top_k", "moe_topk", "moe_k", "num_selected_experts",
    "moe_num_active_primary_experts",
)  # fmt: skip
_SHARED_WIDTH = (
    "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "shared_intermediate_size",
    "shared_expert_ffn_hidden_size",
)  # fmt: skip
_SHARED_NUMBER = ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts")
_EXPERT_INNER = ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size", "expert_intermediate_size")


def read_neurons(raw: Mapping[str, Any]) -> Neurons:
    """`window`, `cached`, `new`, and where they are known `rank` (or [layers, rank] pairs) and `active` of some layers."""
    if raw.keys() - {"window", "cached", "new", "rank", "active", "source"}:
        raise ValueError
    ranks = raw.get("rank", 0)
    pairs = [[1, ranks]] if isinstance(ranks, int | float) else ranks
    rank = sum(count * one for count, one in pairs) / sum(count for count, _ in pairs)
    found = Neurons(
        float(raw["window"]), _part(raw["cached"]), _part(raw["new"]), float(rank), tuple(map(_part, raw.get("active", ())))
    )
    if not (found.window > 1 and 0 < found.new < found.cached <= 1 and 0 < found.exponent < 1 and rank >= 0):
        raise ValueError
    return found


def _part(value: object) -> float:
    """24 % or 0.24."""
    text = str(value)
    return parse(text, "") if not text.endswith("%") else float(text[:-1]) / 100


def _positive(size: int | None) -> int | None:
    """None for no window, which some configs write as 0 or -1."""
    return size if size is not None and size > 0 else None
