"""Roofline: operations per byte of each op against the roof of the unit it ran on (Williams, Waterman and Patterson 2009).

Solid roofs are what kernels reach (peak x efficiency), dashed ones the datasheet's peaks, dotted ones those of other memories
that the unit reads (on chip, DDR, the other side of a PIM). Rates are those of one device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from hwsim.device import Device
from hwsim.quantity import show
from hwsim.report import shown
from hwsim.report.figure import decades, safe, styled
from hwsim.report.page import Figure, Section, Sheet, page
from hwsim.report.palette import kind_colour, kind_order
from hwsim.report.points import Point, left_out_note, reached, roofline_points, way_points
from hwsim.report.shown import number, percent, seconds
from hwsim.trace import Trace

__all__ = ["roofline_caption", "roofline_figure", "roofline_page", "roofline_points"]

_NEAR = 0.12  # decades between two labels that would touch
_PALE = "rgba(255, 255, 255, 0.7)"
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "pentagon", "cross")


def roofline_figure(trace: Trace, device: Device) -> go.Figure:
    """Each unit a roof per number format in use, each op a point: area by share of time, colour by kind, symbol by unit."""
    points = roofline_points(trace, device)
    if not points:
        hidden = {"visible": False}
        return styled(
            go.Figure(), 200, annotations=[_empty("No op computes on a unit of this device.")], xaxis=hidden, yaxis=hidden
        )
    ways = way_points(trace, device)
    (left, right), (low, high) = _bounds(points, ways, device)
    roofs = [line for used in _used(points) for line in _roof_lines(*used, device, left, right)]
    others = [line for used in _used(points) for line in _other_lines(*used, device, left, right)]
    figure = go.Figure([*others, *(_way_line(way, left, right, device) for way in ways), *roofs])
    units = sorted({point["unit"] for point in [*points, *ways]})
    for kind in kind_order(point["kind"] for point in [*points, *ways]):
        figure.add_trace(_markers([point for point in [*points, *ways] if point["kind"] == kind], kind, units))
    x = decades(left, right, "") | {"title": {"text": "operations per byte (Op/B)"}}
    y = decades(low, high, "op/s") | {"title": {"text": "rate of one device"}}
    top = {"l": 8, "r": 16, "t": 32, "b": 8}
    return styled(
        figure,
        560,
        xaxis=x,
        yaxis=y,
        margin=top,
        annotations=[*_roof_names(points, device, right), *_other_names(points, device, left, low)],
    )


def _empty(text: str) -> dict[str, Any]:
    return {"text": text, "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}


def _bounds(points: Sequence[Point], ways: Sequence[Point], device: Device) -> tuple[tuple[float, float], tuple[float, float]]:
    """Axes that hold every point and every ridge, with some room."""
    roofs = [roof for used in _used(points) for roof in _roofs_of(*used, device)]
    across = [*(point["op_b"] for point in [*points, *ways]), *(flat / slope for flat, slope in roofs)]
    up = [*(point["attained_op_s"] for point in [*points, *ways]), *(flat for flat, _ in roofs)]
    return (min(across) / 2, max(across) * 4), (min(up) / 3, max(up) * 3)


def _used(points: Sequence[Point]) -> list[tuple[str, str]]:
    """Units and the number formats they computed in."""
    return list(dict.fromkeys((point["unit"], point["precision"]) for point in points))


def _roofs_of(name: str, precision: str, device: Device) -> list[tuple[float, float]]:
    """(op/s, bytes/s) that kernels reach, then those of the datasheet."""
    unit, memory = device.units[name], device.memories[device.units[name].memory]
    widest = memory.bandwidth if unit.port is None else min(unit.port, memory.bandwidth)
    slope = unit.limit(unit.memory, device.memories)
    return [(reached(unit, precision), float(slope)), (float(unit.peak[precision]), float(widest))]


def _roof_lines(name: str, precision: str, device: Device, left: float, right: float) -> list[go.Scatter]:
    """The datasheet's peaks, dashed, and what kernels reach, solid."""
    solid, dashed = _roofs_of(name, precision, device)
    upper = _line(dashed, left, right, f"{name} {precision}, datasheet").update(
        line={"width": 1.2, "color": "#8a8f95", "dash": "dash"}
    )
    return [upper, _line(solid, left, right, f"{name} {precision}").update(line={"width": 2.5, "color": "#3a4048"})]


def _way_line(way: Point, left: float, right: float, device: Device) -> go.Scatter:
    """The roof of a way inside the device: its bandwidth times operations per byte over it."""
    highest = max(max(map(float, unit.peak.values())) for unit in device.units.values())
    line = _line((highest, way["roof_op_s"] / way["op_b"]), left, right, way["unit"])
    return line.update(line={"width": 2, "color": kind_colour(way["kind"]), "dash": "dot"})


def _others(name: str, precision: str, device: Device) -> dict[str, tuple[float, float]]:
    """(op/s, bytes/s) that kernels reach over each port of a unit to a memory other than its own."""
    unit = device.units[name]
    return {memory: (reached(unit, precision), float(unit.limit(memory, device.memories))) for memory in unit.ports}


def _other_lines(name: str, precision: str, device: Device, left: float, right: float) -> list[go.Scatter]:
    lines = {
        memory: _line(roof, left, right, f"{name} from {memory}") for memory, roof in _others(name, precision, device).items()
    }
    return [line.update(line={"width": 1.2, "color": "#8a8f95", "dash": "dot"}) for line in lines.values()]


