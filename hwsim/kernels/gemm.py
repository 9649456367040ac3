"""GEMM on a GPU: the best tile and split of the reduction, waves of tiles over the SMs, overlapped with memory traffic.

An output of m x n is cut into tiles of tm x tn, each reduced over k/s by one SM; tiles run in waves of one tile per SM:

    waves  = ceil(groups x ceil(m / tm) x ceil(n / tn) x s / SMs)
    depth  = ceil(k / (s x K)) x K               K: elements of the wider operand in 128 bytes, one step of the main loop
    mul    = 2 tm tn SMs (1 / (peak x compute) + promote / (scaled x vector))             s per element of k, on one SM
    tiles  = waves x (depth x (max(mul, (tm a + tn w) / (l2 x clock)) + step / K) + tm tn o / (store x clock))
    memory = cold / (bandwidth x dram) + warm / (l2 x clock x SMs) + reread x repeated / bandwidth             in bytes
    busy   = min over tiles and s of (tiles^3 + memory^3)^(1/3) + [s > 1] (split + 8 s m n groups / (l2 x clock x SMs))
    slow   = 1 + throttle x peak / vector x share x h / (1 + h)        h = (busy / window)^2
    time   = max(launch + busy x slow + quantised x max(passes x m k (2 + a) / bandwidth, row x m), host)

a, w, o are bytes per element of activations, weights and output. `compute` and `dram` are fractions of the datasheet; `l2` and
`store` the bytes per clock and SM that the caches feed to a tile and take from its end; `step` the latency of one step; `split`
the pass that adds partial sums. `promote`: with a scale for every `scaled` elements of k, partial sums are scaled and added on
the vector units. `throttle`: kernels of `window` or longer run into the power cap, by `share`, the part of the time in which the
matrix units work, and by how much stronger these are than the vector units (H20: hardly). `passes` and `row`: the activation
quantisation within a quantised linear layer. `host`: an eager launch takes at least that.

Warm bytes come from the last-level cache: activations if one call's operands fit, weights if those of `copies` calls do (a
benchmark cycles through a few copies; in a network every layer has its own, copies = inf). The cold share rises from 0 to 1 as
that grows from `resident` to twice `resident` of the cache. Weights that do not stay are read again for each row of waves.

Kernel selection belongs to the software (`slices`, `tiles`): cuBLAS-like stacks take the best matrix tile and a split of up to
`slices`; older CUTLASS heuristics climb a ladder (64x64 up to 64 rows, 64x128 up to 128, then 128x128); DeepGEMM's tiles have
64 rows or more; fp32 outside the matrix units has its own.

From: tiles, waves and split-K, gpu_kernels.facts; promotion and the ladder, how DeepGEMM and vLLM's CUTLASS are known to work,
recalled and not looked up; the rest from measurements. That `throttle` is the power cap is inferred from how the loss grows with
kernel time, not measured; in some sets it takes up other losses of large kernels. Left out: tile order, persistent and 2-SM
kernels, alignment of n and k, badly selected kernels (neighbouring shapes scatter by 5-20 % where a library picks badly).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwsim.kernels.chip import Chip, Parameter
from hwsim.op import Array

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("launch", "s", 2e-6, 3e-7, 1e-4, "start and end of a kernel on an idle GPU"),
    Parameter("compute", "", 0.9, 0.3, 1.1, "achievable fraction of the datasheet's peak; over 1 is a boost clock above it"),
    Parameter("dram", "", 0.85, 0.4, 0.98, "achievable fraction of the datasheet's bandwidth"),
    Parameter("l2", "B", 64.0, 8.0, 512.0, "bytes per clock and SM from the last-level cache to a tile"),
    Parameter("store", "B", 15.0, 2.0, 300.0, "bytes per clock and SM that the end of a tile writes"),
    Parameter("resident", "", 0.4, 0.05, 1.5, "share of the last-level cache that a call's operands find again"),
    Parameter("step", "s", 2e-8, 1e-10, 1e-6, "latency of one step of the main loop, 128 bytes deep", off=True),
    Parameter("split", "s", 2e-6, 1e-7, 1e-4, "fixed cost of adding up a split reduction", off=True),
    Parameter(
        "promote", "", 1.0, 0.01, 4.0, "block scales: fp32 multiply-adds per output and block outside the matrix unit", off=True
    ),
    Parameter("throttle", "", 0.01, 1e-4, 0.2, "slow-down of long kernels by the power cap, per ratio of matrix to vector peak"),
    Parameter("window", "s", 2e-3, 1e-3, 1e-1, "kernel time at which half of the slow-down is reached"),
    Parameter("passes", "", 1.0, 1e-2, 20.0, "quantise pass: times its bytes at the datasheet's bandwidth", off=True),
    Parameter("row", "s", 1e-9, 1e-11, 3e-8, "quantise pass: least time per row", off=True),
    Parameter(
        "reread", "", 0.1, 1e-3, 30.0, "weights beyond the cache read again: times their bytes at full bandwidth", off=True
    ),
    Parameter("host", "s", 5e-5, 1e-6, 3e-4, "least time of an eager launch", off=True),
)

# which kernel a stack picks; part of a set, never fitted
SELECTION: tuple[Parameter, ...] = (
    Parameter("slices", "", 64.0, 1.0, 64.0, "most parts a reduction is split into"),
    Parameter("tiles", "", 0.0, 0.0, 4.0, "best of 0 matrix, 2 vector, 3 tall, 4 wide; 1 ladder"),
)

DEPTH = 128.0
CHUNK = 4096
_SPLITS = (1, 2, 4, 8, 16, 32, 64)
_MATRIX = ((16, 64), (32, 64), (64, 64), (64, 128), (128, 64), (128, 128), (128, 256), (256, 128))
_VECTOR = ((32, 32), (64, 32), (32, 128), (64, 64), (128, 32), (128, 64), (64, 128), (128, 128))
_TALL = ((128, 16), (128, 32), (128, 64), (128, 128))
_WIDE = ((64, 32), (64, 64), (64, 128), (128, 32), (128, 64), (128, 128))
_LADDER = ((64, 64, 0.0, 64.0), (64, 128, 64.0, 128.0), (128, 128, 128.0, math.inf))


class _Choice(NamedTuple):
    """Tiles a stack may choose from, (c, 1) each: rows, columns, parts of the reduction, the range of m each is used for."""

    tm: NDArray[np.float64]
    tn: NDArray[np.float64]
    s: NDArray[np.float64]
    over: NDArray[np.float64]
    upto: NDArray[np.float64]
    area: NDArray[np.float64]
    split: NDArray[np.float64]
    parts: NDArray[np.float64]


class _Work(NamedTuple):
    """One chunk of rows, all of one shape."""

    m: Array
    n: Array
    k: Array
    groups: Array
    a: Array
    w: Array
    o: Array
    copies: Array
    quantised: Array
    scaled: Array


def gemm(
    *,
    m: Array,
    n: Array,
    k: Array,
    groups: Array = 1.0,
    a_bytes: Array = 2.0,
    w_bytes: Array = 2.0,
    o_bytes: Array = 2.0,
    copies: Array = math.inf,
    quantised: Array = 1.0,
    scaled: Array = math.inf,
    chip: Chip,
    p: Mapping[str, float],
) -> Array:
    """Seconds for `groups` products of (m x k) and (k x n), bytes per element as given; all arguments broadcast.

    `copies` calls pass before the same weights are used again; `quantised` is 0 where the activations come quantised already.
    """
    work = (m, n, k, groups, a_bytes, w_bytes, o_bytes, copies, quantised, scaled)
    device = (chip.sms, chip.clock, chip.peak, chip.vector, chip.dram, chip.l2)
    shape = np.broadcast_shapes(*(np.shape(x) for x in work + device))
    if not shape:
        return _time(_Work(*map(float, work)), chip, p)
    rows = [_flat(x, shape) for x in work + device]
    size = math.prod(shape)
    out = np.empty(size)
    for first in range(0, size, CHUNK):
        part = [x if np.ndim(x) == 0 else x[first : first + CHUNK] for x in rows]
        sms, clock, peak, vector, dram, l2 = part[10:]
        piece = Chip(sms=sms, clock=clock, peak=peak, vector=vector, dram=dram, l2=l2)
        out[first : first + CHUNK] = _time(_Work(*part[:10]), piece, p)
    return out.reshape(shape)


def _flat(x: Array, shape: tuple[int, ...]) -> Any:
    return float(x) if np.ndim(x) == 0 else np.broadcast_to(x, shape).reshape(-1)


@lru_cache(maxsize=32)
def _choice(slices: float, tiles: float) -> _Choice:
    """The tiles and splits of a stack; a reduction is cut in many parts only if the tile is small."""
    if tiles == 1.0:
        rows = [(tm, tn, 1.0, over, upto) for tm, tn, over, upto in _LADDER]
    else:
        shapes = {0.0: _MATRIX, 2.0: _VECTOR, 3.0: _TALL, 4.0: _WIDE}[tiles]
        pairs = [(tm, tn, s) for tm, tn in shapes for s in _SPLITS if s <= slices and _sensible(tm * tn, s)]
        rows = [(tm, tn, float(s), 0.0, math.inf) for tm, tn, s in pairs]
    tm, tn, s, over, upto = np.array(rows, float).T[:, :, None]
    split = np.where(s > 1.0, 1.0, 0.0)
    return _Choice(tm, tn, s, over, upto, area=tm * tn, split=split, parts=s * split)


def _sensible(area: int, s: int) -> bool:
    return area <= 4096 or (area * s <= 1 << 18 and (area <= 1 << 14 or s <= 2))


def _time(x: _Work, chip: Chip, p: Mapping[str, float]) -> Array:
    """Seconds of each row of one chunk."""
    busy = _busy(x, chip, p)
    heat = (busy / p["window"]) ** 2
    matrix = 2.0 * x.groups * x.m * x.n * x.k / (chip.vector * p["compute"])
    slow = 1.0 + p["throttle"] * (matrix / busy) * heat / (1.0 + heat)
    quantise = x.quantised * x.groups * _larger(p["passes"] * x.m * x.k * (2.0 + x.a) / chip.dram, p["row"] * x.m)
    return _larger(p["launch"] + busy * slow + quantise, p["host"])


def _busy(x: _Work, chip: Chip, p: Mapping[str, float]) -> Array:
    """The best choice's time between launch and end."""
    c = _choice(p["slices"], p["tiles"])
    wire = p["l2"] * chip.clock
    tiles, memory = _tiles(x, chip, p, c, wire), _memory(x, chip, p, wire)
    if p["reread"]:
        memory = memory + _reread(x, chip, p, c)
    both = np.cbrt(tiles * tiles * tiles + memory * memory * memory)
    both += c.split * p["split"] + c.parts * (8.0 * x.groups * x.m * x.n / (wire * chip.sms))
    if p["tiles"] == 1.0:
        both = np.where((x.m > c.over) & (x.m <= c.upto), both, np.inf)
    return float(both.min()) if type(x.m) is float and both.shape[1] == 1 else both.min(axis=0)


