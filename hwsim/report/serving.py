"""One HTML page of a served load: numbers, distributions of latencies, what the engines did over time, the capacity search."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from hwsim.report import shown
from hwsim.report.figure import INK, decades, si_axis, styled
from hwsim.report.page import Figure, Section, Sheet, Words, page
from hwsim.report.palette import measure_colour
from hwsim.serving.asked import Goal, Outcome
from hwsim.serving.served import Served

Floats = NDArray[np.float64]
Blocks = list[Figure | Sheet | Words]
_POINTS = 500  # of a distribution
_INTERVALS = 200  # of the time axis
_TALL, _WIDE = 300, 260  # heights of figures
_SKEWED = 20.0  # times the median; what goes that far needs a logarithmic axis
_FAR = 3.0  # times all that was measured; a bound beyond is not drawn to scale
_NARROW = 5.0  # between the ends of a logarithmic axis
_PERCENTILES = ("p50", "p90", "p99")
_FIFTHS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
_TITLES = {"ttft": "TTFT", "tpot": "TPOT", "tbt": "TBT", "e2e": "E2E", "queue": "queueing"}
_MEANING = {
    "ttft": "time to first token, from the arrival", "tpot": "mean time per output token after the first",
    "tbt": "every single time between two tokens", "e2e": "arrival to last token",
}  # fmt: skip
_HOW = (
    "Rates and utilisation are over the time from the first arrival to the last token.",
    "Goodput counts requests within the objective; capacity is the highest rate at which enough of all are within it.",
    "Percentiles interpolate linearly between requests; those of TBT are over all tokens.",
    "Energy is that of all devices, static power included.",
)


def serving_page(outcome: Outcome, settings: Mapping[str, str]) -> str:
    """The whole report as one self-contained page."""
    served, document = outcome.served, outcome.to_dict()
    sections = [
        Section("Result", [Sheet(shown.served(document), wide=False), Sheet(shown.latencies(document), wide=False)]),
        Section("Latencies", _distributions(served, outcome.goal)),
        Section("Over time", _over_time(served)),
        *([Section("Capacity", _capacity(outcome, document))] if outcome.capacity else []),
        Section("How this was obtained", [Words([*_HOW, *outcome.notes])]),
    ]
    return page(f"{served.model} served by {served.arch}", settings, sections)


def _distributions(served: Served, goal: Goal | None) -> Blocks:
    """How each latency is distributed, with its bound where the objective has one."""
    if not served.completed:
        return [Words(["No request was completed, so there are no latencies."])]
    blocks: Blocks = []
    for name, meaning in _MEANING.items():
        values, weights = _values(served, name)
        bound = goal.objective.bounds.get(name) if goal else None
        if len(values):
            figure = distribution_figure(name, values, weights, served.summary(f"{name}_s"), bound)
            blocks.append(Figure(figure, "", f"{_TITLES[name]}: {meaning}", wide=False))
    return blocks


def _values(served: Served, name: str) -> tuple[Floats, Floats]:
    """All times of a sort [s], and how often each was had."""
    if name == "tbt":
        return served.gaps
    values = served.table[f"{name}_s"].dropna().to_numpy()
    return values, np.ones(len(values))


def cumulated(values: Floats, weights: Floats, points: int = _POINTS) -> tuple[Floats, Floats]:
    """(value, part of all that are at most that), thinned evenly over the parts; starts at part 0, ends at 1."""
    order = np.argsort(values, kind="stable")
    parts = np.cumsum(weights[order]) / weights.sum()
    at = np.unique(np.minimum(np.searchsorted(parts, np.linspace(0, 1, points)), len(parts) - 1))
    return np.concatenate((values[order][:1], values[order][at])), np.concatenate(([0.0], parts[at]))


def distribution_figure(
    name: str, values: Floats, weights: Floats, summary: Mapping[str, float | None], bound: float | None
) -> go.Figure:
    """Which part of all had at most so many seconds; the percentiles of `summary` are marked."""
    x, y = cumulated(values, weights)
    hover = [f"{part:.1%} within {shown.seconds(value)}" for value, part in zip(x, y, strict=True)]
    figure = go.Figure(_line(x, y, measure_colour(name), "", hover).update(line={"shape": "hv"}))
    marked = {name: value for name in _PERCENTILES if (value := summary[name]) is not None}
    near = bound is not None and bound < _FAR * (x[-1] or 1.0)
    high = (max(x[-1], bound) if near and bound else float(x[-1])) or 1.0
    across = _axis(float(x[x > 0][0]), high, _time) if high > _SKEWED * marked["p50"] > 0 else si_axis("s", high * 1.05, "")
    figure.add_trace(_marks(marked, measure_colour(name), across))
    if bound is not None:
        figure.add_trace(
            _bound([bound, bound], [0, 1], f"objective: {shown.seconds(bound)}{'' if near else ', beyond this axis'}")
        )
    title = "part of tokens" if name == "tbt" else "part of requests"
    up = {"range": [0, 1.1], "tickvals": _FIFTHS, "tickformat": ".0%", "title": {"text": title}}
    return styled(figure, _TALL, xaxis=across | {"title": {"text": _TITLES[name]}}, yaxis=up)


def _marks(marked: Mapping[str, float], colour: str, across: Mapping[str, Any]) -> go.Scatter:
    """Percentiles as points; labels stand where a rising line leaves room: under it on the left side, above it on the right."""
    logarithmic, (low, high) = across.get("type") == "log", across["range"]
    at = [(math.log10(value) if logarithmic else value) for value in marked.values()]
    sides = ["top left" if where > (low + high) / 2 else "bottom right" for where in at]
    text = [f" {name} {_time(value)} " for name, value in marked.items()]
    return go.Scatter(
        x=list(marked.values()), y=[int(name[1:]) / 100 for name in marked], mode="markers+text", text=text, textposition=sides,
        marker={"color": colour, "size": 7}, showlegend=False, hoverinfo="skip", textfont={"size": 12},
    )  # fmt: skip


def _line(x: Floats, y: Floats, colour: str, name: str, hover: list[str]) -> go.Scatter:
    """A line, in the legend if it has a name."""
    return go.Scatter(
        x=x, y=y, mode="lines", line={"color": colour, "width": 2}, marker={"color": colour}, name=name, showlegend=bool(name),
        hoverinfo="text", hovertext=hover,
    )  # fmt: skip


def _bound(x: list[float], y: list[float], name: str) -> go.Scatter:
    """A dashed line that is not to be crossed."""
    line = {"color": INK, "width": 1, "dash": "dash"}
    return go.Scatter(x=x, y=y, mode="lines", line=line, marker={"color": INK}, name=name, hoverinfo="skip")


def _axis(low: float, high: float, write: Callable[[float], str]) -> dict[str, Any]:
    """A logarithmic axis with room on both sides, linear from 0 where that would show too few ticks; 1, 2, 5 for few decades."""
    if high < _NARROW * low:
        axis = si_axis("", high * 1.1, "")
        return axis | {"ticktext": [write(tick) for tick in axis["tickvals"]]}
    low, high = low / 1.2, high * 1.2
    axis = decades(low, high, "")
    if high < 1000 * low:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        axis["tickvals"] = [factor * 10.0**n for n in powers for factor in (1, 2, 5)]
    return axis | {"ticktext": [write(tick) for tick in axis["tickvals"]]}


def _time(value: float) -> str:
    return shown.quantity(value, "s", 3)


def _over_time(served: Served) -> Blocks:
    """Batch, queue, cache and throughput, as means over short intervals."""
    if not len(served.steps) or not served.makespan_s:
        return [Words(["No step ran."])]
    start = float(np.nanmin(served.fates.arrival_s))
    edges = start + np.linspace(0, served.makespan_s, _INTERVALS + 1)
    caption = f"Means over intervals of {shown.seconds(served.makespan_s / _INTERVALS)}."
    several = " All engines together." if served.instances > 1 else ""
    sequences, blocks = (means_over(served.steps, column, edges) for column in ("sequences", "blocks"))
    waiting = waiting_over(served, edges)
    processed = means_over(served.steps.assign(rate=_rate(served.steps)), "rate", edges)
    made = np.diff(tokens_until(served, edges)) / np.diff(edges)
    cache = blocks / (served.room.blocks * served.instances)
    return [
        Figure(
            time_figure(edges, {"prompt and output tokens": processed, "output tokens": made}, "tokens/s"),
            f"{caption} Output tokens of a request are spread evenly from its first to its last.{several}", "Throughput",
        ),
        Figure(
            time_figure(edges, {"sequences in a step": sequences, "requests that wait": waiting}, "number"),
            caption + several, "Batch size and queue length", wide=False,
        ),
        Figure(
            time_figure(edges, {"KV cache in use": cache}, "part of all blocks", percent=True), caption + several,
            "KV cache in use", wide=False,
        ),
    ]  # fmt: skip


def _rate(steps: pd.DataFrame) -> pd.Series[float]:
    """Tokens that go through a pass, per second."""
    return steps["tokens"] * steps["steps"] / (steps["end_s"] - steps["start_s"])


def means_over(steps: pd.DataFrame, column: str, edges: Floats) -> Floats:
    """Mean of a column over time between `edges`, 0 where an engine does nothing; engines are added up."""
    total = np.zeros(len(edges) - 1)
    for _, rows in steps.groupby("replica"):
        start, end = rows["start_s"].to_numpy(), rows["end_s"].to_numpy()
        area = np.cumsum(rows[column].to_numpy() * (end - start))
        times = np.column_stack((start, end)).ravel()
        areas = np.column_stack((np.concatenate(([0.0], area[:-1])), area)).ravel()
        total += np.diff(np.interp(edges, times, areas)) / np.diff(edges)
    return total


def waiting_over(served: Served, edges: Floats) -> Floats:
    """Mean number of requests that have arrived and not begun, between `edges`."""
    begun = ~np.isnan(served.fates.started_s)
    arrived, started = served.fates.arrival_s[begun], served.fates.started_s[begun]
    waited = [float((np.clip(when, arrived, started) - arrived).sum()) for when in edges]  # by all requests until then
    return np.asarray(np.diff(waited) / np.diff(edges))


def tokens_until(served: Served, times: Floats) -> Floats:
    """Output tokens made until each time: the first of a request when it came, the others evenly from then to the last."""
    done = ~np.isnan(served.fates.finished_s)
    first, last, later = served.fates.first_s[done], served.fates.finished_s[done], served.requests.output[done] - 1.0
    length = np.where(last > first, last - first, 1.0)
    return np.array([float(((when >= first) + later * np.clip((when - first) / length, 0, 1)).sum()) for when in times])


def time_figure(edges: Floats, lines: Mapping[str, Floats], title: str, percent: bool = False) -> go.Figure:
    """Lines over the time since the first edge; a single one is filled and needs no legend."""
    middle = (edges[1:] + edges[:-1]) / 2 - edges[0]
    figure = go.Figure()
    for name, values in lines.items():
        write = shown.percent if percent else shown.number
        hover = [
            f"{name}: {write(float(value))}, at {shown.seconds(float(when))}" for when, value in zip(middle, values, strict=True)
        ]
        figure.add_trace(_line(middle, values, measure_colour(name), name if len(lines) > 1 else "", hover))
    if len(lines) == 1:
        figure.data[0].fill = "tozeroy"
    highest = max(float(values.max()) for values in lines.values()) or 1.0
    up = {"range": [0, highest * 1.1], "tickformat": "~%" if percent else ",~r", "nticks": 6, "title": {"text": title}}
    across = {"range": [0, edges[-1] - edges[0]], "tickformat": ",~r", "title": {"text": "time since the first arrival [s]"}}
    return styled(figure, _WIDE, xaxis=across, yaxis=up)


def _capacity(outcome: Outcome, document: Mapping[str, Any]) -> Blocks:
    """What met the objective, goodput and latencies at every rate that was tried."""
    if outcome.capacity is None or outcome.goal is None:
        return []
    goal, tried = outcome.goal, outcome.capacity.tried
    rates = np.array([rate for rate, _, _ in tried])
    met = np.array([part for _, part, _ in tried])
    goodput = np.array([served.goodput(goal.objective) for _, _, served in tried])
    blocks: Blocks = [
        Figure(kept_figure(rates, met, outcome.capacity.rate, goal.part), "", f"Requests within {goal.objective}", wide=False),
        Figure(
            goodput_figure(rates, goodput),
            "Rates are over the time until the last token: the fewer the requests, the further below what is offered.",
            "Goodput", wide=False,
        ),
    ]  # fmt: skip
    for name in dict.fromkeys(("ttft", "tpot", *goal.objective.bounds)):
        summaries = [served.summary(f"{name}_s") for _, _, served in tried]
        figure = percentiles_figure(rates, summaries, _TITLES[name], goal.objective.bounds.get(name))
        blocks.append(Figure(figure, "", f"{_TITLES[name]} against the rate", wide=False))
    return [*blocks, Sheet(shown.rates(document), f"All rates that were tried ({len(tried)})")]


def kept_figure(rates: Floats, met: Floats, found: float, part: float) -> go.Figure:
    """The part that met the objective at each rate; the bound on it, and the highest rate that keeps it."""
    hover = [f"{rate:.4g} requests/s: {value:.1%}" for rate, value in zip(rates, met, strict=True)]
    figure = go.Figure(_dotted(rates, met, measure_colour("met"), "", hover))
    figure.add_trace(_bound([rates[0] / 2, rates[-1] * 2], [part, part], f"{shown.percent(part)} needed"))
    if found:
        colour = measure_colour("capacity")
        best = go.Scatter(x=[found], y=[float(met[np.searchsorted(rates, found)])], mode="markers", hoverinfo="skip")
        figure.add_trace(best.update(marker={"color": colour, "size": 12}, name=f"capacity: {shown.number(found)} requests/s"))
    up = {"range": [0, 1.05], "tickvals": _FIFTHS, "tickformat": ".0%", "title": {"text": "part of requests"}}
    return styled(figure, _TALL, xaxis=_rates_axis(rates), yaxis=up)


def goodput_figure(rates: Floats, goodput: Floats) -> go.Figure:
    """Requests per second within the objective, against those offered."""
    hover = [f"{value:.4g} of {rate:.4g} requests/s" for rate, value in zip(rates, goodput, strict=True)]
    figure = go.Figure(_dotted(rates, np.where(goodput > 0, goodput, np.nan), measure_colour("met"), "goodput", hover))
    along = np.linspace(rates[0], rates[-1], 60)  # a straight line only where both axes are alike
    figure.add_trace(_bound(along.tolist(), along.tolist(), "offered"))
    low = float(min([rates[0], *goodput[goodput > 0]]))
    return styled(
        figure,
        _TALL,
        xaxis=_rates_axis(rates),
        yaxis=_axis(low, float(rates[-1]), shown.number) | {"title": {"text": "goodput [requests/s]"}},
    )


def percentiles_figure(
    rates: Floats, summaries: list[dict[str, float | None]], title: str, bound: float | None
) -> go.Figure:  # fmt: skip
    """Percentiles of a latency at each rate, and its bound; times of 0 have no place on a logarithmic axis."""
    figure = go.Figure()
    seen = [bound] if bound else []
    for name in _PERCENTILES:
        values = np.array([one[name] or math.nan for one in summaries])
        seen += values[~np.isnan(values)].tolist()
        hover = [f"{name} {shown.seconds(value)} at {rate:.4g} requests/s" for rate, value in zip(rates, values, strict=True)]
        figure.add_trace(_dotted(rates, values, measure_colour(name), name, hover))
    if bound:
        figure.add_trace(_bound([rates[0] / 2, rates[-1] * 2], [bound, bound], f"objective: {shown.seconds(bound)}"))
    up = _axis(min(seen, default=1.0), max(seen, default=1.0), _time) | {"title": {"text": title}}
    return styled(figure, _TALL, xaxis=_rates_axis(rates), yaxis=up)


def _dotted(x: Floats, y: Floats, colour: str, name: str, hover: list[str]) -> go.Scatter:
    """A line with a point at every run."""
    return _line(x, y, colour, name, hover).update(mode="lines+markers", marker={"size": 6})


def _rates_axis(rates: Floats) -> dict[str, Any]:
    return _axis(float(rates[0]), float(rates[-1]), shown.number) | {"title": {"text": "offered requests/s"}}
