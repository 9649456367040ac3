"""Memory tiers: where each byte stays, and whether time goes to reads from a drive, to copies in memory or to compute."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from hwsim.quantity import show
from hwsim.report.breakdown import side_by_side
from hwsim.report.figure import safe
from hwsim.report.palette import kind_colour, kind_order
from hwsim.report.shown import percent
from hwsim.report.tables import Runs, labels, tier_seconds

_PARTS = {"I/O": "#332288", "memory management": "#E69F00", "compute": "#009E73"}


def tier_times(runs: Runs) -> go.Figure:
    """A bar for each run: reads, memory management and compute, added up."""
    names = [safe(name, 40) for name in labels([trace for trace, _ in runs])]
    grid = pd.DataFrame([tier_seconds(trace) for trace, _ in runs])
    return side_by_side(grid, names, _PARTS, "s", "busy time")


def tier_bytes(runs: Runs) -> go.Figure:
    """A bar for each memory of each run: what stays in it, by kind of op; on a drive all weights are of one kind."""
    names, lines = [], []
    for name, (trace, device) in zip(labels([trace for trace, _ in runs]), runs, strict=True):
        for memory, kept in trace.held.items():
            room = float(device.memories[memory].capacity) * device.count
            full = percent(sum(kept.values()) / room)
            names.append(f"{safe(memory, 20)} · {safe(name, 40)}<br>{show(sum(kept.values()), 'B', 3)}, {full} full")
            lines.append(kept)
    grid = pd.DataFrame(lines).fillna(0.0)
    return side_by_side(grid, names, {kind: kind_colour(kind) for kind in kind_order(map(str, grid.columns))}, "B", "bytes")
