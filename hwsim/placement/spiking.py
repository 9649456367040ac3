"""Where spiking layers go: fixed weights into the cells of a crossbar, or onto a processor that reads only rows that spike.

- crossbar: weights that are never trained become cells, the rest of the network goes to the fastest other unit;
- gated: no cells, but silent rows are skipped (digital spiking processors).

On any other machine (GPUs) silent rows are multiplied like all others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hwsim.device import Device
from hwsim.op import Counters, Op, Synapses
from hwsim.placement.policy import Policy, fastest


def crossbar() -> Policy:
    """Fixed spiking layers on the unit that holds them as cells, everything else where it is fastest."""
    return fastest()


def gated() -> Policy:
    """Everything where it is fastest, spiking layers row by row as inputs spike."""
    return fastest()


def event_driven(ops: Iterable[Op], device: Device) -> list[Op]:
    """`ops` with silent rows and counters skipped."""
    return [_event_driven(op) for op in ops]


def _event_driven(op: Op) -> Op:
    if isinstance(op, Synapses):
        return replace(op, gated=True, activations="int1") if op.binary else op
    return op.only_fired() if isinstance(op, Counters) else op


def in_cells(ops: Iterable[Op], device: Device) -> list[Op]:
    """`ops` event-driven, fixed spiking layers in cells."""
    return [
        replace(op, weights="analog") if isinstance(op, Synapses) and op.fixed and op.binary else op
        for op in event_driven(ops, device)
    ]


REWRITES = {"crossbar": in_cells, "gated": event_driven}
