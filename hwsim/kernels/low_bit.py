"""Low-bit GEMM on a GPU: weights unpacked on the way to the tensor cores, in tiles, or in stripes of equal length over the SMs.

An output is cut into tiles of tm x tn, in steps of depth tk; a stripe walks down the columns and may end in the middle of one:

    tm     = m in rows of 16, from `least` to `rows`               problems = ceil(m / rows): they share the weights in the L2
    tn, tk = `columns`, `depth`; up to 16 rows half as wide and twice as deep where `narrow` is set
    steps  = ceil(problems x ceil(n / tn) x ceil(k / tk) / SMs)            of one SM; of whole tiles if not `striped`
    mul    = 2 tm tn tk x `density` x SMs / (peak x compute)
    cores  = tn tk (unpack + scale tm / group) x 2 SMs / vector     instructions, one a clock and lane; 2 operations each
    feed   = (tn tk w + tm tk a) / (l2 x clock)
    memory = (n k w + m k a + m n o) / (bandwidth x dram)
    time   = launch + max(steps x max(mul, cores, feed), memory) + turn x (sharing - 1)

w, a, o are bytes per element of weights (scales included), activations and output. `unpack` are instructions per weight that turn
the stored integer into what the tensor cores multiply; `scale` are instructions per result and group of k where partial sums
leave the tensor cores to be scaled (group inf: none do). `density` is the part of k that is multiplied: 0.5 for 2:4 sparsity.
Copies to shared memory (`cp.async`), unpacking and products of different steps overlap, hence the maxima; without `overlap` they
are sums. SMs that share a column add their parts one after another: sharing = depth of a column in steps / steps of an SM + 1.

From: MARLIN (arXiv:2408.11743) and its published kernel; COMET (arXiv:2410.12168), MixLLM (arXiv:2412.14590). `peak` is what
large products of the device reach, not the datasheet's. Left out: bank conflicts, registers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import numpy as np

from hwsim.kernels.chip import Chip, Parameter
from hwsim.op import Array

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("launch", "s", 3e-6, 3e-7, 1e-4, "start and end of a kernel, filling and draining of its pipeline"),
    Parameter("compute", "", 1.0, 0.3, 1.1, "part of the device's sustained rate"),
    Parameter("dram", "", 0.8, 0.4, 0.98, "achievable fraction of the datasheet's bandwidth"),
    Parameter("l2", "B", 50.0, 8.0, 512.0, "bytes per clock and SM from the last-level cache to a tile"),
    Parameter("unpack", "", 1.75, 1e-2, 20.0, "instructions per weight and tile that turn it into an operand", off=True),
    Parameter("scale", "", 2.0, 1e-2, 20.0, "instructions per result and group of k that scale a partial sum", off=True),
    Parameter("turn", "s", 1e-6, 1e-8, 1e-5, "time for one SM to add its part of a column to that of another", off=True),
    Parameter("density", "", 1.0, 0.4, 1.0, "part of k that is multiplied; 0.5 for 2:4 sparsity"),
)

# the kernel itself; part of a set, never fitted
SELECTION: tuple[Parameter, ...] = (
    Parameter("rows", "", 64.0, 16.0, 256.0, "most rows of a tile"),
    Parameter("least", "", 16.0, 16.0, 256.0, "least rows of a tile"),
    Parameter("columns", "", 256.0, 16.0, 512.0, "columns of a tile"),
    Parameter("depth", "", 64.0, 16.0, 512.0, "elements of k of a step"),
    Parameter("narrow", "", 1.0, 0.0, 1.0, "1: tiles of up to 16 rows are half as wide and twice as deep"),
    Parameter("striped", "", 1.0, 0.0, 1.0, "1: equal stripes for all SMs; 0: whole tiles"),
    Parameter("overlap", "", 1.0, 0.0, 1.0, "1: copies, unpacking and products of several steps at once; 0: one after another"),
)


def low_bit(
    *, m: Array, n: Array, k: Array, groups: Array = 1.0, a_bytes: Array = 2.0, w_bytes: Array = 0.515625, o_bytes: Array = 2.0,
    group: Array = np.inf, chip: Chip, p: Mapping[str, float],
) -> Array:  # fmt: skip
    """Seconds for `groups` products of (m x k) and (k x n), bytes per element as given; all arguments broadcast."""
    tm = np.clip(np.ceil(m / 16.0) * 16.0, p["least"], p["rows"])
    wide = np.where((tm <= 16.0) & (p["narrow"] > 0), 2.0, 1.0)
    tn, tk = p["columns"] / wide, p["depth"] * wide
    deep = np.ceil(k / tk)
    tiles = groups * np.ceil(m / p["rows"]) * np.ceil(n / tn)
    steps = np.ceil(tiles * deep / chip.sms) if p["striped"] else np.ceil(tiles / chip.sms) * deep
    step = _step(tm, tn, tk, a_bytes, w_bytes, group, chip, p)
    memory = groups * (n * k * w_bytes + m * k * a_bytes + m * n * o_bytes) / (chip.dram * p["dram"])
    turns = p["turn"] * deep / steps if p["striped"] else 0.0
    seconds: Array = p["launch"] + _together(p, steps * step, memory) + turns
    return seconds


def _step(
    tm: Array, tn: Array, tk: Array, a_bytes: Array, w_bytes: Array, group: Array, chip: Chip, p: Mapping[str, float]
) -> Array:
    """Seconds of one step of one SM."""
    mul = 2.0 * tm * tn * tk * p["density"] * chip.sms / (chip.peak * p["compute"])
    cores = tn * tk * (p["unpack"] + p["scale"] * tm / group) * 2.0 * chip.sms / chip.vector
    feed = (tn * tk * w_bytes + tm * tk * a_bytes) / (p["l2"] * chip.clock)
    return _together(p, mul, cores, feed)


def _together(p: Mapping[str, float], *seconds: Array) -> Array:
    """The longest of what overlaps, the sum of what does not."""
    return reduce(np.maximum if p["overlap"] else np.add, seconds)
