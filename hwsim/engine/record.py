"""From start and end times to a Trace: totals over repetitions and devices, static energy, and the laws every run is held to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from hwsim.cost import energy
from hwsim.device import Device
from hwsim.engine.tasks import Task
from hwsim.op import Array
from hwsim.trace import HOST, SHARED, STATIC, Trace, TraceRow, check_laws


def copies(every: Sequence[Task], device: Device) -> float:
    """Devices of one pipeline stage."""
    return device.count / (1 + max((task.row.op.stage for task in every), default=0))


def finished(
    every: list[Task], starts: Mapping[int, float], ends: Mapping[int, float], device: Device, served: Mapping[str, float]
) -> Trace:
    """The Trace of a run; InternalError when bytes were lost or a row beat its roof."""
    bounds = _segment_bounds(every, starts, ends)
    many = copies(every, device)
    rows = [_row(task, device, starts[i], ends[i], bounds[task.segment], many) for i, task in enumerate(every)]
    latency = max(ends.values(), default=0.0)
    if device.static_power:
        rows.append(static_row(latency, float(device.static_power) * device.count))
    asked: dict[str, list[float]] = {}
    for task in every:
        for memory, moved in task.cost.traffic.items():
            asked.setdefault(memory, []).append(float(moved * task.scale))
    trace = Trace(rows=tuple(rows), latency_s=latency, arch=device.name)
    return check_laws(trace, {memory: math.fsum(parts) for memory, parts in asked.items()}, served)


def summed(every: list[Task], starts: Sequence[Array], ends: Sequence[Array], points: int, device: Device) -> Trace:
    """One Trace for `points` runs in a row: all of them as one run that takes as long, each row with its totals.

    Starts and ends are the sums of those in every run, which keeps order and overlap as they are.
    """

    def total(values: Array) -> float:
        """Sum over the points; a scalar counts once for each."""
        return float(np.sum(values)) if np.ndim(values) else float(values) * points

    many = copies(every, device)
    begun, done = dict(enumerate(map(total, starts))), dict(enumerate(map(total, ends)))
    bounds = _segment_bounds(every, begun, done)
    rows = [_row(task, device, begun[i], done[i], bounds[task.segment], many, points, total) for i, task in enumerate(every)]
    latency = max(done.values(), default=0.0)
    if device.static_power:
        rows.append(static_row(latency, float(device.static_power) * device.count))
    return Trace(rows=tuple(rows), latency_s=latency, arch=device.name)


def delayed(trace: Trace, seconds: float, device: Device, passes: int = 1) -> Trace:
    """`passes` that wait for their host, for so many seconds in all, shown at the end; static power flows on."""
    if not seconds:
        return trace
    start, end = trace.latency_s, trace.latency_s + seconds
    host = TraceRow(
        HOST, HOST, HOST, start, end, 0.0, {}, {}, "latency", fixed_s=seconds, block=HOST, repeat=passes, steps=passes,
        block_start_s=start, block_end_s=end,
    )  # fmt: skip
    rows = [*(row for row in trace.rows if row.unit != STATIC), host]
    if device.static_power:
        rows.append(static_row(end, float(device.static_power) * device.count))
    return replace(trace, rows=tuple(rows), latency_s=end)


def static_row(latency: float, watts: float) -> TraceRow:
    """Power that flows whatever happens, as a row of its own (of no length) so that the parts add up to the whole."""
    return TraceRow(STATIC, STATIC, STATIC, latency, latency, 0.0, {}, {STATIC: watts * latency}, STATIC)


def _segment_bounds(every: list[Task], starts: Mapping[int, float], ends: Mapping[int, float]) -> dict[int, tuple[float, float]]:
    bounds: dict[int, tuple[float, float]] = {}
    for i, task in enumerate(every):
        low, high = bounds.get(task.segment, (math.inf, 0.0))
        bounds[task.segment] = (min(low, starts[i]), max(high, ends[i]))
    return bounds


def _row(
    task: Task, device: Device, start: float, end: float, block: tuple[float, float], many: float,
    points: int = 1, total: Callable[[Array], float] = float,
) -> TraceRow:  # fmt: skip
    """One row: the task's terms times its repetitions, summed over points, times the devices that do the same."""
    op, cost, scale = task.row.op, task.cost, task.scale
    many = many * op.stands_for
    fixed, compute, memory = total(cost.fixed_s * scale), total(cost.busy_s * scale), total(cost.memory_s * scale)
    return TraceRow(
        name=op.name, kind=op.kind, unit=task.row.unit, start_s=start, end_s=end, op=total(op.ops * scale) * many,
        bytes={name: total(value * scale) * many for name, value in cost.traffic.items()},
        joules={name: total(value * scale) * many for name, value in energy(cost, op, task.row.unit, device).items()},
        operands={name: total(value * scale) * many for name, value in op.bytes.items()},
        bound=_bound(cost.method, end - start, 4 * math.ulp(end), fixed, compute, memory), fixed_s=fixed, compute_s=compute,
        memory_s=memory, block=op.block, repeat=op.repeat * points, steps=points, stage=op.stage, rank=op.rank,
        stands_for=op.stands_for, precision=op.precision, method=cost.method, block_start_s=block[0], block_end_s=block[1],
        lanes={name: total(value * scale) for name, value in cost.lanes.items()}, alive=float(np.max(op.workspace)),
    )  # fmt: skip


def _bound(method: str, seconds: float, rounding: float, fixed: float, compute: float, memory: float) -> str:
    """What the time is mostly made of: others on the same memory, a link, latency (launches), compute or memory.

    `rounding` is how far a difference of two clock times may be off.
    """
    if seconds > (fixed + max(compute, memory)) * (1 + 1e-9) + rounding:
        return SHARED
    if method.startswith("link"):
        return "link"
    if fixed > max(compute, memory):
        return "latency"
    return "compute" if compute >= memory else "memory"
