"""What all figures share: font, margins, legend below, safe text, axes with units."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import plotly.graph_objects as go

from hwsim.quantity import show

INK, GRID = "#1b1f24", "#e6e8eb"
CONFIG = {"responsive": True, "displaylogo": False, "displayModeBar": False}
_FONT = {"family": "system-ui, 'Segoe UI', 'Liberation Sans', sans-serif", "size": 13, "color": INK}
_LEGEND = {
    "orientation": "h", "x": 0, "xanchor": "left", "yref": "container", "y": 0, "yanchor": "bottom", "traceorder": "normal",
    "itemsizing": "constant", "font": {"size": 12},
}  # fmt: skip


def styled(figure: go.Figure, height: int, **layout: Any) -> go.Figure:
    """White ground, dark text, horizontal legend under the plot."""
    figure.update_layout(
        template="none", height=height, autosize=True, paper_bgcolor="white", plot_bgcolor="white", font=_FONT, legend=_LEGEND,
        margin={"l": 8, "r": 16, "t": 12, "b": 8}, hoverlabel={"align": "left", "bgcolor": "white"},
    )  # fmt: skip
    figure.update_layout(**layout)
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(automargin=True, gridcolor=GRID, zeroline=False, linecolor=GRID)
    return figure


def safe(text: str, longest: int = 60) -> str:
    """A name from a file as plain text: Plotly reads a little HTML in labels."""
    return escape(text if len(text) <= longest else text[: longest - 1] + "…")


def decades(low: float, high: float, unit: str) -> dict[str, Any]:
    """A logarithmic axis over `low` to `high`, a tick each decade (or each second, third ...), written with SI prefixes."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, math.ceil((last - first) / 8))
    ticks = [10.0**n for n in range(first, last + 1, step)]
    return {
        "type": "log",
        "tickvals": ticks,
        "ticktext": [show(tick, unit) for tick in ticks],
        "range": [math.log10(low), math.log10(high)],
    }


def si_axis(unit: str, high: float, title: str) -> dict[str, Any]:
    """A linear axis from zero with a few round ticks, written with SI prefixes."""
    step = _round_step(high / 4)
    ticks = [step * n for n in range(math.floor(high / step) + 1)]
    return {"range": [0, high], "tickvals": ticks, "ticktext": [show(tick, unit, 3) for tick in ticks], "title": {"text": title}}


def _round_step(step: float) -> float:
    """The next of 1, 2, 5 x 10^n."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)
