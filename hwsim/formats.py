"""Number formats: how many bits an element takes in memory, and which formats a unit may multiply it in.

These are definitions of the formats (IEEE 754, OCP FP8 and MX, NVFP4), not hardware numbers. Block formats count their
scales: MXFP4 has one 8-bit scale per 32 elements, NVFP4 one 8-bit scale per 16, fp8_block one fp32 scale per 128 x 128 tile.
"analog" is a weight as two memory cells, each of the one bit that the capacity of a macro counts it as.
Group-scaled integers are written int4_g128: 4 bits and one 16-bit scale per 128 elements; int3.5 is a mix of widths of that mean.
2:4 sparse ones end in _24: two of four elements are kept, each with its place in two bits.
"""

from __future__ import annotations

import re
from functools import lru_cache

from hwsim.errors import InputError

BITS = {
    "fp32": 32.0, "tf32": 32.0, "bf16": 16.0, "fp16": 16.0, "fp8": 8.0, "fp4": 4.0,
    "fp8_block": 8 + 32 / 128**2, "mxfp8": 8 + 8 / 32, "mxfp6": 6 + 8 / 32, "mxfp4": 4 + 8 / 32, "nvfp4": 4 + 8 / 16,
    "analog": 2.0,
}  # fmt: skip

# What an operand in this format may be multiplied as, narrowest first: a unit takes the first it has a peak for.
# Going wider means dequantising on the way, as kernels do on a unit without the narrow format.
_WIDER = {
    "fp4": ("fp8", "bf16", "fp16", "fp32"),
    "fp8": ("bf16", "fp16", "fp32"),
    "int4": ("int8", "bf16", "fp16", "fp32"),
    "int8": ("bf16", "fp16", "fp32"),
    "bf16": ("fp16", "fp32"),
    "fp16": ("bf16", "fp32"),
    "tf32": ("fp32",),
    "fp32": (),
}
_INTEGER = re.compile(r"int([1-8]|[1-7]\.\d{1,3}|16)(?:_g(16|32|64|128|256))?(_24)?")


@lru_cache(maxsize=256)
def bits(name: str) -> float:
    """Bits per element in memory, scales included. InputError for an unknown format."""
    if name in BITS:
        return BITS[name]
    match = _INTEGER.fullmatch(name)
    if match is None:
        raise InputError(
            f"number format {name!r} is not known; accepted: {', '.join(BITS)}, intN or intN_gGROUP, and _24 for 2:4 sparse"
        )
    width = float(match[1]) / 2 + 1 if match[3] else float(match[1])
    return width + (16 / int(match[2]) if match[2] else 0.0)


def nbytes(name: str) -> float:
    """Bytes per element in memory, scales included."""
    return bits(name) / 8


def stored(name: str) -> float:
    """Part of the elements that is stored and multiplied: half of 2:4 sparse weights, on hardware that can skip the others."""
    return 0.5 if name.endswith("_24") else 1.0


@lru_cache(maxsize=256)
def group(name: str) -> int | None:
    """Elements that share a scale within a row; None for formats with one scale for a row or tensor, or none."""
    blocks = {"mxfp8": 32, "mxfp6": 32, "mxfp4": 32, "nvfp4": 16, "fp8_block": 128}
    match = _INTEGER.fullmatch(name)
    return int(match[2]) if match and match[2] else blocks.get(name)


@lru_cache(maxsize=256)
def multiplied_in(left: str, right: str) -> str:
    """The format in which operands stored as `left` and `right` are multiplied: the wider of the two."""
    return _plain(left if bits(left) >= bits(right) else right)


@lru_cache(maxsize=256)
def candidates(precision: str) -> tuple[str, ...]:
    """Formats a unit may use for `precision`, best first."""
    return (precision, *_WIDER.get(precision, ()))


def _plain(name: str) -> str:
    """The arithmetic format behind a storage format: int4_g128 -> int4, mxfp4 -> fp4, fp8_block -> fp8."""
    if name.startswith("int"):
        width = bits(name.split("_", maxsplit=1)[0])
        return "int4" if width <= 4 else "int8" if width <= 8 else "int16"
    for plain in ("fp4", "fp8"):
        if plain in name:
            return plain
    return "fp8" if name == "mxfp6" else name
