"""Multi-head latent attention, decode: all query heads of a sequence against one cached latent per token (absorbed form).

    t = launch + merge [if cut along the cache] + ramp * L2 / DRAM * cold
        + ((waves * block + max(read / port, ops / (compute * peak)))^3 + (cold * bytes / (dram * DRAM))^3)^(1/3)

read = (latent + rope) * bytes per element * cached tokens (in whole blocks of 128) per sequence, at `port` B per clock and SM
ops  = 2 (latent + rope + latent) * query heads (in whole tiles) * cached tokens; block = unit + rows * (query tiles - 1);
       Blackwell's kernels for few heads swap the operands and reach only the part `narrow` of the peak
cold = as in attention_decode

Where a stack converts an 8-bit cache to 16 bits before each call, a pass over it at `convert` B per clock and SM comes first.

SI units. Each cached token is read once for all heads of the device, so that few heads (tensor parallel) are bound by DRAM and
128 heads by the tensor cores. From: FlashMLA and the TensorRT-LLM kernels, one thread block per part of a sequence's cache.
Left out: the projections around the core (they are GEMMs), the up-projection of the values, a host that launches without a graph.
"""

from __future__ import annotations

import numpy as np

from hwsim.kernels._attention import READ_BLOCK, Parameters, cut, decoded
from hwsim.kernels.chip import Chip, Parameter
from hwsim.op import Array

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("launch", "s", 1.2e-5, 1e-6, 4e-4, "one call: launch, first wave's latency, end (eager stacks: the host's time)"),
    Parameter("unit", "s", 2e-6, 1e-8, 5e-5, "set-up and result of one thread block"),
    Parameter("rows", "s", 5e-7, 1e-9, 1e-5, "more of it for each further query tile"),
    Parameter("merge", "s", 1e-6, 1e-8, 2e-5, "second pass that joins the parts of a cut cache"),
    Parameter("dram", "", 0.85, 0.3, 1.0, "part of the DRAM peak that is reached"),
    Parameter("port", "B", 24.0, 0.5, 64.0, "bytes per clock that one multiprocessor draws through L2"),
    Parameter("compute", "", 0.5, 0.005, 1.1, "part of the tensor peak, on padded query rows"),
    Parameter("narrow", "", 0.2, 0.005, 1.1, "the same of the kernel for few heads, which swaps the operands"),
    Parameter("ramp", "", 0.5, 1e-3, 3.0, "times that L2 is turned over at DRAM speed before a cold cache streams"),
    Parameter("kept", "", 0.8, 0.1, 1.5, "part of L2 in which a cache survives from one call to the next"),
    Parameter("convert", "B", 1e9, 0.1, 1e9, "bytes per clock and SM of a pass that converts the cache first (1e9: none)"),
    Parameter("splits", "", 32.0, 1.0, 256.0, "most cuts of one cache"),
)
SELECTION: tuple[Parameter, ...] = (
    Parameter("tile", "", 16.0, 1.0, 128.0, "query rows of one tensor-core tile"),
    Parameter("narrow_tile", "", 8.0, 1.0, 128.0, "query rows of one tile of the narrow kernel"),
    Parameter("narrow_to", "", 0.0, 0.0, 128.0, "most heads for which the narrow kernel is picked; 0: never"),
    Parameter("matrix_bits", "", 16.0, 8.0, 16.0, "bits of the matrix operands: which peak the caller puts into chip.peak"),
)


def mla_decode(
    *,
    batch: Array,
    kv_len: Array,
    heads: Array,
    kv_bytes: Array,
    chip: Chip,
    p: Parameters,
    latent: Array = 512.0,
    rope: Array = 64.0,
    resident: Array = 1.0,
    io_bytes: Array = 2.0,
) -> Array:
    """Seconds of one call for the query heads on this device. `kv_len` counts the new token; bytes are per element."""
    padded = np.ceil(kv_len / READ_BLOCK) * READ_BLOCK
    reader = cut(batch * 1.0, np.ceil(kv_len / READ_BLOCK), p["splits"], chip)
    narrow = np.less_equal(heads, p["narrow_to"])
    tile = np.where(narrow, p["narrow_tile"], p["tile"])
    tiles = np.ceil(heads / tile)
    rate = np.where(narrow, p["narrow"], p["compute"]) * chip.peak
    io = io_bytes * batch * heads * (2.0 * latent + rope)
    before = batch * kv_len * (latent + rope) * kv_bytes / (p["convert"] * chip.clock * chip.sms)
    return before + decoded(
        reader,
        block=p["unit"] + p["rows"] * (tiles - 1.0),
        read=batch * padded * (latent + rope) * kv_bytes + io,
        compute=2.0 * (2.0 * latent + rope) * batch * padded * tiles * tile / rate,
        once=batch * kv_len * (latent + rope) * kv_bytes + io,
        resident=resident,
        chip=chip,
        p=p,
    )
