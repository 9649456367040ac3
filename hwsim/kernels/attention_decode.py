"""Decode attention: one new token per sequence against its cached keys and values (multi-head, grouped-query, sliding window).

    t = launch + merge [if cut along the cache] + ramp * L2 / DRAM * cold
        + ((waves * block + max(read / port, ops / vector or tensor rate))^3 + (cold * bytes / (dram * DRAM))^3)^(1/3)

block = unit + rows * (query tiles - 1) * head_dim / 128   seconds of set-up per thread block, (sequence, KV head) pairs in waves
read  = 2 * head_dim * bytes per element * cached tokens (in whole blocks of 128) per thread block, at `port` B per clock and SM
cold  = bytes^4 / (bytes^4 + (kept * L2)^4): the part of the cache that did not survive in L2 from the call before
ops   = 4 * head_dim * query rows (in whole tiles) * cached tokens

SI units. The query heads of one KV head share a thread block ("packed") where the software stack's kernel does that; where it
does not, each head has a thread block of its own that reads the cache again through L2 and works either on the vector units
(solo_tile 0) or on a padded tile of solo_tile query rows. Which kernel a stack picks is in SELECTION, read off its sources and
the measurements; it is part of a parameter set but never fitted: fallback kernels are the solo kernel at large groups.

From: flash decoding (split over the cache when sequences x heads are fewer than the multiprocessors); measured with a CUDA graph
that repeats one call, hence the survival in L2: `resident` says what part of L2 the cache finds again (1 as measured; 0 in a
model whose weights pass through L2 between two layers, and for eager profiles of whole layers). Left out: page tables, unequal
lengths within a batch, the imbalance of the last wave beyond four waves, clocks under load.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwsim.kernels._attention import READ_BLOCK, Parameters, cut, decoded, seen
from hwsim.kernels.chip import Chip, Parameter
from hwsim.op import Array

Flags = NDArray[np.bool_]

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("launch", "s", 8e-6, 1e-6, 3e-5, "one call under a CUDA graph: launch, first wave's latency, end"),
    Parameter("unit", "s", 1e-6, 1e-8, 1e-5, "set-up and result of one thread block with a packed query group"),
    Parameter("rows", "s", 5e-7, 1e-9, 1e-5, "more of it for each further query tile of 128 dimensions"),
    Parameter("solo", "s", 1.5e-6, 1e-7, 1e-5, "set-up and result of one thread block with one query head"),
    Parameter("merge", "s", 1e-6, 1e-8, 2e-5, "second pass that joins the parts of a cut cache"),
    Parameter("dram", "", 0.85, 0.3, 1.0, "part of the DRAM peak that is reached"),
    Parameter("port", "B", 24.0, 1.0, 64.0, "bytes per clock that one multiprocessor draws through L2"),
    Parameter("compute", "", 0.5, 0.005, 1.1, "part of the tensor peak, on padded query rows"),
    Parameter("vector", "", 0.1, 0.01, 1.0, "part of the fp32 vector peak that a solo kernel on vector units reaches"),
    Parameter("ramp", "", 0.5, 1e-3, 3.0, "times that L2 is turned over at DRAM speed before a cold cache streams"),
    Parameter("kept", "", 0.8, 0.1, 1.5, "part of L2 in which a cache survives from one call to the next"),
    Parameter("wide", "", 1.0, 0.05, 1.5, "rate of `port` at head dimensions above 128, relative"),
    Parameter("splits", "", 32.0, 1.0, 256.0, "most cuts of one cache (packed kernel)"),
)
SELECTION: tuple[Parameter, ...] = (
    Parameter("tile", "", 16.0, 1.0, 128.0, "query rows of one tensor-core tile"),
    Parameter("pack_from", "", 1.0, 1.0, 1e9, "smallest group of query heads that is packed"),
    Parameter("pack_to", "", 1e9, 1.0, 1e9, "largest group of query heads that is packed"),
    Parameter("pack_window", "", 1.0, 0.0, 1.0, "1: packed under a sliding window too"),
    Parameter("ragged", "", 0.0, 0.0, 1.0, "1: a sliding window touches one block of the cache more than it fills"),
    Parameter("solo_tile", "", 0.0, 0.0, 128.0, "query rows that a solo kernel pads to; 0: vector units"),
    Parameter("solo_splits", "", 64.0, 1.0, 256.0, "most cuts of one cache (solo kernel)"),
    Parameter("matrix_bits", "", 16.0, 8.0, 16.0, "bits of the matrix operands: which peak the caller puts into chip.peak"),
)


def attention_decode(
    *,
    batch: Array,
    kv_len: Array,
    heads: Array,
    kv_heads: Array,
    head_dim: Array,
    kv_bytes: Array,
    chip: Chip,
    p: Parameters,
    window: Array = 0.0,
    resident: Array = 1.0,
    io_bytes: Array = 2.0,
) -> Array:
    """Seconds of one call. `kv_len` counts the new token; `kv_bytes` and `io_bytes` are per cached and per query element."""
    tokens = seen(kv_len, window)
    blocks = np.ceil(tokens / READ_BLOCK)
    group = heads / kv_heads
    packed = _packed(group, window, p)
    units = batch * np.where(packed, kv_heads, heads)
    walked = np.where(packed | (p["solo_tile"] > 0.0), (blocks + _ragged(kv_len, window, p)) * READ_BLOCK, tokens)
    io = 2.0 * io_bytes * batch * heads * head_dim
    faster = np.where(np.greater(head_dim, 128.0), p["wide"], 1.0)
    return decoded(
        cut(units, blocks, np.where(packed, p["splits"], p["solo_splits"]), chip),
        block=_block(group, head_dim, packed, p),
        read=2.0 * units * walked * head_dim * kv_bytes / faster + io,
        compute=4.0 * head_dim * units * walked * _row_second(group, packed, chip, p),
        once=2.0 * batch * kv_heads * tokens * head_dim * kv_bytes + io,
        resident=resident,
        chip=chip,
        p=p,
    )


def _packed(group: Array, window: Array, p: Parameters) -> Flags:
    """Whether the query heads of a KV head share a thread block."""
    return np.asarray(group >= p["pack_from"]) & (group <= p["pack_to"]) & (np.less_equal(window, 0.0) | (p["pack_window"] > 0.0))


def _ragged(kv_len: Array, window: Array, p: Parameters) -> Array:
    """One block more where a window's ends lie inside blocks."""
    return np.where((p["ragged"] > 0.0) & np.greater(window, 0.0) & np.less(window, kv_len), 1.0, 0.0)


def _block(group: Array, head_dim: Array, packed: Flags, p: Parameters) -> Array:
    """Set-up and result of one thread block, s."""
    return np.where(packed, p["unit"] + p["rows"] * (np.ceil(group / p["tile"]) - 1.0) * head_dim / 128.0, p["solo"])


def _row_second(group: Array, packed: Flags, chip: Chip, p: Parameters) -> Array:
    """Seconds per operation of one query row, times the padded rows of a thread block, on all multiprocessors."""
    tensor = 1.0 / (p["compute"] * chip.peak)
    alone = p["solo_tile"] * tensor if p["solo_tile"] > 0.0 else 1.0 / (p["vector"] * chip.vector)
    return np.where(packed, np.ceil(group / p["tile"]) * p["tile"] * tensor, alone)
