"""Prefill attention: causal attention of new tokens against themselves and a cached prefix, in row tiles (FlashAttention).

    t = launch + around + (work^3 + memory^3)^(1/3)
    work   = max(sum over row tiles of (keys * key + unit) / SMs, longest tile) + tail * longest tile * min(1, tiles / SMs)
    key    = tile * (4 * head_dim * SMs / (compute * wide * peak) + 1 / (exponentials * clock))
    memory = Q, K, V, result: through L2 at `port` B per clock and SM, and the cold part at 0.9 of the DRAM peak
    around = the passes beside the kernel: `passes` times Q and `convert` times K and V (16 bit), as cold as the kernel's operands
    cold   = bytes^3 / (bytes^3 + (kept * L2)^3)

SI units. Keys are counted per row tile in whole steps, with the causal mask and a sliding window at tile granularity; a tile of
`tile` rows holds tile / group positions where the stack packs the query heads of one KV head (`packs`: 0 never, 1 always, 2 for
single-token queries only). Matrix and softmax work of a tile take turns: this is why small head dimensions are slow and why a
chip with little matrix power per multiprocessor (H20) comes near its peak. Kernel selection is in SELECTION and never fitted.
A batch of one chunk and some decodes (mixed) is one launch: prefill(chunk) + prefill(decodes as single queries) - launch.

From: the tiling of FlashAttention 2 and 3 and of the TensorRT-LLM kernels; all fits are on calls repeated under a CUDA graph
(`resident`: see attention_decode). Left out: split along the keys for few long tiles, page tables, clocks under load.
"""

from __future__ import annotations

import numpy as np

from hwsim.kernels._attention import Parameters, causal, prefilled, tile_key
from hwsim.kernels.chip import Chip, Parameter
from hwsim.op import Array

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("launch", "s", 8e-6, 1e-6, 4e-5, "one call under a CUDA graph, with the kernels around it"),
    Parameter("unit", "s", 1e-6, 1e-8, 2e-5, "set-up and result of one row tile"),
    Parameter("tail", "", 0.3, 1e-4, 2.0, "longest tiles that the last wave leaves idle"),
    Parameter("compute", "", 0.8, 0.05, 1.1, "part of the matrix peak inside a tile"),
    Parameter("exponentials", "", 12.0, 0.8, 64.0, "softmax terms per clock and multiprocessor"),
    Parameter("wide", "", 1.0, 0.05, 1.5, "matrix rate at head dimensions above 128, relative"),
    Parameter("port", "B", 24.0, 1.0, 64.0, "bytes per clock that one multiprocessor draws through L2"),
    Parameter("passes", "", 1.0, 0.01, 10.0, "times that Q moves outside the kernel (rotary embedding, layout)"),
    Parameter("convert", "", 1.0, 0.01, 40.0, "times that K and V move outside the kernel (cache write, conversion)"),
    Parameter("kept", "", 0.6, 0.05, 2.0, "part of L2 in which operands survive from one call to the next"),
)
SELECTION: tuple[Parameter, ...] = (
    Parameter("tile", "", 128.0, 16.0, 256.0, "query rows of one tile"),
    Parameter("step", "", 64.0, 16.0, 256.0, "keys of one step"),
    Parameter("packs", "", 0.0, 0.0, 2.0, "query heads of a KV head share a tile: 0 never, 1 always, 2 for one new token"),
    Parameter("matrix_bits", "", 16.0, 8.0, 16.0, "bits of the matrix operands: which peak the caller puts into chip.peak"),
)


def attention_prefill(
    *,
    batch: Array,
    q_len: Array,
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
    """Seconds of one call. `kv_len` counts the prefix and the `q_len` new tokens; bytes are per element."""
    packed = np.equal(p["packs"], 1.0) | (np.equal(p["packs"], 2.0) & np.less_equal(q_len, 1.0))
    group = heads / kv_heads
    rows = np.where(packed, np.maximum(p["tile"] / group, 1.0), p["tile"])
    slower = np.where(np.greater(head_dim, 128.0), p["wide"], 1.0)
    around = p["passes"] * heads + 2.0 * p["convert"] * kv_heads
    return prefilled(
        causal(q_len * 1.0, kv_len * 1.0, window, rows, p["step"]),
        sequences=batch * np.where(packed, kv_heads * np.ceil(group / p["tile"]), heads),
        key=tile_key(4.0 * head_dim / slower, chip, p),
        moved=2.0 * batch * head_dim * (q_len * heads * io_bytes + kv_len * kv_heads * kv_bytes),
        extra=2.0 * batch * q_len * head_dim * around,
        resident=resident,
        chip=chip,
        p=p,
    )
