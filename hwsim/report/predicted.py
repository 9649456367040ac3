"""Predicted against measured: one figure per kernel family, a point per measured row, colour by device.

Where tables are large, rows are thinned evenly over the measured values of each group, so that the ends are always there. The
solid line is equality, dotted ones are 25 % above and below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from hwsim.report import shown
from hwsim.report.figure import GRID, INK, decades, safe, styled
from hwsim.report.page import Figure, Section, Sheet, page
from hwsim.report.palette import component_colours

_UNITS = {"latency": "s", "ttft": "s", "tpot": "s", "e2e": "s", "power": "W"}


def predicted_page(points: pd.DataFrame, document: Mapping[str, Any]) -> str:
    """Figures of `points` (family, device, quantity, measured, predicted: SI) and the table of `hwsim validate`'s document."""
    figures = [
        Figure(predicted_figure(part), _caption(str(family), len(part), document), title=str(family), wide=False)
        for family, part in points.groupby("family", sort=True)
    ]
    sections = [Section("Predicted against measured", figures)] if figures else []
    return page("Kernel models against measurements", {}, [*sections, Section("Errors", [Sheet(shown.validation(document))])])


def predicted_figure(points: pd.DataFrame) -> go.Figure:
    """One family: measured across, predicted up, both logarithmic, in the unit of its quantity."""
    colours = component_colours(points["device"])
    unit = _UNITS[str(points["quantity"].iloc[0])]
    both = np.concatenate([points["measured"], points["predicted"]])
    low, high = float(both.min()) / 1.5, float(both.max()) * 1.5
    figure = go.Figure([_line(low, high, factor) for factor in (1.0, 1.25, 1 / 1.25)])
    for device, part in points.groupby("device", sort=True):
        figure.add_trace(_markers(str(device), part, colours[str(device)], unit))
    across, up = (decades(low, high, unit) | {"title": {"text": f"{word} {_title(unit)}"}} for word in ("measured", "predicted"))
    return styled(figure, 420, xaxis=across, yaxis=up)


def _title(unit: str) -> str:
    return {"s": "time of one call", "W": "board power"}[unit]


def _line(low: float, high: float, factor: float) -> go.Scatter:
    dash, width = ("solid", 1.5) if factor == 1.0 else ("dot", 1)
    line = {"color": INK, "width": width, "dash": dash}
    return go.Scatter(x=[low, high], y=[low * factor, high * factor], mode="lines", line=line, showlegend=False, hoverinfo="skip")


def _markers(device: str, part: pd.DataFrame, colour: str, unit: str) -> go.Scatter:
    hover = f"{safe(device)}<br>measured %{{x:.4g}} {unit}<br>predicted %{{y:.4g}} {unit}<extra></extra>"
    marker = {"color": colour, "size": 4, "opacity": 0.55, "line": {"color": GRID, "width": 0}}
    x, y = part["measured"].round(9), part["predicted"].round(9)
    return go.Scatter(x=x, y=y, mode="markers", name=safe(device), marker=marker, hovertemplate=hover)


def _caption(family: str, points: int, document: Mapping[str, Any]) -> str:
    known = [row for row in document["rows"] if row["mape"] is not None and row["subset"] in ("all", "over 100 us")]
    rows = [row for row in known if row["family"] == family and row["quantity"] in _UNITS]
    count = sum(row["n"] for row in rows)
    mape = sum(row["n"] * row["mape"] for row in rows) / count
    return f"{points:,} of {count:,} rows shown; MAPE {100 * mape:.1f} % over all, dotted lines 25 % apart"
