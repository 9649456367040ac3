"""Processing in or under the memory (Duplex, arXiv:2409.01141, section VII): a roofline per expert, experts one after another.

    busy = sum over experts of max(operations / peak, weight bytes / bandwidth)      everything else: as `roofline`

A GPU's grouped GEMM overlaps one expert's arithmetic with another's weights; the GEMM modules of a PIM stream one weight matrix
at a time. Weights and KV come over the unit's own wide path, activations over the one of `homes.activations`. Left out: the
softmax unit (7 operations per score), the all-reduce of partial sums over stacks, row activation time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hwsim.cost.roofline import roofline
from hwsim.cost.terms import Cost
from hwsim.device import Device, Unit
from hwsim.op import Experts, Op


def logic_pim(op: Op, name: str, unit: Unit, device: Device, home: Mapping[str, str]) -> Cost:
    """Cost of `op` on a PIM unit."""
    cost = roofline(op, name, unit, device, home)
    if not isinstance(op, Experts):
        return cost
    limit = cost.limit[home["weights"]]
    points = max(np.ndim(cost.busy_s), np.ndim(limit))  # axes of draws or of the device's numbers come after that of the experts
    tokens, hit = (values.reshape(values.shape + (1,) * (points + 1 - values.ndim)) for values in (op.tokens_per_expert, op.hit))
    compute = cost.busy_s * tokens / np.maximum(op.pairs, 1e-300)
    reading = hit * op.weight_bytes_per_expert / limit
    busy = np.sum(np.maximum(compute, reading), axis=0)
    return replace(cost, busy_s=float(busy) if points == 0 else busy)
