"""Trace: what happened. One row per op and unit with start, end, operations, bytes per memory, joules per component and bound.

A row stands for `repeat` executions of its op (folded layers, times `steps` passes where many are added up); its operations,
bytes and joules are totals over all of them and over all devices that do the same. Bars of one block therefore follow one another
as if each op ran all its repetitions in a row; the sum, the end and every share of time are those of the real order. `unfolded`
gives the real order back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hwsim.errors import InternalError

if TYPE_CHECKING:
    import pandas as pd

STATIC = "static"  # name, kind and unit of the row that holds idle power
HOST = "host"  # name, kind and unit of the row that holds waiting for the software
IMAGES = "images"  # phase of a pass over images
SHARED = "shared"  # bound of a row that others slowed down


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One op on one unit. `bytes` per memory, `operands` per operand, `joules` per component; all totals.

    `lanes` are busy seconds of the instruction units of a row that is a program, all repetitions included; `alive` are bytes of
    activations in one device's memory while the row runs.

    Devices of a stage that do different work (expert-parallel ranks) have rows of their own; `stands_for` is their part of it.
    """

    name: str
    kind: str
    unit: str
    start_s: float
    end_s: float
    op: float
    bytes: Mapping[str, float]
    joules: Mapping[str, float]
    bound: str
    operands: Mapping[str, float] = field(default_factory=dict)
    fixed_s: float = 0.0
    compute_s: float = 0.0
    memory_s: float = 0.0
    block: str = ""
    repeat: int = 1
    steps: int = 1
    stage: int = 0
    rank: int = 0
    stands_for: float = 1.0
    phase: str = ""
    precision: str = ""
    method: str = ""
    block_start_s: float = 0.0
    block_end_s: float = 0.0
    lanes: Mapping[str, float] = field(default_factory=dict)
    alive: float = 0.0

    @property
    def seconds(self) -> float:
        """How long the row took, repetitions included."""
        return self.end_s - self.start_s

    @property
    def lane(self) -> str:
        """Where the row is drawn: its unit, and the rank where ranks do different work."""
        return f"{self.unit} rank {self.rank}" if self.rank else self.unit

    @property
    def moves(self) -> bool:
        """Whether the row is a transfer over a link."""
        return self.method.startswith("link")

    def shifted(self, by: float) -> TraceRow:
        """The same row, `by` seconds later."""
        return replace(
            self, start_s=self.start_s + by, end_s=self.end_s + by,
            block_start_s=self.block_start_s + by, block_end_s=self.block_end_s + by,
        )  # fmt: skip