def _tiles(x: _Work, chip: Chip, p: Mapping[str, float], c: _Choice, wire: Array) -> NDArray[np.float64]:
    """Time of all waves of tiles."""
    depth = DEPTH / _larger(x.a, x.w)
    steps = np.ceil(x.k / (c.s * depth)) * depth
    waves = np.ceil(np.ceil(x.m / c.tm) * np.ceil(x.n / c.tn) * (c.s * (x.groups / chip.sms)))
    compute = c.area * (2.0 * chip.sms * (1.0 / (chip.peak * p["compute"]) + p["promote"] / (x.scaled * chip.vector)))
    slab = np.maximum(compute, c.tm * (x.a / wire) + c.tn * (x.w / wire)) + p["step"] / depth
    tiles: NDArray[np.float64] = waves * (steps * slab + c.area * (x.o / (p["store"] * chip.clock)))
    return tiles


def _memory(x: _Work, chip: Chip, p: Mapping[str, float], wire: Array) -> Array:
    """Time of the operands' way from DRAM, or from the cache for what is still there."""
    acts, weights = x.groups * x.m * (x.k * x.a + x.n * x.o), x.groups * x.n * x.k * x.w
    room = p["resident"] * chip.l2
    cold = acts * _ramp((acts + weights) / room - 1.0) + weights * _ramp((acts + x.copies * weights) / room - 1.0)
    return cold / (chip.dram * p["dram"]) + (acts + weights - cold) / (wire * chip.sms)


def _reread(x: _Work, chip: Chip, p: Mapping[str, float], c: _Choice) -> Array:
    """Time to read the operands again, once for each row of waves; a wave covers `cols` x `rows` of the output."""
    cols = np.minimum(np.ceil(x.n / c.tn), chip.sms) * c.tn
    rows = np.maximum(c.tm, np.minimum(np.ceil(x.m / c.tm) * c.tm, chip.sms * c.area / cols))
    weights, acts = x.n * x.k * x.w, x.m * x.k * x.a
    again = x.groups * (weights * np.maximum(x.m / rows - 1.0, 0.0) + acts * np.maximum(x.n / cols - 1.0, 0.0))
    moved: Array = again * (p["reread"] * _ramp(weights / (p["resident"] * chip.l2) - 1.0) / chip.dram)
    return moved


def _larger(a: Array, b: Array) -> Array:
    """Elementwise maximum that stays a cheap float for two floats."""
    if type(a) is float and type(b) is float:
        return a if a >= b else b
    return np.maximum(a, b)


def _ramp(x: Array) -> Array:
    """x, kept between 0 and 1."""
    if type(x) is float:
        return min(max(x, 0.0), 1.0)
    return np.minimum(np.maximum(x, 0.0), 1.0)
