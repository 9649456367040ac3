"""Traces as pandas tables: per op, broken down, compared. Text and HTML show these, so that no number is computed twice."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from hwsim.device import Device
from hwsim.trace import STATIC, Trace

Runs = Sequence[tuple[Trace, Device]]

MAX_LINES = 80  # a longer table of ops is folded further
_MARK = r"@\d+\.\d+"  # stage and microbatch in the names of pipelined ops
_REPETITION = r"#\d+$"  # repetition in the names of unfolded ops
_RANK = r"\.rank\d+"  # expert-parallel rank in the names of experts
_LAYER = r"\.\d+$"  # layer in the names of blocks that stand alone (sampled routing)
_KEYS = ["phase", "stage", "block", "op_name", "kind", "unit", "precision", "method"]


def op_table(trace: Trace, limit: int = MAX_LINES) -> pd.DataFrame:
    """One line per phase, stage, block, op and unit; microbatches, steps and repetitions are added up, ranks averaged.

    Longer than `limit`, layers that stand alone are added up too, then stages. `share` is of the latency, so the shares of ops
    that overlap add up to more than one; `bound` is what most of the time of the line is bound by.
    """
    rows = _named(trace)
    lines = _added_up(rows, trace.latency_s)
    if len(lines) > limit:
        rows["block"] = rows["block"].str.replace(_LAYER, "", regex=True)
        lines = _added_up(rows, trace.latency_s)
    if len(lines) > limit:
        rows["stage"] = 0
        lines = _added_up(rows, trace.latency_s)
    return lines


def _named(trace: Trace) -> pd.DataFrame:
    """The trace's own table with `op_name`: the name without block, stage, microbatch and repetition."""
    rows = trace.table.copy()
    block = rows["block"].str.replace(_MARK, "", regex=True)
    name = rows["name"].str.replace(_MARK, "", regex=True).str.replace(_REPETITION, "", regex=True)
    name = name.str.replace(_RANK, "", regex=True)
    rows["seconds"] *= rows["stands_for"]
    rows["op_name"] = [whole.removeprefix(f"{part}.") for whole, part in zip(name, block, strict=True)]
    rows["block"] = block
    return rows


def _added_up(rows: pd.DataFrame, latency: float) -> pd.DataFrame:
    summed = ["repeat", "seconds", "op", "bytes", "joules", *(name for name in rows.columns if name.startswith("bytes."))]
    lines = rows.groupby(_KEYS, sort=False, as_index=False)[summed].sum()
    by_bound = rows.groupby([*_KEYS, "bound"], sort=False, as_index=False)[["seconds"]].sum()
    most = by_bound.sort_values("seconds", ascending=False, kind="stable").drop_duplicates(_KEYS)
    lines = lines.merge(most[[*_KEYS, "bound"]], on=_KEYS, how="left")
    lines["op_b"] = (lines["op"] / lines["bytes"]).where(lines["bytes"] > 0, 0.0)
    lines["share"] = lines["seconds"] / latency if latency else 0.0
    return lines


def breakdown(trace: Trace, what: str, by: Sequence[str]) -> pd.DataFrame:
    """Totals of "seconds", "op", "bytes" or "joules" by fields of a row, "memory", "operand" or "component", largest first."""
    totals = trace.sum(what, by=by)
    lines = [(*(key if len(by) > 1 else (key,)), value) for key, value in totals.items() if value]
    table = pd.DataFrame(lines, columns=[*by, what])
    total = float(table[what].sum())
    table["share"] = table[what] / total if total else 0.0
    return table.sort_values(what, ascending=False, kind="stable", ignore_index=True)


def comparison(runs: Runs) -> pd.DataFrame:
    """One line per run: latency, energy, power, the busy share of each unit, and ratios to the first run (above 1 is better)."""
    first = runs[0][0]
    lines = []
    for trace, _ in runs:
        line = {"latency_s": trace.latency_s, **trace.marks, "tokens": trace.tokens, "tokens_per_s": trace.tokens_per_s}
        if trace.energy_j:
            line |= _energy(trace, first)
        line["speedup"] = _ratio(first.latency_s, trace.latency_s)
        lines.append(line | {f"busy.{unit}": share for unit, share in _busy(trace).items()})
    return pd.DataFrame(lines, index=pd.Index(labels([trace for trace, _ in runs]), name="run"))


def _energy(trace: Trace, first: Trace) -> dict[str, float]:
    return {
        "energy_j": trace.energy_j,
        "joules_per_token": _ratio(trace.energy_j, trace.tokens),
        "power_w": _ratio(trace.energy_j, trace.latency_s),
        "energy_ratio": _ratio(first.energy_j, trace.energy_j),
    }


def _ratio(value: float, to: float) -> float:
    return value / to if value and to else float("nan")


def _busy(trace: Trace) -> dict[str, float]:
    return trace.utilisation() if trace.latency_s else {}


def labels(traces: Sequence[Trace]) -> list[str]:
    """A short, distinct name per run: the device, with the model where models differ, numbered where both are equal."""
    one_model = len({trace.model for trace in traces}) == 1
    names = [trace.arch if one_model else f"{trace.model} on {trace.arch}" for trace in traces]
    return [name if names.count(name) == 1 else f"{name} ({names[: i + 1].count(name)})" for i, name in enumerate(names)]


def phases(trace: Trace) -> list[str]:
    """Phases of a run in the order in which they happen."""
    return list(dict.fromkeys(row.phase for row in trace.rows if row.unit != STATIC))


def of_phase(trace: Trace, phase: str) -> Trace:
    """The rows of one phase as a trace of their own."""
    rows = tuple(row for row in trace.rows if row.phase == phase)
    first, last = min((row.start_s for row in rows), default=0.0), max((row.end_s for row in rows), default=0.0)
    return Trace(rows, last - first, trace.model, trace.arch)


def methods(trace: Trace) -> pd.DataFrame:
    """How the times were obtained: seconds and share per method."""
    return breakdown(trace, "seconds", ["method"])


READS, MANAGE = ("flash", "paging"), "cache"  # kinds of ops that move weights inside a device


def tiered(trace: Trace) -> bool:
    """Whether weights come out of another memory in this run."""
    return any(row.kind in READS for row in trace.rows)


def tier_seconds(trace: Trace) -> dict[str, float]:
    """Busy seconds of reads from a drive or a host, of copies in memory, and of all else."""
    found = trace.sum("seconds", by="kind")
    moved = {"I/O": sum(found.pop(kind, 0.0) for kind in READS), "memory management": found.pop(MANAGE, 0.0)}
    return {**moved, "compute": sum(found.values())}
