"""Tables as people read them: headed columns of text, the same for the terminal and for HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hwsim.quantity import show
from hwsim.report.tables import Runs, comparison, methods, op_table, tier_seconds
from hwsim.trace import STATIC, Trace

NONE = "-"
HOW = {
    "roofline": "launch overhead + the longer of operations / achievable peak and bytes / achievable bandwidth",
    "link": "hops x latency + bytes / achievable bandwidth of the link",
    "link drive": "requests in flight at a drive (hwsim/kernels/drive.py)",
    "link collective": "collective measured on GPUs of this generation (hwsim/kernels/collective.py)",
}
KERNEL = "kernel model fitted on GPUs of this generation (hwsim/kernels/{}.py)"


@dataclass(frozen=True)
class Shown:
    """A table of text. `numbers` are the columns set flush right; `groups` heads the lines that follow a given index."""

    header: tuple[str, ...]
    lines: Sequence[tuple[str, ...]]
    numbers: frozenset[int] = frozenset()
    groups: Mapping[int, str] | None = None
    note: str = ""


def quantity(value: float, unit: str, digits: int = 4) -> str:
    """An SI value with prefix, or a dash where there is none."""
    return NONE if not math.isfinite(value) else show(value, unit, digits)


def percent(share: float) -> str:
    """12.3 %; what is there but tiny is not shown as zero."""
    return "<0.1 %" if 0 < share < 0.0005 else f"{share * 100:.1f} %"


def seconds(value: float) -> str:
    """A time."""
    return quantity(value, "s")


def number(value: float) -> str:
    """A plain number with thousands marked: Op/B, tokens per second."""
    if not math.isfinite(value):
        return NONE
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def times(value: float) -> str:
    """A ratio."""
    return NONE if not math.isfinite(value) else f"{value:.3g}x"


_METRICS: dict[str, tuple[str, Any]] = {
    "latency_s": ("latency", seconds),
    "ttft_s": ("time to first token", seconds),
    "tpot_s": ("time per output token", seconds),
    "peak_activation_bytes": ("maps alive at once", lambda value: quantity(value, "B")),
    "tokens": ("tokens", number),
    "tokens_per_s": ("tokens/s", number),
    "energy_j": ("energy", lambda value: quantity(value, "J")),
    "joules_per_token": ("energy per token", lambda value: quantity(value, "J")),
    "power_w": ("average power", lambda value: quantity(value, "W")),
}
_RATIOS: dict[str, tuple[str, Any]] = {
    "speedup": ("speedup", times),
    "energy_ratio": ("energy saving", times),
}


def summary(runs: Runs) -> Shown:
    """Metrics down, runs across; ratios to the first run where there are several."""
    table = comparison(runs)
    metrics = _METRICS | (_RATIOS if len(runs) > 1 else {})
    metrics |= {name: (f"{name.removeprefix('busy.')} busy", _share) for name in table.columns if name.startswith("busy.")}
    lines = [(title, *map(write, table[name])) for name, (title, write) in metrics.items() if name in table.columns]
    without = [str(name) for name, (trace, _) in zip(table.index, runs, strict=True) if not trace.energy_j]
    note = f"No energy: the device file of {', '.join(without)} holds no energy numbers." if without else ""
    ratios = f"Ratios are to {table.index[0]}; above 1 is better." if len(runs) > 1 else ""
    header = ("", *map(str, table.index))
    return Shown(header, lines, frozenset(range(1, len(header))), note=" ".join(filter(None, (ratios, note))))


def _share(value: float) -> str:
    return NONE if not math.isfinite(value) else percent(value)


def ops(trace: Trace) -> Shown:
    """One line per op under a heading per phase, stage and block."""
    table = op_table(trace)
    records = table.to_dict("records")
    groups = _groups([_heading(line, table["stage"].nunique() > 1) for line in records])
    header = ("op", "unit", "runs", "time", "share", "bound", "Op/B", "energy")
    note = "runs: layers x steps x microbatches; share: of the latency; Op/B: operations per byte moved."
    return Shown(header, [_op_line(line) for line in records], frozenset({2, 3, 4, 6, 7}), groups, note)


def _groups(headings: Sequence[str]) -> dict[int, str]:
    """Headings where they change, by the index of the line they stand above."""
    return {i: heading for i, heading in enumerate(headings) if i == 0 or heading != headings[i - 1]}


def _heading(line: Mapping[Any, Any], many_stages: bool) -> str:
    if line["unit"] == STATIC:
        return "always"
    stage = f"stage {line['stage']}" if many_stages else ""
    return " / ".join(filter(None, (line["phase"], stage, line["block"]))) or "all"


def _op_line(line: Mapping[Any, Any]) -> tuple[str, ...]:
    joules = quantity(line["joules"], "J", 3) if line["joules"] else NONE
    if line["unit"] == STATIC:
        return (_static_name(line), NONE, NONE, NONE, NONE, NONE, NONE, joules)
    op_b = number(line["op_b"]) if line["op"] else NONE
    when = (f"{line['repeat']:,}", quantity(line["seconds"], "s", 3), percent(line["share"]))
    return (line["op_name"], line["unit"], *when, line["bound"], op_b, joules)


def _static_name(line: Mapping[Any, Any]) -> str:
    return f"static power, {line['phase']}" if line["phase"] else "static power"


def details(trace: Trace) -> Shown:
    """The full per-op table of an HTML report."""
    table = op_table(trace)
    lines = [_detail_line(line, table["stage"].nunique() > 1) for line in table.to_dict("records")]
    header = (
        "where",
        "op",
        "kind",
        "unit",
        "runs",
        "time",
        "share",
        "bound",
        "Op/B",
        "energy",
        "operations",
        "bytes",
        "format",
        "method",
    )
    return Shown(header, lines, frozenset({4, 5, 6, 8, 9, 10, 11}))


def _detail_line(line: Mapping[Any, Any], many_stages: bool) -> tuple[str, ...]:
    name, *values = _op_line(line)
    amounts = [show(line[what], unit) if line[what] else NONE for what, unit in (("op", "op"), ("bytes", "B"))]
    return (_heading(line, many_stages), name, line["kind"], *values, *amounts, line["precision"] or NONE, line["method"] or NONE)


def tiers(trace: Trace) -> Shown:
    """Seconds of reads, management and compute with their share, and what every memory holds."""
    found = tier_seconds(trace)
    busy = sum(found.values())
    lines = [(name, seconds(value), percent(value / busy) if busy else "") for name, value in found.items()]
    lines += [
        (
            f"{memory} holds",
            show(sum(kept.values()), "B"),
            ", ".join(f"{kind} {show(size, 'B', 3)}" for kind, size in kept.items()),
        )
        for memory, kept in trace.held.items()
    ]
    return Shown(("", "", "of which"), lines, frozenset({1}))


def how(trace: Trace) -> Shown:
    """Where the times come from: method, what it does, and its part of the time."""
    records = methods(trace).to_dict("records")
    lines = [(row["method"] or NONE, _how(row["method"]), percent(row["share"])) for row in records]
    return Shown(("method", "time is", "share of busy time"), lines, frozenset({2}))


def _how(method: str) -> str:
    family = method.removeprefix("kernel ")
    return HOW.get(method, KERNEL.format(family) if family != method else NONE)


def points(found: Sequence[Mapping[str, Any]], note: str) -> Shown:
    """Roofline points, one line each, under a heading per phase, stage and block."""
    many_stages = len({point["stage"] for point in found}) > 1
    groups = _groups([_heading(point, many_stages) for point in found])
    header = ("op", "unit", "Op/B", "op/s", "roof", "of roof", "time", "bound")
    return Shown(header, [_point_line(point) for point in found], frozenset({2, 3, 4, 5, 6}), groups, note)


def _point_line(point: Mapping[str, Any]) -> tuple[str, ...]:
    unit, fraction = f"{point['unit']} {point['precision']}", percent(point["fraction"])
    rates = [show(point[name], "op/s", 3).removesuffix("op/s") for name in ("attained_op_s", "roof_op_s")]
    return (point["name"], unit, number(point["op_b"]), *rates, fraction, quantity(point["seconds"], "s", 3), point["bound"])


def claims(document: Mapping[str, Any]) -> Shown:
    """The document of `hwsim check`: one line per claim, its reason below the metric."""
    lines = [_claim_line(claim) for claim in document["claims"]]
    header = ("id", "metric", "published", "simulated", "error", "within", "verdict")
    return Shown(header, lines, frozenset({2, 3, 4, 5}), note=_claims_note(document["summary"]))


def _claim_line(claim: Mapping[str, Any]) -> tuple[str, ...]:
    unit = f" [{claim['unit']}]" if claim.get("unit") else ""
    metric = f"{claim['metric']}{unit}" + (f"\n{claim['reason']}" if claim["reason"] else "")
    error = NONE if claim["error"] is None else f"{claim['error'] * 100:+.1f} %"
    verdict = claim["verdict"] if claim["role"] == "claim" else f"{claim['role']}: {claim['verdict']}"
    mark = "" if claim.get("ok", True) else " (!)"
    values = (plain(claim["published"]), plain(claim["simulated"]))
    return (claim["id"], metric, *values, error, f"{claim['tolerance'] * 100:g} %", verdict + mark)


def _claims_note(summary: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in summary.items() if name not in ("rows", "failed"))
    failed = f"; {summary['failed']} differ from the status in their file (!)" if summary.get("failed") else ""
    return f"{summary['rows']} claims: {counts}{failed}"


def validation(document: Mapping[str, Any]) -> Shown:
    """The document of `hwsim validate`, errors in percent; a device or kernel without a model has none."""
    errors = ("mape", "median", "p90", "trimmed_mape", "bias")
    lines = [
        (
            row["table"], row["device"] or f"unknown: {row['source_device']}", row["family"], row["stack"], row["dtype"],
            row["subset"], f"{row['n']:,}", *(f"{100 * row[name]:.1f}" if row.get(name) is not None else NONE for name in errors),
        )
        for row in document["rows"]
    ]  # fmt: skip
    header = ("table", "device", "family", "stack", "dtype", "rows of", "n", "MAPE [%]", "median", "p90", "trimmed", "bias")
    priced = sum(row["n"] for row in document["rows"] if row["mape"] is not None and row["subset"] == "all")
    every = sum(row["n"] for row in document["rows"] if row["subset"] == "all")
    note = f"{priced:,} of {every:,} rows priced. trimmed: mean of the best 90 %; bias: median signed error"
    return Shown(header, lines, frozenset(range(6, 12)), note=note)


def plain(value: Any) -> str:
    """A published or simulated value: a number, a list of them, or nothing."""
    if value is None:
        return NONE
    if isinstance(value, list | tuple):
        return ", ".join(plain(one) for one in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def facts(document: Mapping[str, Any]) -> Shown:
    """The document of `hwsim show`: every number with its source, which for a network is the file as a whole."""
    source = str(document.get("source", ""))
    lines = [
        (path, value, source) for path, value in _flat({k: v for k, v in document.items() if k not in ("numbers", "source")})
    ]
    lines += [(row["path"], str(row["value"]), row["source"]) for row in document.get("numbers", ())]
    return Shown(("number", "value", "source"), lines)


def _flat(node: Any, path: str = "") -> list[tuple[str, str]]:
    """(dotted path, value) of every leaf of nested mappings and lists."""
    if isinstance(node, Mapping):
        return [leaf for key, value in node.items() for leaf in _flat(value, f"{path}.{key}" if path else str(key))]
    if isinstance(node, list | tuple):
        return [leaf for i, value in enumerate(node) for leaf in _flat(value, f"{path}.{i}")]
    counted = isinstance(node, int) and not isinstance(node, bool)
    return [] if node is None or node == "" else [(path, f"{node:,}" if counted else str(node))]


def provenance(written: Mapping[str, str], sources: Mapping[str, str]) -> Shown:
    """Every number of a device as its file writes it, with where it comes from."""
    lines = [(path, written.get(path, ""), source or "no source given") for path, source in sources.items()]
    return Shown(("number", "value", "source"), lines)


_REASONS = 3  # sorts of rejection that are named


def served(document: Mapping[str, Any]) -> Shown:
    """The document of `hwsim serve` without its latencies, a fact a line."""
    dry = "" if document["energy_j"] or not document["completed"] else "No energy: the device file holds no energy numbers."
    facts = [
        *_load(document),
        ("time from first arrival to last token", seconds(document["makespan_s"])),
        ("output tokens/s", number(document["tokens_per_s"])),
        ("requests/s", number(document["requests_per_s"])),
        *_goal(document),
        ("engines busy", percent(document["utilisation"])),
        ("KV cache", f"{document['kv_blocks'] * document['kv_block_tokens']:,} tokens an engine"),
        ("KV cache in use at most", percent(document["kv_peak"])),
        ("preemptions", f"{document['preemptions']:,}"),
        ("steps", f"{document['steps']:,}"),
        ("energy", NONE if dry else quantity(document["energy_j"], "J")),
        ("energy per output token", quantity(document["energy_per_token_j"] or math.nan, "J")),
    ]
    why = f"Rejected: {'; '.join(document['reasons'][:_REASONS])}." if document["reasons"] else ""
    return Shown(("", document["arch"]), facts, frozenset({1}), note=" ".join(filter(None, (why, dry))))


def _load(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What came in, and what became of it."""
    rate, concurrency = document["rate"], document["concurrency"]
    offered = ("concurrency", f"{concurrency:,}") if concurrency else ("offered requests/s", number(rate) if rate else NONE)
    return [offered, *((name, f"{document[name]:,}") for name in ("requests", "completed", "rejected"))]


