"""One HTML report of one or several runs: what came out, where time and energy go, rooflines, timelines, ops, sources."""

from __future__ import annotations

from collections.abc import Mapping

from hwsim.report import shown
from hwsim.report.breakdown import (
    busy_units,
    components_of,
    energy_by_kind,
    energy_of_runs,
    throughput_of_runs,
    time_by_kind,
    time_of_runs,
)
from hwsim.report.memory import memory_caption, memory_figure
from hwsim.report.page import Figure, Section, Sheet, Words, page
from hwsim.report.passes import representative
from hwsim.report.roofline import roofline_caption, roofline_figure
from hwsim.report.tables import Runs, labels, of_phase, phases, tiered
from hwsim.report.tiers import tier_bytes, tier_times
from hwsim.report.timeline import timeline_bars, timeline_figure
from hwsim.trace import IMAGES

Blocks = list[Figure | Sheet | Words]
_FEW = 4  # runs whose results fit half the page
_BELOW = "Below, the bandwidth in use of each memory of one device, averaged over each op; the dashed line is what it can give."
_SAVING = "Labels: energy, and how much less than the first run."
NO_ENERGY = "holds no energy numbers, so that no energy is shown"


def html_report(runs: Runs, title: str, settings: Mapping[str, str]) -> str:
    """The whole report as one self-contained page."""
    names = labels([trace for trace, _ in runs])
    sections = [
        Section("Result", _result(runs)),
        Section("Where the time goes", _time(runs, names)),
        *_tiers(runs),
        Section("Where the energy goes", _energy(runs, names)),
        Section("Rooflines", _rooflines(runs, names)),
        *_memory(runs, names),
        Section("Timelines", _timelines(runs, names)),
        Section("All ops", [Sheet(shown.details(trace), f"Ops of {name}") for name, (trace, _) in zip(names, runs, strict=True)]),
        Section("How this was obtained", _how(runs, names)),
    ]
    return page(title, settings, sections)


def _result(runs: Runs) -> Blocks:
    """The numbers; beside them throughput against the first run, or how busy the units of a single run are."""
    busy = Figure(busy_units(runs), "Launch overheads count as busy.", "How busy units and links are", wide=len(runs) > 1)
    blocks: Blocks = [Sheet(shown.summary(runs), wide=len(runs) > _FEW)]
    if len(runs) > 1 and runs[0][0].tokens_per_s:
        blocks.append(Figure(throughput_of_runs(runs), "", "Throughput", wide=len(runs) > _FEW))
    return [*blocks, busy]


def _time(runs: Runs, names: list[str]) -> Blocks:
    """Runs side by side, then each run and phase by kind."""
    blocks: Blocks = []
    if len(runs) > 1:
        caption = "Bars: busy time of units and links, added up. Labels: latency, and how much faster than the first run."
        blocks.append(Figure(time_of_runs(runs), caption, "Runs side by side, by op kind"))
    for name, (trace, _) in zip(names, runs, strict=True):
        for phase in phases(trace):
            title = ", ".join(filter(None, (name if len(runs) > 1 else "", phase))) or "By op kind"
            alone = len(runs) == 1 and len(phases(trace)) == 1
            blocks.append(Figure(time_by_kind(of_phase(trace, phase)), "", f"{title}: op kinds by what bounds them", wide=alone))
    return blocks


def _tiers(runs: Runs) -> list[Section]:
    """Reads, memory management and compute, and where each byte stays, if weights come out of another memory."""
    if not any(tiered(trace) for trace, _ in runs):
        return []
    times = Figure(tier_times(runs), "Busy time, added up; what overlaps counts twice.", "I/O, memory management, compute")
    kept = Figure(tier_bytes(runs), "A drive holds all weights, whatever they are for.", "Where each byte stays")
    return [Section("Memory tiers", [times, kept])]


def _energy(runs: Runs, names: list[str]) -> Blocks:
    """Runs side by side by component, then each by kind; a sentence where a device has no numbers."""
    with_energy = [(trace, device) for trace, device in runs if trace.energy_j]
    blocks: Blocks = []
    if with_energy:
        blocks.append(Figure(energy_of_runs(with_energy), _SAVING if len(runs) > 1 else "", "By component", wide=len(runs) > 1))
    for name, (trace, _) in zip(names, runs, strict=True):
        if trace.energy_j:
            title = f"{name}: by op kind and component" if len(runs) > 1 else "By op kind and component"
            blocks.append(Figure(energy_by_kind(trace, components_of(runs)), "", title, wide=False))
    without = [
        f"The device file of {name} {NO_ENERGY}." for name, (trace, _) in zip(names, runs, strict=True) if not trace.energy_j
    ]
    return blocks + ([Words(without)] if without else [])


def _rooflines(runs: Runs, names: list[str]) -> Blocks:
    return [
        Figure(roofline_figure(trace, device), roofline_caption(trace, device), name, wide=len(runs) == 1, tools=True)
        for name, (trace, device) in zip(names, runs, strict=True)
    ]


def _memory(runs: Runs, names: list[str]) -> list[Section]:
    """What is alive over the schedule, of networks whose maps have to fit."""
    blocks: Blocks = [
        Figure(memory_figure(trace, device), memory_caption(trace, device), name, tools=True)
        for name, (trace, device) in zip(names, runs, strict=True)
        if any(row.phase == IMAGES for row in trace.rows)
    ]
    return [Section("Memory over the schedule", blocks)] if blocks else []


def _timelines(runs: Runs, names: list[str]) -> Blocks:
    """One pass of each phase of each run."""
    blocks: Blocks = []
    for name, (trace, device) in zip(names, runs, strict=True):
        for one in representative(trace):
            bars = timeline_bars(one)
            title = f"{name}: {one.name}" if len(runs) > 1 else one.name
            blocks.append(Figure(timeline_figure(bars, device), f"{bars.caption} {_BELOW}", title, tools=True))
    return blocks or [Words(["Nothing ran."])]


def _how(runs: Runs, names: list[str]) -> Blocks:
    """Notes on what is left out, the methods behind the times, and the source of every device number."""
    blocks: Blocks = []
    notes = list(dict.fromkeys(note for trace, _ in runs for note in trace.notes))
    blocks.append(Words([f"Not simulated: {note}" for note in notes] or ["The model's config holds nothing that is left out."]))
    for name, (trace, device) in zip(names, runs, strict=True):
        blocks.append(Sheet(shown.how(trace), f"Methods behind the times of {name}"))
        numbers = shown.provenance(device.written, device.provenance)
        blocks.append(Sheet(numbers, f"Numbers of {device.name} and their sources ({len(numbers.lines)})"))
    return blocks
