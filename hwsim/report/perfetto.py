"""Runs in the Trace Event Format (JSON) that ui.perfetto.dev and chrome://tracing load.

A process per run and pipeline stage, a thread per unit and link, a counter per memory. The thread "passes" holds one bar per
forward pass and always adds up to the latency; below it, passes are drawn layer by layer, folded where that would be too many
events, and at last not at all; each pass says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwsim.report.passes import Pass, passes
from hwsim.report.tables import labels
from hwsim.report.timeline import bandwidth_in_use
from hwsim.trace import STATIC, Trace, TraceRow

MAX_ROWS = 60_000  # about 25 MB of JSON
_PASSES = 1  # thread of the passes
Event = dict[str, Any]


def perfetto(traces: Sequence[Trace], limit: int = MAX_ROWS) -> dict[str, Any]:
    """The document to write as JSON; `limit` bounds the ops drawn over all runs."""
    events: list[Event] = []
    for name, trace in zip(labels(traces), traces, strict=True):
        stages = 1 + max((row.stage for row in trace.rows), default=0)
        first = 1 + max((event["pid"] for event in events), default=0)
        title = f"{trace.model} on {name}" if trace.model and not name.startswith(trace.model) else name
        events += _run(trace, title, range(first, first + stages), limit // len(traces))
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _run(trace: Trace, title: str, pids: range, limit: int) -> Iterator[Event]:
    details = _details(passes(trace), limit)
    threads = _threads(trace)
    yield from _names(title, pids, threads)
    yield from _pass_bars(details, pids[0], limit)
    rows = [row for detail in details for row in detail.placed()]
    for row in rows:
        yield _bar(row, pids[row.stage], threads[row.stage, row.lane])
    for stage, pid in enumerate(pids):
        yield from _counters(rows, stage, pid)


@dataclass(frozen=True)
class _Detail:
    """What is drawn of a pass and the equal ones after it: `rows` of the first `times` of them."""

    one: Pass
    rows: tuple[TraceRow, ...]
    times: int
    words: str

    def placed(self) -> Iterator[TraceRow]:
        """All drawn rows on the time axis of the run."""
        for index in range(self.times):
            yield from (row.shifted(self.one.start_s + index * self.one.seconds) for row in self.rows)


def _details(found: Sequence[Pass], limit: int) -> list[_Detail]:
    """Every pass in the finest detail for which there is room, as long as those after it can at least be drawn folded."""
    reserved = sum(len(one.rows) for one in found)
    details = []
    for one in found:
        reserved -= len(one.rows)
        room = limit - reserved if limit - reserved >= len(one.rows) else limit
        fine = one.size * one.count <= room
        rows = one.unfolded() if fine else one.rows
        times = min(one.count, room // len(rows))
        limit -= times * len(rows)
        details.append(
            _Detail(one, rows, times, "every layer" if fine else "layers folded: each op runs all its layers in a row")
        )
    return details


def _threads(trace: Trace) -> dict[tuple[int, str], int]:
    """(stage, lane) -> thread: units, by rank where ranks differ, then links."""
    lanes = sorted({(row.stage, row.moves, row.rank, row.lane) for row in trace.rows if row.unit != STATIC})
    return {(stage, lane): tid for tid, (stage, _, _, lane) in enumerate(lanes, start=2)}


def _names(title: str, pids: range, threads: Mapping[tuple[int, str], int]) -> Iterator[Event]:
    for pid in pids:
        yield _meta("process_name", pid, 0, name=f"{title}, stage {pid - pids[0]}" if len(pids) > 1 else title)
        yield _meta("process_sort_index", pid, 0, sort_index=pid)
    for (stage, name), tid in {(0, "passes"): _PASSES, **threads}.items():
        yield _meta("thread_name", pids[stage], tid, name=name)
        yield _meta("thread_sort_index", pids[stage], tid, sort_index=tid)


def _meta(what: str, pid: int, tid: int, **args: Any) -> Event:
    return {"ph": "M", "name": what, "cat": "__metadata", "ts": 0, "pid": pid, "tid": tid, "args": args}


def _pass_bars(details: Sequence[_Detail], pid: int, limit: int) -> Iterator[Event]:
    """One bar per pass; steps that are too many even for that are one bar together."""
    single = sum(detail.one.count for detail in details) <= limit
    for detail in details:
        one = detail.one
        for index in range(one.count if single else 1):
            start, steps = one.start_s + index * one.seconds, 1 if single else one.count
            drawn = detail.words if index < detail.times else "not drawn, to keep this file small"
            args = {"ops": drawn, "time": f"mean of {one.count} steps" if one.count > 1 else "of this pass"}
            name = f"{one.name} {index + 1}" if single and one.count > 1 else one.name
            when = _when(start, start + steps * one.seconds)
            yield {"ph": "X", "name": name, "cat": "pass", "pid": pid, "tid": _PASSES, **when, "args": args}


def _bar(row: TraceRow, pid: int, tid: int) -> Event:
    moved, joules = sum(row.bytes.values()), sum(row.joules.values())
    amounts = {"operations": row.op, "bytes": moved, "operations/byte": row.op / moved if moved else 0.0, "joules": joules}
    args: dict[str, Any] = {name: _short(value) for name, value in amounts.items() if value}
    args |= {"bound": row.bound, "format": row.precision, "method": row.method, "repeat": row.repeat}
    args |= {f"{unit} busy (us)": _short(seconds * 1e6) for unit, seconds in row.lanes.items()}
    return {"ph": "X", "name": row.name, "cat": row.kind, "pid": pid, "tid": tid, **_when(row.start_s, row.end_s), "args": args}


def _counters(rows: Sequence[TraceRow], stage: int, pid: int) -> Iterator[Event]:
    """Bytes/s in use of each memory, all devices of the stage together."""
    for memory in dict.fromkeys(name for row in rows for name in row.bytes):
        for when, rate in bandwidth_in_use(rows, memory, stage):
            yield {
                "ph": "C",
                "name": f"{memory} GB/s",
                "pid": pid,
                "tid": 0,
                "ts": _ticks(when) / 1024,
                "args": {"GB/s": _short(rate / 1e9)},
            }


def _when(start: float, end: float) -> dict[str, float]:
    first, last = _ticks(start), _ticks(end)
    return {"ts": first / 1024, "dur": (last - first) / 1024}


def _ticks(seconds: float) -> int:
    """Time in 1/1024 us: such numbers add up exactly, so neighbours never overlap, even for readers that cut to nanoseconds."""
    return round(seconds * 1e6 * 1024)


def _short(value: float) -> float:
    return float(f"{value:.5g}")