def _other_names(points: Sequence[Point], device: Device, left: float, low: float) -> list[dict[str, Any]]:
    """The memory of each dotted roof where it enters the figure; those that coincide share a label."""
    labels: dict[float, list[str]] = {}
    for used in _used(points):
        for memory, (_, slope) in _others(*used, device).items():
            near = next((known for known in labels if abs(math.log10(known / slope)) < _NEAR), slope)
            labels[near] = list(dict.fromkeys((*labels.get(near, []), safe(memory, 24))))
    return [_entering(", ".join(names), slope, left, low) for slope, names in labels.items()]


def _entering(text: str, slope: float, left: float, low: float) -> dict[str, Any]:
    x, y = max(left, low / slope), max(low, slope * left)
    font = {"size": 11, "color": "#6a7076"}
    return {
        "text": text, "x": math.log10(x), "y": math.log10(y), "xanchor": "left", "yanchor": "bottom", "showarrow": False,
        "bgcolor": _PALE, "font": font,
    }  # fmt: skip


def _line(roof: tuple[float, float], left: float, right: float, title: str) -> go.Scatter:
    flat, slope = roof
    across = sorted({left, min(max(flat / slope, left), right), right})
    hover = f"{safe(title)}: {_rates(roof)}"
    return go.Scatter(
        x=across,
        y=[min(flat, slope * op_b) for op_b in across],
        mode="lines",
        showlegend=False,
        hoverinfo="text",
        hovertext=hover,
    )


def _rates(roof: tuple[float, float]) -> str:
    return f"{show(roof[0], 'op/s', 3)}, {show(roof[1], 'B/s', 3)}"


def _roof_names(points: Sequence[Point], device: Device, right: float) -> list[dict[str, Any]]:
    """The unit and format of each roof at its right end; roofs that nearly coincide share a label."""
    labels: dict[float, list[str]] = {}
    for used in _used(points):
        height = math.log10(_roofs_of(*used, device)[0][0])
        near = next((other for other in labels if abs(other - height) < _NEAR), height)
        labels.setdefault(near, []).append(safe(" ".join(used), 24))
    place = {
        "x": math.log10(right),
        "xanchor": "right",
        "yanchor": "top",
        "showarrow": False,
        "yshift": -3,
        "bgcolor": _PALE,
        "font": {"size": 12},
    }
    return [{"text": ", ".join(names), "y": height, **place} for height, names in labels.items()]


def _markers(points: Sequence[Point], kind: str, units: Sequence[str]) -> go.Scatter:
    """Points of one kind; the area of a marker grows with its share of the time."""
    sizes = [8 + 40 * min(point["share"], 1.0) ** 0.5 for point in points]
    symbols = [_SYMBOLS[units.index(point["unit"]) % len(_SYMBOLS)] for point in points]
    marker = {
        "size": sizes,
        "symbol": symbols,
        "color": kind_colour(kind),
        "opacity": 0.85,
        "line": {"width": 1, "color": "white"},
    }
    return go.Scatter(
        x=[point["op_b"] for point in points], y=[point["attained_op_s"] for point in points], mode="markers", name=safe(kind),
        hoverinfo="text", hovertext=[_hover(point) for point in points], marker=marker,
    )  # fmt: skip


def _hover(point: Point) -> str:
    phase = f", {safe(point['phase'])}" if point["phase"] else ""
    block = f" of {point['block']}" if point["block"] else ""
    return "<br>".join([
        f"<b>{safe(point['name'])}</b>{phase}{safe(block)}", f"on {safe(point['unit'])} in {safe(point['precision'])}",
        f"{number(point['op_b'])} Op/B, {show(point['attained_op_s'], 'op/s')}, {percent(point['fraction'])} of its roof",
        f"{seconds(point['seconds'])}, {percent(point['share'])} of the latency, bound by {safe(point['bound'])}",
    ])  # fmt: skip


def roofline_caption(trace: Trace, device: Device) -> str:
    """How to read the figure, and what is not in it."""
    roofs = "; ".join(f"{' '.join(used)} {_rates(_roofs_of(*used, device)[0])}" for used in _used(roofline_points(trace, device)))
    ways = "; ".join(f"{way['unit']} {show(way['roof_op_s'] / way['op_b'], 'B/s', 3)}" for way in way_points(trace, device))
    dotted = f" Dotted: ways inside the device, with all operations of the run per byte over them ({ways})." if ways else ""
    read = (
        f"Solid: what kernels reach ({roofs}); dashed: datasheet peaks; dotted: other memories. "
        "Marker area grows with share of time, a symbol per unit."
    )
    return f"{read}{dotted} {left_out_note(trace, device)}".strip()


def roofline_page(trace: Trace, device: Device) -> str:
    """The figure and its table as one self-contained HTML file."""
    title = f"Roofline: {trace.model} on {device.name}"
    figure = Figure(roofline_figure(trace, device), roofline_caption(trace, device), tools=True)
    sheet = Sheet(shown.points([*roofline_points(trace, device), *way_points(trace, device)], left_out_note(trace, device)))
    return page(title, {}, [Section("Rates against roofs", [figure]), Section("All points", [sheet])])
