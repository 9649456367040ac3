"""Element-wise kernels, norms, softmax, look-ups on a GPU: seconds of one kernel that streams its operands through the vector
units.

    t = launch + (stream^blend + issue^blend + row^blend)^(1/blend),  never below launch + operations / vector peak      [s]
    stream  = passes x bytes x missing / (DRAM bandwidth x fraction)
    missing = part of the traffic that falls out of the L2: 0 up to `resident` x L2, 1 from twice that
    issue   = passes x bytes / (SMs x clock x 64 B x cache): loads, stores and instructions through the SMs and the L2
    row     = rows x row / SMs: latency of the block of threads that reduces one row (norms, softmax)

A set of parameters stands for one kind of kernel of one software stack: `pytorch-softmax`, `vllm-norm`. `passes` counts how
often a stack that does not fuse walks over its operands. `bytes` counts each operand once.

Where it comes from: streaming kernels are bound by memory or, where they do not vectorise their loads, by their SMs; fitted
on vector_ops_fp32 (PyTorch, eager: launch is the host's) and the operators of vidur_layer_ops and llmservingsim_layers. Left
out: cost of special functions one by one (a set pools them), columns that are no multiple of a vector load, sorting and
sampling.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwsim.kernels.chip import Chip, Parameter
from hwsim.op import Array, larger

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("launch", "s", 5e-6, 0.3e-6, 100e-6, "launch of one kernel, with the host's part where it is the slower one"),
    Parameter("dram", "", 0.85, 0.3, 1.0, "DRAM bandwidth reached, of the datasheet's"),
    Parameter("cache", "", 0.5, 0.005, 2.0, "bytes that an SM moves in a clock, of 64"),
    Parameter("resident", "", 0.4, 0.0, 1.5, "part of the L2 that a repeated or chained call finds its operands in"),
    Parameter("row", "s", 0.1e-6, 0.0, 20e-6, "latency of one row on one SM"),
    Parameter("passes", "", 1.0, 1.0, 12.0, "walks over the operands: 1 = one fused kernel; fitted where a stack runs several"),
    Parameter("blend", "", 2.0, 1.0, 8.0, "how the three overlap: 1 = one after the other, large = the longest one"),
)

# fp32 operations per element that the fits counted: a special function is the instructions that it takes
OPERATIONS: Mapping[str, float] = {
    "copy": 0.0, "scale": 1.0, "sum": 1.0, "gelu": 10.0, "tanh": 8.0, "pow": 8.0, "norm": 8.0, "softmax": 6.0,
}  # fmt: skip


def vector(*, bytes: Array, ops: Array, rows: Array, chip: Chip, p: Mapping[str, float]) -> Array:
    """Seconds. `bytes` read and written, each operand once, `ops` fp32 operations, `rows` reduced (0 if element-wise)."""
    traffic = bytes * p["passes"]
    stream = traffic * _missing(bytes, chip.l2 * p["resident"]) / (chip.dram * p["dram"])
    issue = traffic / (chip.sms * chip.clock * (64.0 * p["cache"]))
    row = rows * p["row"] / chip.sms
    blend = p["blend"]
    together = (stream**blend + issue**blend + row**blend) ** (1.0 / blend)
    return p["launch"] + larger(together, ops / chip.vector)


def _missing(footprint: Array, fits: Array) -> Array:
    """Part of the traffic that the DRAM serves: none while the footprint fits, all from twice that."""
    over = footprint / (fits + 1.0) - 1.0
    if isinstance(over, float):
        return min(max(over, 0.0), 1.0)
    return np.clip(over, 0.0, 1.0)
