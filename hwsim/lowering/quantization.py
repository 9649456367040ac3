"""How a checkpoint is stored: torch_dtype and quantization_config of a config.json -> Precision.

Read: fp8 (per tensor or in blocks), compressed-tensors, ModelOpt (FP8, NVFP4), GPTQ, AWQ, bitsandbytes, HQQ, MXFP4 on experts.
Embedding, LM head and router stay in the network's own 16 bits, as all of these leave them. A KV cache format is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hwsim.errors import InputError
from hwsim.formats import bits
from hwsim.lowering.fields import Fields
from hwsim.lowering.model import Precision

_DTYPES = {
    "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32", "auto": "bf16",
    "float8_e4m3fn": "bf16",  # weights in fp8 are described by quantization_config; what flows between layers is 16 bit
}  # fmt: skip

_MODELOPT = {
    "FP8": ("fp8", "fp8"), "FP8_PER_CHANNEL_PER_TOKEN": ("fp8", "fp8"), "FP8_PB_WO": ("fp8_block", "fp8"),
    "NVFP4": ("nvfp4", "nvfp4"), "W4A16_AWQ": ("int4_g128", ""), "W4A8_AWQ": ("int4_g128", "fp8"),
}  # fmt: skip
_LAYER = re.compile(r"layers?\.(\d+)\.")


def read_precision(fields: Fields) -> Precision:
    """Formats of weights, activations, stream and KV cache that `fields` state. InputError for an unknown method or dtype."""
    name = fields.text("dtype", "torch_dtype", default="bfloat16").removeprefix("torch.")
    if name not in _DTYPES:
        raise fields.error("torch_dtype", name, ", ".join(_DTYPES))
    dtype = _DTYPES[name]
    plain = Precision(attention=dtype, feed_forward=dtype, experts=dtype, head=dtype, activations=dtype, stream=dtype, kv=dtype)
    stated = fields.get("quantization_config", "compression_config")
    if stated is None:
        return plain
    if not isinstance(stated, dict):
        raise fields.error("quantization_config", stated, "a mapping with quant_method")
    layers = fields.optional("num_hidden_layers", "n_layer", "n_layers", "num_layers") or 0
    return _Quantization(Fields(stated, f"{fields.where}: quantization_config"), plain, layers).precision()


class _Quantization:
    """One quantization_config and the unquantised formats it changes."""

    def __init__(self, fields: Fields, plain: Precision, layers: int) -> None:
        self.fields, self.plain, self.layers = fields, plain, layers

    def precision(self) -> Precision:
        method = self.fields.text("quant_method", "quant_type", default="").replace("_", "-").lower()
        readers = {
            "fp8": self._fp8, "fbgemm-fp8": self._fp8, "compressed-tensors": self._compressed, "modelopt": self._modelopt,
            "gptq": self._weight_only, "awq": self._weight_only, "auto-round": self._weight_only, "hqq": self._weight_only,
            "bitsandbytes": self._bitsandbytes, "mxfp4": self._mxfp4,
        }  # fmt: skip
        if method not in readers:
            raise self.fields.error("quant_method", method or None, ", ".join(readers))
        return readers[method]()

    def _fp8(self) -> Precision:
        block = self.fields.get("weight_block_size")
        return self._with("fp8_block" if block else "fp8", "fp8")

    def _mxfp4(self) -> Precision:
        """gpt-oss: experts in MXFP4, read with 16-bit activations; attention as it was."""
        return replace(self.plain, experts="mxfp4")

    def _weight_only(self) -> Precision:
        width = self.fields.whole("bits", "w_bit", "nbits", default=4, most=8)
        group = self.fields.get("group_size", "q_group_size")
        return self._with(_integer(width, group), self.plain.stream)

    def _bitsandbytes(self) -> Precision:
        if self.fields.flag("load_in_8bit", "_load_in_8bit"):
            return self._with("int8", "int8")
        return self._with("int4_g64", self.plain.stream)

    def _modelopt(self) -> Precision:
        """Written like compressed-tensors in newer exports, as the name of an algorithm in older ones."""
        nested = self.fields.get("quantization")
        self.fields = Fields({**self.fields.raw, **(nested if isinstance(nested, dict) else {})}, self.fields.where)
        if self.fields.get("config_groups"):
            return self._compressed()
        algorithm = self.fields.text("quant_algo").upper()
        if algorithm not in _MODELOPT:
            raise self.fields.error("quant_algo", algorithm or None, ", ".join(_MODELOPT))
        weights, activations = _MODELOPT[algorithm]
        quantised = self._with(weights, activations or self.plain.stream)
        cache = self.fields.text("kv_cache_quant_algo").lower()
        return replace(quantised, kv=cache) if cache in ("fp8", "int8", "nvfp4") else quantised

    def _compressed(self) -> Precision:
        """compressed-tensors: the first config group stands for all linear layers."""
        groups = self.fields.get("config_groups")
        first = next(iter(groups.values()), None) if isinstance(groups, dict) else None
        if not isinstance(first, dict) or not isinstance(first.get("weights"), dict):
            raise self.fields.error("config_groups", groups, "a mapping of groups with `weights`")
        weights = _scheme(first["weights"], self.fields)
        read = first.get("input_activations")
        quantised = self._with(weights, _scheme(read, self.fields) if isinstance(read, dict) else self.plain.stream)
        cache = self.fields.get("kv_cache_scheme")
        return replace(quantised, kv=_scheme(cache, self.fields)) if isinstance(cache, dict) else quantised

    def _with(self, weights: str, activations: str) -> Precision:
        """All linear layers quantised but those that are left alone in every layer: attention, shared experts."""
        changed = replace(self.plain.with_weights(weights), activations=activations)
        attention = self.plain.attention if self._kept("attn", "attention") else weights
        shared = self.plain.feed_forward if self._kept("shared_experts", "shared_expert") else weights
        return replace(changed, attention=attention, feed_forward=shared)

    def _kept(self, *modules: str) -> bool:
        """True when a pattern leaves such a module alone in all layers, or names do in more than half of them."""
        stated = self.fields.get("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules")
        names = [name.strip("*.^$\\") for name in stated if isinstance(name, str)] if isinstance(stated, list) else []
        named = [_LAYER.search(name) for name in names if name.endswith(modules)]
        numbers = {match[1] for match in named if match}
        return None in named or 2 * len(numbers) > max(self.layers, 1)


def _scheme(scheme: Mapping[str, Any], fields: Fields) -> str:
    """{num_bits, type, group_size, strategy} -> a format name."""
    part = Fields(scheme, fields.where)
    width, kind = part.whole("num_bits", most=16), part.text("type", default="int")
    group = part.get("group_size")
    if kind == "float" and width == 4:
        return "nvfp4" if group == 16 else "mxfp4"
    if kind == "float" and width == 8:
        return "fp8_block" if part.text("strategy") == "block" else "fp8"
    if width == 16:
        return "bf16" if kind == "float" else "int16"
    return _integer(width, group)


def _integer(width: int, group: object) -> str:
    """int4_g128 when groups are of a size we know, int4 per channel otherwise."""
    name = f"int{width}_g{group}"
    try:
        bits(name)
    except InputError:
        return f"int{width}"
    return name