@dataclass(frozen=True)
class Trace:
    """The rows of one run, its latency, and how many tokens it made."""

    rows: tuple[TraceRow, ...]
    latency_s: float
    model: str = ""
    arch: str = ""
    tokens: float = 0.0
    marks: Mapping[str, float] = field(default_factory=dict)  # ttft_s, tpot_s where the run has them
    held: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # bytes that stay in each memory, by kind of op
    notes: tuple[str, ...] = ()

    @cached_property
    def energy_j(self) -> float:
        """All joules of the run, static ones included."""
        return math.fsum(joules for row in self.rows for joules in row.joules.values())

    @property
    def tokens_per_s(self) -> float:
        """Tokens made or, in prefill, read per second."""
        return self.tokens / self.latency_s if self.latency_s else 0.0

    @cached_property
    def table(self) -> pd.DataFrame:
        """All rows as a table, with a column per memory (`bytes.hbm`) and per component (`joules.tensor`)."""
        import pandas as pd

        return pd.DataFrame([_flat(row) for row in self.rows]).fillna(0.0)

    def sum(self, what: str, by: str | Sequence[str]) -> dict[Any, float]:
        """Totals of "seconds", "op", "bytes" or "joules" by a row field, or by "memory", "operand", "component" or "lane".

        Seconds are those of the mean device: rows of ranks that work side by side count by the part of the stage they stand for.
        """
        keys = [by] if isinstance(by, str) else list(by)
        totals: dict[Any, list[float]] = {}
        for row in self.rows:
            for part, value in _parts(row, what, keys):
                names = tuple(part if key in _INSIDE else getattr(row, key) for key in keys)
                totals.setdefault(names[0] if len(names) == 1 else names, []).append(value)
        return {key: math.fsum(values) for key, values in totals.items()}

    def utilisation(self) -> dict[str, float]:
        """Share of the run in which each unit was busy with a row, launch overheads included; then of instruction units."""
        stages = 1 + max((row.stage for row in self.rows), default=0)
        units, lanes = (self.sum("seconds", by=part) for part in ("unit", "lane"))
        shares = {name: units[name] for name in sorted(units.keys() - {STATIC})} | {name: lanes[name] for name in sorted(lanes)}
        return {name: busy / (stages * self.latency_s) for name, busy in shares.items()}

    def then(self, other: Trace) -> Trace:
        """This trace followed by another."""
        later = tuple(row.shifted(self.latency_s) for row in other.rows)
        return replace(
            self, rows=self.rows + later, latency_s=self.latency_s + other.latency_s, tokens=self.tokens + other.tokens,
            held=other.held or self.held,
        )  # fmt: skip

    def unfolded(self, limit: int = 20_000) -> Trace:
        """Every repetition as a row of its own, in real order.

        A trace that would exceed `limit` rows, or adds up many passes, is returned as it is.
        """
        if sum(row.repeat for row in self.rows) > limit or any(row.steps > 1 for row in self.rows):
            return self
        rows = sorted((one for row in self.rows for one in _repetitions(row)), key=lambda row: row.start_s)
        return replace(self, rows=tuple(rows))

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of `hwsim run`."""
        names = (
            "name",
            "kind",
            "unit",
            "start_s",
            "end_s",
            "op",
            "bound",
            "phase",
            "block",
            "repeat",
            "stage",
            "precision",
            "method",
            "alive",
        )
        return {
            "model": self.model, "arch": self.arch, "latency_s": self.latency_s, "energy_j": self.energy_j,
            "tokens": self.tokens, "tokens_per_s": self.tokens_per_s, **self.marks, "notes": list(self.notes),
            "held_bytes": {memory: dict(parts) for memory, parts in self.held.items()},
            "ops": [
                {name: getattr(row, name) for name in names}
                | {"bytes": math.fsum(row.bytes.values()), "joules": math.fsum(row.joules.values())}
                | {"bytes_by_memory": dict(row.bytes), "joules_by_component": dict(row.joules)}
                for row in self.rows
            ],
        }  # fmt: skip

    def _repr_html_(self) -> str:
        return str(self.table.to_html(max_rows=40))


_INSIDE = {"memory": "bytes", "operand": "operands", "component": "joules", "lane": "lanes"}


def _parts(row: TraceRow, what: str, keys: Iterable[str]) -> list[tuple[str, float]]:
    """(label, value) pairs of one row: its whole value, or one per memory, operand or component."""
    inside = next((key for key in keys if key in _INSIDE), None)
    if inside is not None:
        return list(getattr(row, _INSIDE[inside]).items())
    value = row.seconds * row.stands_for if what == "seconds" else getattr(row, what)
    return [("", math.fsum(value.values()) if isinstance(value, Mapping) else value)]


def _flat(row: TraceRow) -> dict[str, Any]:
    plain = {name: getattr(row, name) for name in TraceRow.__slots__ if name not in ("bytes", "joules", "operands", "lanes")}
    plain |= {"seconds": row.seconds, "bytes": sum(row.bytes.values()), "joules": sum(row.joules.values())}
    plain |= {f"bytes.{memory}": value for memory, value in row.bytes.items()}
    return plain | {f"joules.{component}": value for component, value in row.joules.items()}


def _repetitions(row: TraceRow) -> Iterable[TraceRow]:
    """The single executions behind a folded row: the block's schedule, `repeat` times faster, `repeat` times in a row."""
    n = row.repeat
    if n == 1:
        yield row
        return
    period = (row.block_end_s - row.block_start_s) / n
    first = row.block_start_s + (row.start_s - row.block_start_s) / n
    one = replace(
        row, op=row.op / n, bytes=_divided(row.bytes, n), joules=_divided(row.joules, n), operands=_divided(row.operands, n),
        fixed_s=row.fixed_s / n, compute_s=row.compute_s / n, memory_s=row.memory_s / n, repeat=1, lanes=_divided(row.lanes, n),
    )  # fmt: skip
    for i in range(n):
        start = first + i * period
        yield replace(one, name=f"{row.name}#{i}", start_s=start, end_s=start + row.seconds / n)


def _divided(parts: Mapping[str, float], n: int) -> dict[str, float]:
    return {name: value / n for name, value in parts.items()}


def check_laws(trace: Trace, asked: Mapping[str, float], served: Mapping[str, float]) -> Trace:
    """The laws every run is held to, at negligible cost: nothing beats its roof, bytes served are bytes asked."""
    slack = 1 + 1e-9
    for row in trace.rows:
        if row.seconds * slack + 4 * math.ulp(row.end_s) < max(row.compute_s, row.memory_s):
            raise InternalError(f"{row.name} took {row.seconds} s on {row.unit}, faster than its roof")
    for memory, wanted in asked.items():
        if not math.isclose(wanted, served.get(memory, 0.0), rel_tol=1e-9, abs_tol=1e-3):
            raise InternalError(f"memory {memory} served {served.get(memory, 0.0)} B of {wanted} B")
    return trace
