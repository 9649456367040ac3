"""The forward passes of a run: prefill, then decode steps; each from time zero, its ops in the order in which they really ran.

A run that adds up many steps in closed form has one row per op for all of them; here it is `count` equal mean steps in a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hwsim.trace import STATIC, Trace, TraceRow


@dataclass(frozen=True)
class Pass:
    """Rows of one forward pass from time zero. `count` equal passes in a row, the first at `start_s`, each of `seconds`."""

    phase: str
    rows: tuple[TraceRow, ...]
    start_s: float
    seconds: float
    count: int = 1

    @property
    def name(self) -> str:
        """What the pass is called in figures."""
        return self.phase or "pass"

    def unfolded(self) -> tuple[TraceRow, ...]:
        """Every layer on its own, in real order."""
        return Trace(self.rows, self.seconds).unfolded(limit=self.size).rows

    @property
    def size(self) -> int:
        """Rows of one pass when every layer stands on its own."""
        return sum(row.repeat for row in self.rows)


def passes(trace: Trace) -> list[Pass]:
    """All passes of a run, in order. They take exactly as long as the run."""
    return [_pass(rows) for rows in _groups(row for row in trace.rows if row.unit != STATIC)]


def representative(trace: Trace) -> list[Pass]:
    """One pass per phase: the first (of steps added up, the mean)."""
    first: dict[str, Pass] = {}
    for one in passes(trace):
        first.setdefault(one.phase, one)
    return list(first.values())


def _groups(rows: Iterable[TraceRow]) -> list[list[TraceRow]]:
    """Cut where the phase changes or an op comes again."""
    groups: list[list[TraceRow]] = []
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if not groups or row.phase != groups[-1][0].phase or (row.name, row.unit) in seen:
            groups.append([])
            seen = set()
        groups[-1].append(row)
        seen.add((row.name, row.unit))
    return groups


def _pass(rows: Sequence[TraceRow]) -> Pass:
    start, end = min(row.start_s for row in rows), max(row.end_s for row in rows)
    shifted = [row.shifted(-start) for row in rows]
    count = rows[0].steps
    if count == 1:
        return Pass(rows[0].phase, tuple(shifted), start, end - start)
    return Pass(rows[0].phase, _with_blocks([_divided(row, count) for row in shifted]), start, (end - start) / count, count)


def _divided(row: TraceRow, count: int) -> TraceRow:
    def part(values: dict[str, float]) -> dict[str, float]:
        return {name: value / count for name, value in values.items()}

    return replace(
        row, start_s=row.start_s / count, end_s=row.end_s / count, op=row.op / count, bytes=part(dict(row.bytes)),
        joules=part(dict(row.joules)), operands=part(dict(row.operands)), fixed_s=row.fixed_s / count,
        compute_s=row.compute_s / count, memory_s=row.memory_s / count, repeat=row.repeat // count, steps=1,
        lanes=part(dict(row.lanes)),
    )  # fmt: skip


def _with_blocks(rows: Sequence[TraceRow]) -> tuple[TraceRow, ...]:
    """Rows that know again from when to when their block runs, so that its repetitions can be told apart."""
    bounds: dict[tuple[int, str], tuple[float, float]] = {}
    for row in rows:
        low, high = bounds.get((row.stage, row.block), (math.inf, 0.0))
        bounds[row.stage, row.block] = (min(low, row.start_s), max(high, row.end_s))
    return tuple(
        replace(row, block_start_s=bounds[row.stage, row.block][0], block_end_s=bounds[row.stage, row.block][1]) for row in rows
    )