_CAPACITY = {
    "exact": "{:g}", "at most": "at most {:g}", "none": "no limit found", "unmet": "none of those tried",
}  # fmt: skip


def _goal(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What met the objective; nothing where there is none."""
    if "slo" not in document:
        return []
    met = f"{document['slo_met']:,} ({percent(document['slo_met'] / document['requests'])})"
    found = [(f"requests within {document['slo']}", met), ("goodput, requests/s within it", number(document["goodput"]))]
    if "capacity" in document:
        title = f"capacity, highest requests/s with {percent(document['slo_part'])} within it"
        found.append((title, _CAPACITY[document["capacity"]["limit"]].format(document["capacity"]["rate"])))
    return found


_LATENCIES = {
    "queue_s": "queueing (arrival to first step)", "ttft_s": "TTFT (arrival to first token)",
    "tpot_s": "TPOT (mean time per later token)", "tbt_s": "TBT (between two tokens)", "e2e_s": "E2E (arrival to last token)",
}  # fmt: skip


def latencies(document: Mapping[str, Any]) -> Shown:
    """Mean and percentiles of the times that a request sees."""
    columns = ("mean", "p50", "p90", "p99")
    lines = [(title, *(_time(document[name][column]) for column in columns)) for name, title in _LATENCIES.items()]
    return Shown(("", *columns), lines, frozenset(range(1, 5)))


def _time(value: float | None) -> str:
    return NONE if value is None else seconds(value)


def rates(document: Mapping[str, Any]) -> Shown:
    """Every rate that a capacity search tried."""
    part = document["slo_part"]
    lines = [
        (f"{one['rate']:g}", percent(one["met"]), "yes" if one["met"] >= part else "no") for one in document["capacity"]["tried"]
    ]
    return Shown(("requests/s", "within the objective", "kept"), lines, frozenset({0, 1}))
