"""Fused mixture-of-experts layer on a GPU: seconds of one expert feed-forward, from permuting tokens to adding up their results.

    t = launch + expert x local experts + (compute^blend + weights^blend)^(1/blend) + permute
    compute = least over row tiles of: sum over the two grouped GEMMs of
              ceil(tiles / SMs) x (2 (rows + extra) x columns x k / (peak x fraction / SMs) x slow + setup)   [s]
    slow    = unaligned (0: not in this kernel) where k is no multiple of 16 elements, else 1
    tiles   = ceil(n / columns) x sum over experts of ceil(tokens of the expert / rows)
    weights = active experts x matrices x hidden x inter x bytes / (DRAM bandwidth x fraction)               [s]
    permute = (pairs here x local + pairs of other ranks x dropped) x (outer + inner bytes) / (DRAM bandwidth x fraction)

The first GEMM multiplies gate and up at once (n = (matrices - 1) x inter, k = hidden), the second down (n = hidden, k =
inter). Every expert pads its tokens to a row tile of its own: that, the number of experts that are hit, and the most loaded
rank are what skewed routing costs. A pair (token, expert) moves its hidden vector in (activation format) and out (2 bytes,
then read again for the sum): outer bytes; and the inner vector out and in twice around the activation function: inner bytes.
`dropped`: Triton kernels also run these passes over pairs whose expert lives on another rank. `extra` rows say that a tile of few
rows is bound by streaming weights, not by its rows. `unaligned`: Triton does not load rows of such lengths 16 bytes at a time.

Experts come in classes: `count` (expected) experts that each hold `load` tokens, classes on the first axis; experts without
tokens are in none. One class is balanced routing; about ten describe a power law of 512 experts.

Where it comes from: grouped GEMM tiles as in CUTLASS, FlashInfer and the Triton kernel of vLLM and SGLang; fitted on
moe_kernels. `untuned` = 1 selects Triton's default tiles (64 x 64, or 16 x 32 while tokens <= local experts), which run where
no tuned table is shipped. `rows`: tiles of DeepGEMM have 64 rows or more, as many as Hopper's tensor cores take at once.
`foreign` = 1: the kernel knows no experts elsewhere, and one of its own computes those pairs, for nothing. Left out: autotuner
failures (3-9 times slower rows), the few shapes for which Triton has a tuned table (up to 1.6 times faster than its default
tiles), shared experts, routing itself, communication, L2 hits of intermediate results.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hwsim.kernels.chip import Chip, Parameter
from hwsim.op import Array

Floats = NDArray[np.float64]

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("launch", "s", 20e-6, 0.5e-6, 300e-6, "all launches of the layer: sort, two GEMMs, activation, sum"),
    Parameter("expert", "s", 0.05e-6, 0.0, 3e-6, "bookkeeping for each expert on this device"),
    Parameter("compute", "", 0.8, 0.05, 1.1, "matrix peak reached by full tiles, of the datasheet's"),
    Parameter("dram", "", 0.8, 0.3, 1.0, "DRAM bandwidth reached, of the datasheet's"),
    Parameter("extra", "", 32.0, 0.0, 2000.0, "rows added to each tile: the time to stream its weights"),
    Parameter("setup", "s", 1e-6, 0.0, 20e-6, "prologue and epilogue of one wave of tiles"),
    Parameter("local", "", 1.0, 0.0, 6.0, "element-wise traffic of pairs computed here, of the minimum"),
    Parameter("dropped", "", 0.05, 0.0, 3.0, "the same of pairs computed elsewhere"),
    Parameter("unaligned", "", 4.0, 1.0, 20.0, "time of a product over rows not loaded 16 bytes at a time, of others'", off=True),
    Parameter(
        "blend", "", 3.0, 1.0, 8.0, "how compute and weight streaming overlap: 1 = one after the other, large = the longer one"
    ),
)

# which kernel a stack picks; part of a set, never fitted
SELECTION: tuple[Parameter, ...] = (
    Parameter("untuned", "", 0.0, 0.0, 1.0, "1 = Triton's default tiles, 0 = the best row tile"),
    Parameter("rows", "", 16.0, 16.0, 128.0, "fewest rows of a tile, where the best one runs"),
    Parameter("foreign", "", 0.0, 0.0, 1.0, "1 = one expert here computes the pairs of other ranks too"),
)

_ROWS = np.array([16.0, 32.0, 64.0, 128.0])
_COLUMNS = 128.0
_ALIGNED = 16.0  # elements
_DEFAULT_ROWS, _DEFAULT_COLUMNS = np.array([16.0, 64.0]), np.array([32.0, 64.0])


def moe(
    *,
    load: Floats,
    count: Floats,
    tokens: Array,
    topk: Array,
    hidden: Array,
    inter: Array,
    matrices: Array,
    local: Array,
    weight_bytes: Array,
    activation_bytes: Array,
    chip: Chip,
    p: Mapping[str, float],
) -> Array:
    """Seconds. `tokens` and `topk` of the whole expert-parallel group, `local` experts on this device, `inter` on this device.

    `load` and `count` have classes of experts first; everything else broadcasts over their further axes.
    """
    pairs = (load * count).sum(axis=0)
    elsewhere = np.maximum(tokens * topk - pairs, 0.0)
    foreign = elsewhere * p["foreign"]
    bandwidth = chip.dram * p["dram"]
    weights = count.sum(axis=0) * (matrices * hidden * inter * weight_bytes) / bandwidth
    products = ((matrices - 1.0) * inter, hidden), (hidden, inter)
    compute = _compute(load, count, foreign, np.less_equal(tokens, local), products, chip, p)
    permute = _permute(pairs + foreign, elsewhere - foreign, hidden, inter, matrices, activation_bytes, p) / bandwidth
    blend = p["blend"]
    seconds: Array = p["launch"] + p["expert"] * local + (compute**blend + weights**blend) ** (1.0 / blend) + permute
    return seconds


def _compute(
    load: Floats,
    count: Floats,
    foreign: Array,
    few: Array,
    products: tuple[tuple[Array, Array], tuple[Array, Array]],
    chip: Chip,
    p: Mapping[str, float],
) -> Array:
    """Tile waves of both GEMMs, (n, k) each; row tiles are a first axis that is then chosen from."""
    default = p["untuned"] > 0.5
    axes = (-1, *[1] * max(load.ndim - 1, np.ndim(products[0][0]), np.ndim(chip.peak)))
    able = _ROWS[p["rows"] <= _ROWS]
    tiles = (_DEFAULT_ROWS, _DEFAULT_COLUMNS) if default else (able, np.full_like(able, _COLUMNS))
    rows, columns = (np.reshape(size, axes) for size in tiles)
    blocks = _row_tiles(load, count, rows) + np.ceil(foreign / rows - 1e-9)
    rate = chip.peak * p["compute"] / chip.sms
    seconds: Array = 0.0
    unaligned = p["unaligned"] or 1.0
    for n, k in products:
        waves = np.ceil(blocks * np.ceil(n / columns) / chip.sms - 1e-9)
        slow = np.where(np.mod(k, _ALIGNED) == 0.0, 1.0, unaligned)
        seconds = seconds + waves * (2.0 * (rows + p["extra"]) * columns * k / rate * slow + p["setup"])
    by_tile: Floats = np.asarray(seconds)
    chosen: Floats = np.where(few, by_tile[0], by_tile[1]) if default else by_tile.min(axis=0)
    return chosen


def _permute(
    here: Array, elsewhere: Array, hidden: Array, inter: Array, matrices: Array, activation_bytes: Array, p: Mapping[str, float]
) -> Array:
    """Bytes that gathering, the activation function and adding up move for pairs here and for pairs of other ranks."""
    outer = hidden * (activation_bytes + 4.0)
    inner = inter * ((matrices - 1.0) * 4.0 + 2.0 * activation_bytes)
    return (here * p["local"] + elsewhere * p["dropped"]) * (outer + inner)


def _row_tiles(load: Floats, count: Floats, rows: Floats) -> Floats:
    """Row tiles over all experts, for each size of tile: every expert fills up its own."""
    total = sum(c * np.ceil(tokens / rows - 1e-9) for tokens, c in zip(load, count, strict=True))
    return np.asarray(total)
