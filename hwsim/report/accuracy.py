"""Accuracy of a reservoir on synthetic streams over what its cells and converters are like: a figure for each parameter."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from hwsim.report.figure import styled
from hwsim.report.page import Figure, Section, page
from hwsim.report.palette import component_colours

_TITLES = {"read_noise": "Read noise", "adc_bits": "Converter bits", "neurons": "Neurons"}
_AXES = {
    "read_noise": "deviation of a read, part of a cell's conductance", "adc_bits": "bits of the converters",
    "neurons": "neurons of the reservoir",
}  # fmt: skip


def accuracy_page(rows: pd.DataFrame) -> str:
    """A self-contained page of rows (parameter, value, what, accuracy)."""
    figures = [
        Figure(accuracy_figure(part, str(name)), _CAPTION, title=_TITLES.get(str(name), str(name)), wide=False)
        for name, part in rows.groupby("parameter", sort=False)
    ]
    return page("A reservoir on resistive cells", {}, [Section("Accuracy on synthetic streams", figures)])


_CAPTION = (
    "Classes differ by the order of events alone. Streams are drawn, not recorded: this says nothing of published data sets."
)


def accuracy_figure(rows: pd.DataFrame, parameter: str) -> go.Figure:
    """Accuracy in percent over one parameter, a line for each of what was read out."""
    colours = component_colours(rows["what"])
    figure = go.Figure([
        go.Scatter(
            x=part["value"], y=100 * part["accuracy"], name=str(what), mode="lines+markers", line={"color": colours[str(what)]}
        )
        for what, part in rows.groupby("what", sort=False)
    ])  # fmt: skip
    return styled(
        figure, 340, xaxis={"title": {"text": _AXES.get(parameter, parameter)}},
        yaxis={"title": {"text": "accuracy (%)"}, "range": [0, 105]},
    )  # fmt: skip
