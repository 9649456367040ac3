"""Timeline: units, links and memory bandwidth over one representative pass.

Of every folded block one layer is drawn and time runs only over what is drawn, so that ops are as wide as they really are and the
order inside a layer can be read. Pipelined runs are drawn in whole, blocks folded, since there the point is which stage waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hwsim.device import Device
from hwsim.quantity import show
from hwsim.report.figure import safe, si_axis, styled
from hwsim.report.palette import kind_colour, kind_order
from hwsim.report.passes import Pass
from hwsim.report.shown import seconds
from hwsim.trace import TraceRow

MOST_BARS = 400  # beyond, the ops of a block become one bar
MOST_RANKS = 8


@dataclass(frozen=True)
class Bars:
    """What is drawn of a pass: rows on a time axis of their own, and a sentence that says what is left out."""

    rows: tuple[TraceRow, ...]
    caption: str

    @property
    def end_s(self) -> float:
        """Where the time axis ends."""
        return max((row.end_s for row in self.rows), default=0.0)


def timeline_bars(one: Pass) -> Bars:
    """One layer of each block, or for pipelined passes everything folded."""
    if any(row.stage for row in one.rows):
        return _pipeline(one)
    ranks = sorted({row.rank for row in one.rows})
    rows = _one_layer_each([row for row in one.rows if row.rank in ranks[:MOST_RANKS]])
    more = f" {len(ranks) - MOST_RANKS} more ranks with loads of their own are not drawn." if len(ranks) > MOST_RANKS else ""
    return Bars(rows, _caption(one, rows) + more)


def _one_layer_each(rows: Sequence[TraceRow]) -> tuple[TraceRow, ...]:
    """The first repetition of every block, the others cut out of the time axis."""
    cut, drawn, previous_end = 0.0, [], -1.0
    for row in sorted(rows, key=lambda row: (row.block_start_s, row.start_s)):
        n, begin, end = row.repeat, row.block_start_s, row.block_end_s
        if n > 1 and begin >= previous_end:
            # blocks that are repeated have a barrier before and after them: what follows moves up by the layers left out
            shift, previous_end = cut, end
            cut += (end - begin) * (1 - 1 / n)
        elif n == 1:
            shift = cut
        start = begin + (row.start_s - begin) / n - shift
        drawn.append(replace(row, start_s=start, end_s=start + row.seconds / n, bytes={k: v / n for k, v in row.bytes.items()}))
    return tuple(drawn)


def _caption(one: Pass, rows: Sequence[TraceRow]) -> str:
    blocks = list(dict.fromkeys((row.block or row.name, row.repeat) for row in one.rows if row.repeat > 1))
    mean = (
        f"Mean of {one.count:,} steps, {seconds(one.seconds)} each. "
        if one.count > 1
        else f"Whole pass: {seconds(one.seconds)}. "
    )
    if not blocks:
        return f"{mean}Every op is drawn."
    names = ", ".join(f"1 of {count} layers of {name}" for name, count in blocks)
    return f"{mean}Drawn: {names} ({seconds(max(row.end_s for row in rows))}); the other layers follow one another the same way."


def _pipeline(one: Pass) -> Bars:
    """All stages over the whole pass; repetitions of an op in a row, or whole blocks when there are too many bars."""
    whole = f"Whole pass: {seconds(one.seconds)}; "
    if len(one.rows) <= MOST_BARS:
        return Bars(
            one.rows, f"{whole}a bar stands for all layers of its stage, drawn as if each op ran all its layers in a row."
        )
    blocks: dict[tuple[int, str, str], list[TraceRow]] = {}
    for row in one.rows:
        blocks.setdefault((row.stage, row.block, row.lane if row.moves else ""), []).append(row)
    return Bars(
        tuple(_merged(rows) for rows in blocks.values()),
        f"{whole}a bar is all ops of a block, coloured by the op that takes longest.",
    )


def _merged(rows: Sequence[TraceRow]) -> TraceRow:
    longest = max(rows, key=lambda row: row.seconds)
    moved: dict[str, float] = {}
    for row in rows:
        for memory, value in row.bytes.items():
            moved[memory] = moved.get(memory, 0.0) + value
    start, end = min(row.start_s for row in rows), max(row.end_s for row in rows)
    return replace(longest, name=longest.block or longest.name, start_s=start, end_s=end, bytes=moved)


def timeline_figure(bars: Bars, device: Device) -> go.Figure:
    """A lane per unit and link (and stage), coloured by kind; below, the bandwidth in use of each memory."""
    memories = [name for name in device.memories if any(row.bytes.get(name) for row in bars.rows)]
    lanes = _lanes(bars.rows)
    heights = [40 + 44 * len(lanes)] + [100] * len(memories)
    figure = make_subplots(
        rows=len(heights), cols=1, shared_xaxes=True, row_heights=heights, vertical_spacing=30 / (sum(heights) + 60)
    )
    for kind in kind_order(row.kind for row in bars.rows):
        figure.add_trace(_lane_bars([row for row in bars.rows if row.kind == kind], kind, lanes), row=1, col=1)
    copies = device.count / (1 + max((row.stage for row in bars.rows), default=0))
    for index, memory in enumerate(memories, start=2):
        _add_memory(figure, index, memory, bars.rows, device, copies)
    styled(figure, sum(heights) + 90, barmode="overlay", bargap=0.2, margin={"l": 8, "r": 16, "t": 32, "b": 8})
    figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=list(lanes.values()), row=1, col=1)
    figure.update_xaxes(range=[0, bars.end_s * 1.01], tickformat="~s", ticksuffix="s", nticks=6)
    figure.update_xaxes(title={"text": "time"}, showticklabels=True, row=len(heights), col=1)
    return figure


def _lanes(rows: Sequence[TraceRow]) -> dict[tuple[int, str], str]:
    """(stage, lane) -> its label; units by stage and rank, links after the units."""
    stages = len({row.stage for row in rows}) > 1
    found = sorted({(row.stage, row.moves, row.rank, row.lane) for row in rows})
    return {(stage, lane): safe(f"stage {stage} {lane}" if stages else lane, 24) for stage, _, _, lane in found}


def _lane_bars(rows: Sequence[TraceRow], kind: str, lanes: Mapping[tuple[int, str], str]) -> go.Bar:
    bar = go.Bar(base=[row.start_s for row in rows], x=[row.seconds for row in rows], orientation="h", width=0.8, name=safe(kind))
    marker = {"color": kind_colour(kind), "line": {"width": 0.5, "color": "white"}}
    where = [lanes[row.stage, row.lane] for row in rows]
    return bar.update(y=where, marker=marker, hoverinfo="text", hovertext=[_hover(row) for row in rows])


def _hover(row: TraceRow) -> str:
    again = f" (one of x{row.repeat})" if row.repeat > 1 else ""
    return f"<b>{safe(row.name)}</b>{again}<br>on {safe(row.unit)}, {seconds(row.seconds)}, bound by {safe(row.bound)}"


def bandwidth_in_use(rows: Sequence[TraceRow], memory: str, stage: int = 0) -> list[tuple[float, float]]:
    """(time, bytes/s from then on) of one memory; each op's bytes evenly over its time, devices of a group added up."""
    # ends and starts that differ by rounding only are one moment, otherwise two ops would seem to overlap in between
    moment = max((row.end_s for row in rows), default=0.0) * 1e-12
    changes: dict[int, float] = {}
    for row in rows:
        if row.stage == stage and row.seconds > 0 and row.bytes.get(memory):
            rate = row.bytes[memory] / row.seconds
            for when, change in ((row.start_s, rate), (row.end_s, -rate)):
                changes[round(when / moment)] = changes.get(round(when / moment), 0.0) + change
    level, steps = 0.0, []
    for tick in sorted(changes):
        level += changes[tick]
        level = level if level > 1e-9 * abs(changes[tick]) else 0.0  # crumbs of rounding
        steps.append((tick * moment, level))
    return steps


