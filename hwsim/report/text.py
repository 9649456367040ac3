"""Rich tables for the terminal. They fold long text rather than cut it, so that nothing is lost at 80 columns or in a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from hwsim.device import Device
from hwsim.report import shown
from hwsim.report.points import left_out_note, roofline_points, way_points
from hwsim.report.shown import Shown
from hwsim.report.tables import Runs
from hwsim.trace import Trace


def summary_table(runs: Runs) -> Table:
    """Latency, tokens/s, energy and busy units of each run, side by side."""
    models = ", ".join(dict.fromkeys(trace.model for trace, _ in runs if trace.model))
    return _table(shown.summary(runs), models)


def ops_table(trace: Trace) -> Table:
    """Where time and energy go, op by op."""
    return _table(shown.ops(trace), "Where it goes")


def tiers_table(trace: Trace) -> Table:
    """Reads, memory management and compute, and what every memory holds."""
    return _table(shown.tiers(trace), "Memory tiers")


def roofline_table(trace: Trace, device: Device) -> Table:
    """Op/B of each op against the roof of its unit."""
    found = [*roofline_points(trace, device), *way_points(trace, device)]
    return _table(shown.points(found, left_out_note(trace, device)), f"{trace.model} on {device.name}")


def check_table(document: Mapping[str, Any]) -> Table:
    """The JSON document of `hwsim check`: one line per claim, then the counts."""
    return _table(shown.claims(document), "Published against simulated")


def validation_table(document: Mapping[str, Any]) -> Table:
    """The JSON document of `hwsim validate`: one line per table, device, stack, format and subset."""
    return _table(shown.validation(document), "Measured against predicted")


def facts_table(facts: Mapping[str, Any]) -> Table:
    """The JSON document of `hwsim show`: every number with its source."""
    return _table(shown.facts(facts), "")


def served_table(document: Mapping[str, Any]) -> Table:
    """The JSON document of `hwsim serve`: what was served, how fast, at what cost."""
    return _table(shown.served(document), document["model"])


def latency_table(document: Mapping[str, Any]) -> Table:
    """Mean and percentiles of what requests waited for."""
    return _table(shown.latencies(document), "Latencies")


def capacity_table(document: Mapping[str, Any]) -> Table:
    """All rates that a capacity search tried."""
    return _table(shown.rates(document), "Capacity")


def _table(content: Shown, title: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    table.title, table.title_justify, table.title_style = safe(title) if title else None, "left", "bold"
    table.caption, table.caption_justify, table.caption_style = safe(content.note) if content.note else None, "left", "dim"
    for index, heading in enumerate(content.header):
        right = index in content.numbers
        table.add_column(safe(heading), justify="right" if right else "left", overflow="fold")
    groups = content.groups or {}
    for index, line in enumerate(content.lines):
        if index in groups:
            table.add_row(Text(safe_text(groups[index]), style="bold"))
        table.add_row(*map(safe, line))
    return table


def safe(text: str) -> Text:
    """Text from a file: markup in it means nothing, and control characters never reach the terminal."""
    return Text(safe_text(text))


def safe_text(text: str) -> str:
    """The text with unprintable characters replaced."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
