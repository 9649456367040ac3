"""Memory over the schedule of a convolutional network: what is alive while each op runs, against what there is."""

from __future__ import annotations

import plotly.graph_objects as go

from hwsim.device import Device
from hwsim.quantity import show
from hwsim.report.figure import INK, safe, si_axis, styled
from hwsim.report.palette import kind_colour, kind_order
from hwsim.trace import STATIC, Trace, TraceRow


def memory_figure(trace: Trace, device: Device) -> go.Figure:
    """Bytes of maps alive over time, coloured by kind; the dashed line is the memory that holds them."""
    rows, room = _rows(trace), _room(trace, device)
    figure = go.Figure()
    for kind in kind_order(row.kind for row in rows):
        figure.add_trace(_bars([row for row in rows if row.kind == kind], kind))
    highest = max([room, *(row.alive for row in rows)])
    figure.add_hline(y=room, line={"color": INK, "dash": "dash", "width": 1})
    styled(figure, 300, barmode="overlay", bargap=0.0)
    figure.update_yaxes(**si_axis("B", highest * 1.05, "alive"))
    figure.update_xaxes(tickformat="~s", ticksuffix="s", nticks=6, title={"text": "time"})
    return figure


def memory_caption(trace: Trace, device: Device) -> str:
    """The peak, the op that needs it, and the memory's size."""
    peak, room = max(_rows(trace), key=lambda row: row.alive), _room(trace, device)
    return f"Peak: {show(peak.alive, 'B')} of {show(room, 'B')} while {peak.name} runs."


def _rows(trace: Trace) -> list[TraceRow]:
    return [row for row in trace.rows if row.unit != STATIC]


def _room(trace: Trace, device: Device) -> float:
    unit = device.units[_rows(trace)[0].unit]
    home = {**device.homes, **unit.homes}.get("activations", unit.memory)
    return float(device.memories[device.stored_in(home)].capacity)


def _bars(rows: list[TraceRow], kind: str) -> go.Bar:
    """A bar as wide as the op is long."""
    return go.Bar(
        x=[row.start_s for row in rows], width=[row.seconds for row in rows], offset=0.0, y=[row.alive for row in rows],
        name=kind,
        marker={"color": kind_colour(kind), "line": {"width": 0}}, customdata=[safe(row.name) for row in rows],
        hovertemplate="%{customdata}<br>%{y:.4s}B<extra></extra>",
    )  # fmt: skip
