"""A mapping is a list of rows: op, unit, home of each operand, share. Printable, editable, diffable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from hwsim.device import Device
from hwsim.errors import PlacementError
from hwsim.op import Array, Load, Move, Op
from hwsim.placement.policy import ALL, Part, Policy, Rewriting, fastest, homes


@dataclass(frozen=True, eq=False)
class Row:
    """`op` runs on `unit`; its operands live in the memories of `home`.

    `share` is the part of the op that this row does: 1, or 0..1 per design point when a policy chooses by mask. Rows of one
    `queue` run one at a time and in order: by default a queue is a unit. `takes` and `gives` are bytes of credit on bounded
    buffers: taken when the row starts, given back when it ends.
    """

    op: Op
    unit: str
    home: Mapping[str, str]
    share: Array = 1.0
    queue: str = ""
    takes: Mapping[str, float] = field(default_factory=dict)
    gives: Mapping[str, float] = field(default_factory=dict)


def place(ops: Iterable[Op], device: Device, policy: Policy | None = None) -> list[Row]:
    """Send every op to a unit of `device` by `policy` (default: the fastest unit able to do it), every move to a link.

    A policy that is a Rewriting changes the ops first. Raises PlacementError when no unit can do an op.
    """
    policy = policy or fastest()
    ops = policy.rewritten(ops, device) if isinstance(policy, Rewriting) else ops
    return [row for op in ops for row in _rows(op, device, policy)]


def _rows(op: Op, device: Device, policy: Policy) -> list[Row]:
    if isinstance(op, Move):
        link = device.link_over(op.span)
        return [Row(op, link, {"activations": device.links[link].memory})]
    parts = policy(op, device)
    if not parts:
        raise PlacementError(f"{device.name}: the policy sent {op.name} nowhere")
    return [_row(op, unit, part, device) for unit, part in parts.items() if isinstance(part, Part) or part is ALL or np.any(part)]


def _row(op: Op, unit: str, part: Array | Part, device: Device) -> Row:
    if isinstance(op, Load):
        link = device.links[unit]
        return Row(op, unit, {"weights": link.reads, "activations": link.memory})
    home = homes(device, unit)
    return Row(part.op or op, unit, home, queue=part.queue) if isinstance(part, Part) else Row(op, unit, home, part)
