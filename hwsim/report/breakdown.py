"""Figures of where time and energy go: by op kind, unit and component, for one run or several side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
import plotly.graph_objects as go

from hwsim.quantity import show
from hwsim.report.figure import safe, si_axis, styled
from hwsim.report.palette import OTHER, bound_colour, component_colours, kind_colour, kind_order
from hwsim.report.shown import percent, times
from hwsim.report.tables import Runs, breakdown, comparison, labels
from hwsim.trace import Trace

MOST_BARS = 12  # what is smaller than the largest ones becomes "other"
_BOUND_ORDER = ("compute", "memory", "shared", "link", "latency")


def time_by_kind(trace: Trace) -> go.Figure:
    """Busy seconds of each op kind, by what bounds them; labels are shares of all busy time."""
    table = _largest(breakdown(trace, "seconds", ["kind", "bound"]), "kind", "seconds")
    colours = {bound: bound_colour(bound) for bound in _BOUND_ORDER if bound in set(table["bound"])}
    return _shares(_grid(table, "kind", "bound", "seconds"), colours, "s", "busy time")


def energy_by_kind(trace: Trace, components: Iterable[str] = ()) -> go.Figure:
    """Joules of each op kind, by component: memories, units, links, static power; labels are shares of all energy.

    `components` of other runs on the same page keep the colours the same.
    """
    table = _largest(breakdown(trace, "joules", ["kind", "component"]), "kind", "joules")
    return _shares(
        _grid(table, "kind", "component", "joules"), component_colours({*table["component"], *components}), "J", "energy"
    )


def time_of_runs(runs: Runs) -> go.Figure:
    """Busy seconds of each run by op kind; labels give the latency and its ratio to the first run."""
    compared = comparison(runs)
    grid = _of_runs(runs, "seconds", "kind")
    colours = {kind: kind_colour(kind) for kind in kind_order(map(str, grid.columns))}
    return side_by_side(grid, _labels(compared, "latency_s", "s", "speedup"), colours, "s", "busy time")


def energy_of_runs(runs: Runs) -> go.Figure:
    """Joules of each run by component; labels give the energy and its ratio to the first run."""
    grid = _of_runs(runs, "joules", "component")
    colours = component_colours(components_of(runs))
    return side_by_side(grid, _labels(comparison(runs), "energy_j", "J", "energy_ratio"), colours, "J", "energy")


def throughput_of_runs(runs: Runs) -> go.Figure:
    """Tokens/s of each run over those of the first, as papers draw it."""
    compared = comparison(runs)
    ratios = [float(one) for one in compared["tokens_per_s"] / compared["tokens_per_s"].iloc[0]]
    bar = go.Bar(
        x=ratios, y=[safe(str(name), 40) for name in compared.index], orientation="h", marker={"color": "#009E73"}, width=0.6,
        text=[times(one) for one in ratios], textposition="outside", cliponaxis=False, hoverinfo="none",
    )  # fmt: skip
    axis = {"range": [0, 1.15 * max(ratios)], "title": {"text": "throughput relative to the first"}}
    return styled(go.Figure(bar), 64 + 34 * len(runs), xaxis=axis, yaxis={"autorange": "reversed"}, showlegend=False)


def busy_units(runs: Runs) -> go.Figure:
    """Share of the latency in which each unit and link was busy."""
    tables = [
        pd.DataFrame([{"run": name, "unit": unit, "share": share} for unit, share in trace.utilisation().items()])
        for name, (trace, _) in zip(labels([trace for trace, _ in runs]), runs, strict=True)
        if trace.latency_s
    ]
    lines = pd.concat(tables) if tables else pd.DataFrame(columns=["run", "unit", "share"])
    names = [f"{unit} · {run}" if len(runs) > 1 else unit for unit, run in zip(lines["unit"], lines["run"], strict=True)]
    bar = go.Bar(
        x=lines["share"], y=[safe(name, 40) for name in names], orientation="h", marker={"color": "#0072B2"}, width=0.6,
        text=[percent(share) for share in lines["share"]], textposition="outside", cliponaxis=False, hoverinfo="none",
    )  # fmt: skip
    axis = {
        "range": [0, 1.15],
        "tickvals": [0, 0.25, 0.5, 0.75, 1],
        "tickformat": ".0%",
        "title": {"text": "busy share of the latency"},
    }
    return styled(go.Figure(bar), 64 + 28 * max(len(lines), 2), xaxis=axis, yaxis={"autorange": "reversed"}, showlegend=False)


def components_of(runs: Runs) -> set[str]:
    """Components that take energy in any of the runs."""
    return {component for trace, _ in runs for component, joules in trace.sum("joules", by="component").items() if joules}


def _of_runs(runs: Runs, what: str, by: str) -> pd.DataFrame:
    names = labels([trace for trace, _ in runs])
    tables = [breakdown(trace, what, [by]).assign(run=name) for name, (trace, _) in zip(names, runs, strict=True)]
    return _grid(pd.concat(tables), "run", by, what)


def _labels(compared: pd.DataFrame, value: str, unit: str, ratio: str) -> list[str]:
    """Name, value and ratio of each run, in two lines so that they fit beside the bars of a narrow page."""
    ratios = [f" · {times(one)}" if len(compared) > 1 else "" for one in compared[ratio]]
    values = [show(one, unit, 3) for one in compared[value]]
    return [f"{safe(str(name), 28)}<br>{v}{r}" for name, v, r in zip(compared.index, values, ratios, strict=True)]


def _largest(table: pd.DataFrame, key: str, value: str) -> pd.DataFrame:
    """The table with all but the largest entries of `key` called "other"."""
    order = table.groupby(key)[value].sum().sort_values(ascending=False, kind="stable")
    keep = set(order.index[:MOST_BARS])
    return table.assign(**{key: [name if name in keep else OTHER for name in table[key]]})


def _grid(table: pd.DataFrame, row: str, part: str, value: str) -> pd.DataFrame:
    """Rows down, parts across."""
    return table.pivot_table(index=row, columns=part, values=value, aggfunc="sum", fill_value=0.0, sort=False)


def _shares(grid: pd.DataFrame, colours: Mapping[str, str], unit: str, title: str) -> go.Figure:
    """Largest row first, the share of the whole written at the end of its bar."""
    totals = grid.sum(axis=1).sort_values(ascending=False, kind="stable")
    rows = [safe(str(name), 40) for name in totals.index]
    figure = go.Figure(_bars(grid.loc[totals.index], rows, colours, unit))
    texts = [f" {percent(float(value) / float(totals.sum()))}" for value in totals]
    ends = {
        "mode": "text",
        "text": texts,
        "textposition": "middle right",
        "showlegend": False,
        "hoverinfo": "skip",
        "cliponaxis": False,
    }
    figure.add_trace(go.Scatter(x=list(totals), y=rows, **ends))
    axis = si_axis(unit, float(totals.max()) * 1.3, title)
    return styled(figure, 64 + 26 * max(len(rows), 2), barmode="stack", xaxis=axis, yaxis={"autorange": "reversed"})


def side_by_side(grid: pd.DataFrame, names: list[str], colours: Mapping[str, str], unit: str, title: str) -> go.Figure:
    """A stacked bar for each line of `grid`, called by its name."""
    figure = go.Figure(_bars(grid, names, colours, unit))
    axis = si_axis(unit, float(grid.sum(axis=1).max()) * 1.05, title)
    return styled(figure, 64 + 50 * len(names), barmode="stack", xaxis=axis, yaxis={"autorange": "reversed"})


def _bars(grid: pd.DataFrame, rows: list[str], colours: Mapping[str, str], unit: str) -> list[go.Bar]:
    """One stacked trace per part."""
    bars = []
    for part in (name for name in colours if name in grid):
        values = [float(value) for value in grid[part]]
        hover = [f"<b>{row}</b><br>{safe(part)}: {show(value, unit)}" for row, value in zip(rows, values, strict=True)]
        bar = go.Bar(x=values, y=rows, orientation="h", name=safe(part), marker={"color": colours[part]}, width=0.7)
        bars.append(bar.update(hoverinfo="text", hovertext=hover))
    return bars