def _add_memory(figure: go.Figure, index: int, memory: str, rows: Sequence[TraceRow], device: Device, copies: float) -> None:
    rate = float(device.memories[memory].rate)
    highest = rate
    for stage in sorted({row.stage for row in rows}):
        steps = bandwidth_in_use(rows, memory, stage)
        highest = max([highest, *(level / copies for _, level in steps)])
        figure.add_trace(_steps([(when, level / copies) for when, level in steps], memory, stage), row=index, col=1)
    figure.add_hline(y=rate, line={"dash": "dash", "width": 1, "color": "#6a6f75"}, row=index, col=1)
    axis = si_axis("B/s", highest * 1.15, safe(memory, 12))
    figure.update_yaxes(**{**axis, "tickvals": axis["tickvals"][::2], "ticktext": axis["ticktext"][::2]}, row=index, col=1)


def _steps(steps: Sequence[tuple[float, float]], memory: str, stage: int) -> go.Scatter:
    hover = [f"{safe(memory)}, stage {stage}: {show(level, 'B/s')}" for _, level in steps]
    return go.Scatter(
        x=[when for when, _ in steps], y=[level for _, level in steps], mode="lines", fill="tozeroy", showlegend=False,
        line={"shape": "hv", "width": 1, "color": "#0072B2"}, hoverinfo="text", hovertext=hover,
    )  # fmt: skip
