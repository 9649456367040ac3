"""Inference engines on microcontrollers: cycles of one op on feature maps, and the memory that the engine takes for itself.

    cycles = layer + element x results + (cycles per multiply-accumulate of its sort of kernel) x multiply-accumulates x narrow
    narrow = (bits of the narrower operand / 8)^exponent, 1 from 8 bit on

Cortex-M cores with the DSP extension multiply two pairs of 16-bit numbers in one instruction; 8-bit operands are widened first
(Lai et al., arXiv:1801.06601), so a kernel takes 1 to 5 cycles a multiply-accumulate, more where operands are used once
(depthwise). `element` is what a result takes: requantisation, and the address arithmetic of a window. Narrower operands save no
arithmetic by themselves, but loads, and several may share a product (arXiv:2407.18267): one exponent stands for that.
Memory: `in_place` 1 where depthwise results overwrite their input (MCUNet, arXiv:2007.10319), `columns` windows kept widened
to 16 bit (im2col), `maps` what a byte of maps takes, `sram` and `flash` bytes of runtime and code. Left out: caches and wait
states, which are in the cycles.
"""

from __future__ import annotations

from collections.abc import Mapping

from hwsim.kernels.chip import Parameter
from hwsim.op import Array

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("conv", "", 1.5, 0.5, 100.0, "cycles per multiply-accumulate of a convolution"),
    Parameter("depthwise", "", 3.0, 0.5, 200.0, "cycles per multiply-accumulate where every channel is a group"),
    Parameter("pointwise", "", 1.5, 0.5, 100.0, "cycles per multiply-accumulate of a window of one pixel"),
    Parameter("dense", "", 2.0, 0.5, 100.0, "cycles per multiply-accumulate of a dense layer"),
    Parameter("element", "", 5.0, 0.0, 2000.0, "cycles per result"),
    Parameter("layer", "", 3000.0, 0.0, 1e6, "cycles per layer"),
    Parameter("exponent", "", 0.0, 0.0, 1.0, "of bits over 8, for operands below 8 bit"),
    Parameter("in_place", "", 1.0, 0.0, 1.0, "1: depthwise results overwrite their input"),
    Parameter("maps", "", 1.0, 1.0, 2.0, "bytes taken for a byte of maps: gaps of the allocator"),
    Parameter("columns", "", 2.0, 0.0, 8.0, "windows that are kept in 16 bit"),
    Parameter("sram", "B", 0.0, 0.0, 1e7, "runtime, stack, tables of tensors"),
    Parameter("flash", "B", 0.0, 0.0, 1e7, "code and the description of the network"),
)


def microcontroller(*, kind: str, macs: Array, results: Array, bits: float, p: Mapping[str, float]) -> Array:
    """Cycles of one op of `kind` ("conv", "depthwise", "pointwise", "dense", others without multiply-accumulates)."""
    each: float = p.get(kind, 0.0) * min(bits / 8.0, 1.0) ** p["exponent"]
    return p["layer"] + p["element"] * results + each * macs
