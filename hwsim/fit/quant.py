"""The measured tables' words for number formats."""

from __future__ import annotations

from typing import NamedTuple

from hwsim.formats import nbytes


class Quant(NamedTuple):
    """Name of the parameter set, format of the peak it computes at, and formats of activations and weights in memory."""

    format: str
    peak: str
    activations: str
    weights: str

    @property
    def a_bytes(self) -> float:
        """Bytes per activation, scales included."""
        return nbytes(self.activations)

    @property
    def w_bytes(self) -> float:
        """Bytes per weight, scales included."""
        return nbytes(self.weights)


QUANT = {
    "bfloat16": Quant("bf16", "bf16", "bf16", "bf16"),
    "fp8": Quant("fp8", "fp8", "fp8", "fp8"),
    "fp8_block": Quant("fp8_block", "fp8", "fp8", "fp8"),  # one scale for 128 x 128 weights lies beside them
    "nvfp4": Quant("nvfp4", "fp4", "nvfp4", "nvfp4"),
    "int8_wo": Quant("int8_wo", "bf16", "bf16", "int8"),
    "int4_wo": Quant("int4_wo", "bf16", "bf16", "int4"),
    "sq": Quant("int8", "int8", "int8", "int8"),
    "w4a16_mxfp4": Quant("mxfp4_bf16", "bf16", "bf16", "mxfp4"),
    "w4a8_mxfp4_mxfp8": Quant("mxfp4_mxfp8", "fp8", "mxfp8", "mxfp4"),
}
