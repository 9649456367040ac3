"""Multi-head latent attention, prefill: causal attention with keys and values rebuilt per head, or in the absorbed form.

    t = launch + around + (work^3 + memory^3)^(1/3), with the terms of attention_prefill and
    key = tile * (2 (qk + v) * SMs / (compute * peak) + 1 / (exponentials * clock))

Expanded: per head qk = nope + rope and v = value dimensions (192 and 128 in DeepSeek); each head has its own keys. Absorbed
(selection `absorbed` 1): qk = latent + rope and v = latent, and all heads share one latent per token, so that a row tile holds
tile / heads positions: 3.4 times the matrix work, but no keys and values to rebuild. `passes` counts how often Q, K and V move
outside the kernel.

SI units. From: the TensorRT-LLM context kernels (expanded), FlashAttention on the latent (absorbed). Left out: the projections
around the core, a host that launches without a graph beyond its constant `launch`.
"""

from __future__ import annotations

import numpy as np

from hwsim.kernels._attention import Parameters, causal, prefilled, tile_key
from hwsim.kernels.chip import Chip, Parameter
from hwsim.op import Array

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("launch", "s", 1.2e-5, 1e-6, 4e-4, "one call, with the kernels around it (eager stacks: the host's time)"),
    Parameter("unit", "s", 1e-6, 1e-8, 5e-5, "set-up and result of one row tile"),
    Parameter("tail", "", 0.3, 1e-4, 2.0, "longest tiles that the last wave leaves idle"),
    Parameter("compute", "", 0.8, 0.02, 1.1, "part of the matrix peak inside a tile"),
    Parameter("exponentials", "", 12.0, 0.8, 64.0, "softmax terms per clock and multiprocessor"),
    Parameter("port", "B", 24.0, 1.0, 64.0, "bytes per clock that one multiprocessor draws through L2"),
    Parameter("passes", "", 1.0, 0.01, 30.0, "times that Q, K and V move outside the kernel"),
    Parameter("kept", "", 0.6, 0.05, 2.0, "part of L2 in which operands survive from one call to the next"),
)
SELECTION: tuple[Parameter, ...] = (
    Parameter("tile", "", 128.0, 16.0, 256.0, "query rows of one tile"),
    Parameter("step", "", 64.0, 16.0, 256.0, "keys of one step"),
    Parameter("absorbed", "", 0.0, 0.0, 1.0, "1: attention on the latent instead of rebuilt keys and values"),
    Parameter("matrix_bits", "", 16.0, 8.0, 16.0, "bits of the matrix operands: which peak the caller puts into chip.peak"),
)


def mla_prefill(
    *,
    batch: Array,
    q_len: Array,
    kv_len: Array,
    heads: Array,
    chip: Chip,
    p: Parameters,
    latent: Array = 512.0,
    rope: Array = 64.0,
    nope: Array = 128.0,
    value: Array = 128.0,
    resident: Array = 1.0,
    io_bytes: Array = 2.0,
) -> Array:
    """Seconds of one call for the heads on this device; `kv_len` counts the prefix and the `q_len` new tokens."""
    absorbed = p["absorbed"] > 0.0
    qk, v = (latent + rope, latent) if absorbed else (nope + rope, value)
    rows = np.maximum(p["tile"] / heads, 1.0) if absorbed else p["tile"]
    sequences = batch * (np.ceil(heads / p["tile"]) if absorbed else heads)
    keys = kv_len * (latent + rope if absorbed else heads * (qk + v))
    queries = q_len * heads * (qk + v)
    return prefilled(
        causal(q_len * 1.0, kv_len * 1.0, 0.0, rows, p["step"]),
        sequences=sequences,
        key=tile_key(2.0 * (qk + v), chip, p),
        moved=io_bytes * batch * (queries + keys),
        extra=p["passes"] * io_bytes * batch * q_len * heads * (nope + rope + nope + rope + value),
        resident=resident,
        chip=chip,
        p=p,
    )
