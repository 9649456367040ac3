"""The layers that a released simulator of arrays charges for a network, instead of the network's own: `quirks: as-published`.

From MixPE's lists (arXiv:2411.16158, the authors' simulator): only the patch embedding and the linear layers of the blocks;
a feed-forward network is two matrices of four times the hidden size; a patch is 16 x 16 pixels of 224 x 224 in three colours.
Both operands of a layer have one width (`hwsim.device.Published`). Scales are pseudo-layers that were sized for 8 rows whatever
the rows: n / 8 more columns where weights are scaled before the product, a product of k / 8 and n / 128 (a group) where partial
sums are scaled after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from math import floor

from hwsim.device import Published, SystolicArray, format_of
from hwsim.errors import InputError
from hwsim.lowering.convolution import convolution
from hwsim.op import Conv, Experts, Gemm, Op

ROWS, GROUP, FEED_FORWARD = 8, 128, 4
LINEAR = ("qkv", "out", "ffn")


def as_published(ops: Sequence[Op], array: SystolicArray) -> list[Op]:
    """The released layers of the network behind `ops`, each with its scales; one after another.

    Raises InputError for a network that such lists have no layers for: experts, or more than the one convolution of patches.
    """
    assert array.published is not None  # an array that is charged so has it
    if any(isinstance(op, Experts) for op in ops) or sum(isinstance(op, Conv) for op in ops) > 1:
        raise InputError("quirks: as-published; the released lists have dense transformers only; accepted here: none")
    kept = [op for op in ops if isinstance(op, Gemm) and (op.kind in LINEAR or isinstance(op, Conv))]
    parts = (part for _, block in groupby(kept, lambda op: op.block) for part in _divided(list(block), array.published))
    return _in_a_row(one for gemm in parts for one in _with_scales(gemm, array))


def _divided(block: list[Gemm], style: Published) -> Iterator[Gemm]:
    """A folded block as two: those of its repetitions that have narrow layers, and those that have none."""
    repeat = block[0].repeat
    many = floor(style.wide_blocks * repeat)
    for suffix, count, narrow in (("", repeat - many, style.narrow_kinds), (".wide", many, ())):
        for op in block if count else ():
            format = format_of(style.narrow if op.kind in narrow else style.wide)
            formats = {"weights": format, "activations": format, "stream": "fp16"}
            yield replace(_reshaped(op), name=f"{op.name}{suffix}", block=f"{op.block}{suffix}", repeat=count, **formats)  # type: ignore[arg-type]


def _reshaped(op: Gemm) -> Gemm:
    if isinstance(op, Conv):
        return convolution(
            op.name, op.kind, images=op.m / op.side**2, side=224, channels=3, filters=int(op.n), kernel=16, stride=16,
            block=op.block, repeat=op.repeat, split=op.split,
        )  # fmt: skip
    if op.kind != "ffn":
        return op
    return replace(op, n=FEED_FORWARD * op.k) if op.split == "columns" else replace(op, k=FEED_FORWARD * op.n)


def _with_scales(op: Gemm, array: SystolicArray) -> Iterator[Gemm]:
    assert array.published is not None
    yield op
    if isinstance(op, Conv):
        return
    n, k = (op.n // ROWS, op.k) if array.dequantise == "before" else (max(op.n // GROUP, 1.0), op.k // ROWS)
    format = format_of(array.published.wide)
    formats = {"weights": format, "activations": format}
    yield replace(op, name=f"{op.name}.scales", kind="scales", n=n, k=k, tied=True, kv_columns=0.0, **formats)  # type: ignore[arg-type]


def _in_a_row(ops: Iterable[Op]) -> list[Op]:
    """Every op after the one before it."""
    found: list[Op] = []
    for op in ops:
        found.append(replace(op, after=(found[-1].name,) if found else ()))
    return found
