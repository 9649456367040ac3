"""HTML reports: self-contained, harmless whatever the names, honest where there is nothing to show."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from hwsim.device import Device, Link, Memory, Unit
from hwsim.job import run
from hwsim.lowering.model import Attention, FeedForward, Layer, Model
from hwsim.report.breakdown import busy_units, components_of, energy_by_kind, energy_of_runs, time_by_kind
from hwsim.report.figure import decades, si_axis
from hwsim.report.html import html_report
from hwsim.report.palette import component_colours, kind_colour
from hwsim.report.passes import representative
from hwsim.report.roofline import roofline_figure, roofline_page
from hwsim.report.timeline import MOST_BARS, bandwidth_in_use, timeline_bars, timeline_figure

ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
TINY = Model("tiny", 64, 1000, ((Layer(Attention(4, 2, 16), FeedForward(128)), 4),))
CHIP = Device(
    name="chip",
    memories={"dram": Memory(capacity=1e9, bandwidth=1e10, energy=1e-11)},
    units={
        "matrix": Unit(does=("matmul",), memory="dram", peak={"bf16": 1e12}),
        "vector": Unit(does=("vector",), memory="dram", peak={"fp32": 1e11}),
    },
    links={"wire": Link(bandwidth=1e9, latency=1e-6, reach=4, memory="dram")},
    written={"memories.dram.bandwidth": "10 GB/s"},
    provenance={"memories.dram.bandwidth": "datasheet, page 3"},
)
GENERATE = run(TINY, CHIP, phase="generate", batch=2, prompt=16, output=5)


class Tags(HTMLParser):
    """Tags with attributes, and the text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags[-1:] and self.tags[-1][0] not in ("script", "style"):
            self.words += data


@pytest.fixture(scope="module")
def page() -> str:
    return html_report([(GENERATE, CHIP)], "tiny on chip", {"phase": "generate"})


def test_nothing_is_loaded_from_anywhere(page):
    tags = Tags(page).tags
    assert len([tag for tag, _ in tags if tag == "script"]) > 5
    assert not [attrs for _, attrs in tags if "src" in attrs or "href" in attrs]
    assert not [tag for tag, _ in tags if tag in ("link", "img", "iframe", "base")]
    assert not any("@import" in style for style in re.findall(r"<style>(.*?)</style>", page, re.S))
    assert "default-src 'none'" in page
    assert page.count("plotly.js v") == 1


def test_everything_is_there(page):
    words = Tags(page).words
    for heading in (
        "Result",
        "Where the time goes",
        "Where the energy goes",
        "Rooflines",
        "Timelines",
        "All ops",
        "How this was obtained",
    ):
        assert heading in words
    assert "datasheet, page 3" in words
    assert "10 GB/s" in words
    assert "Mean of 4 steps" in words
    assert "1 of 4 layers of dense" in words


def test_the_same_runs_give_the_same_page(page):
    assert html_report([(GENERATE, CHIP)], "tiny on chip", {"phase": "generate"}) == page


def test_names_of_a_user_are_text_everywhere(page):
    rows = tuple(replace(row, name=ATTACK + row.name, kind=ATTACK, block=ATTACK, phase=ATTACK) for row in GENERATE.rows)
    trace = replace(GENERATE, rows=rows, model=ATTACK, arch=ATTACK, notes=(ATTACK,))
    device = CHIP.model_copy(update={"name": ATTACK, "written": {ATTACK: ATTACK}, "provenance": {ATTACK: ATTACK}})
    other = replace(trace, arch=ATTACK + "2")
    html = html_report([(trace, device), (other, device)], ATTACK, {ATTACK: ATTACK})
    for attacked in (html, roofline_page(trace, device)):
        assert "alert(1)" in attacked
        assert "<script>alert" not in attacked
        tags = Tags(attacked).tags
        assert "img" not in [tag for tag, _ in tags]
        figures = [attrs for tag, attrs in tags if (attrs.get("class") or "") == "plotly-graph-div"]
        # one script a figure and plotly.js itself; a name that ends a script early would add one
        assert len([tag for tag, _ in tags if tag == "script"]) == len(figures) + 1
    hover = str(roofline_figure(trace, device).data[-1].hovertext) + str(time_by_kind(trace).data[0].y)
    assert "&lt;/script&gt;" in hover
    assert "<script" not in hover


def test_without_energy_numbers_a_sentence_stands_where_the_plot_would():
    bare = CHIP.model_copy(update={"memories": {"dram": Memory(capacity=1e9, bandwidth=1e10)}})
    html = html_report([(run(TINY, bare, phase="decode"), bare)], "tiny", {})
    assert "holds no energy numbers" in Tags(html).words
    assert "By component" not in html


def test_a_run_without_operations_has_a_roofline_that_says_so():
    only_moves = replace(GENERATE, rows=tuple(row for row in GENERATE.rows if row.op == 0))
    assert only_moves.rows
    (note,) = roofline_figure(only_moves, CHIP).layout.annotations
    assert "No op computes" in note.text
    assert "Rates against roofs" in roofline_page(only_moves, CHIP)


def test_the_roofline_page_heads_its_points_by_phase_and_block():
    words = Tags(roofline_page(GENERATE, CHIP)).words
    assert "decode / dense" in words
    assert "prefill / head" in words


def test_bars_of_the_kinds_add_up_to_the_busy_time():
    drawn = sum(sum(bar.x) for bar in time_by_kind(GENERATE).data if bar.type == "bar")
    assert drawn == pytest.approx(GENERATE.latency_s)
    joules = sum(sum(bar.x) for bar in energy_of_runs([(GENERATE, CHIP)]).data)
    assert joules == pytest.approx(GENERATE.energy_j)
    assert sum(busy_units([(GENERATE, CHIP)]).data[0].x) == pytest.approx(1)


def test_roofs_are_drawn_at_peak_and_at_what_kernels_reach():
    chip = CHIP.with_values({"units.matrix.efficiency": 0.5, "memories.dram.efficiency": 0.25})
    figure = roofline_figure(run(TINY, chip, phase="prefill", prompt=256), chip)
    lines = {tuple(line.y)[-1]: line for line in figure.data if line.mode == "lines"}
    assert {1e12, 0.5e12} <= set(lines)
    assert lines[1e12].x[1] == pytest.approx(100)
    assert lines[0.5e12].x[1] == pytest.approx(200)


def test_timeline_draws_one_layer_as_long_as_it_is():
    decode = representative(GENERATE)[1]
    bars = timeline_bars(decode)
    once = sum(row.seconds / row.repeat for row in decode.rows)
    assert bars.end_s == pytest.approx(once)
    assert sum(row.seconds for row in bars.rows) == pytest.approx(once)
    ordered = sorted(bars.rows, key=lambda row: row.start_s)
    assert all(b.start_s >= a.end_s * (1 - 1e-9) for a, b in itertools.pairwise(ordered))
    assert sum(len(bar.x) for bar in timeline_figure(bars, CHIP).data if bar.type == "bar") == len(decode.rows)


def test_timeline_of_a_pipeline_shows_all_stages_and_links_in_few_bars():
    four = CHIP.model_copy(update={"count": 4})
    trace = run(TINY, four, phase="prefill", batch=32, prompt=16, parallel="pp=2,tp=2,microbatches=16")
    (one,) = representative(trace)
    assert len(one.rows) > MOST_BARS
    bars = timeline_bars(one)
    assert len(bars.rows) <= MOST_BARS
    assert bars.end_s == pytest.approx(trace.latency_s)
    assert {(row.stage, row.unit) for row in bars.rows} >= {(0, "wire"), (1, "wire")}


def test_bandwidth_in_use_returns_the_bytes():
    decode = representative(GENERATE)[1]
    steps = bandwidth_in_use(decode.rows, "dram")
    area = sum(level * (after - when) for (when, level), (after, _) in itertools.pairwise(steps))
    assert area == pytest.approx(sum(row.bytes["dram"] for row in decode.rows))
    assert steps[-1][1] == 0
    # ops that follow one another never seem to overlap, whatever the rounding of their times
    assert all(level <= 1e10 * (1 + 1e-6) for _, level in bandwidth_in_use(decode.unfolded(), "dram"))


def test_axes_have_units_with_prefixes():
    assert si_axis("s", 0.009, "time")["ticktext"][1] == "5 ms"
    axis = decades(1e9, 1e12, "op/s")
    assert axis["ticktext"] == ["1 Gop/s", "10 Gop/s", "100 Gop/s", "1 Top/s"]


def test_a_component_has_one_colour_in_all_figures_of_a_page():
    trace = run(TINY, CHIP.with_values({"static_power": 5.0}), phase="decode")
    runs = [(GENERATE, CHIP), (trace, CHIP)]
    together = {bar.name: bar.marker.color for bar in energy_of_runs(runs).data if bar.type == "bar"}
    alone = {bar.name: bar.marker.color for bar in energy_by_kind(trace, components_of(runs)).data if bar.type == "bar"}
    assert len(alone) == 2
    assert alone.items() <= together.items()


def test_colours_are_stable():
    assert kind_colour("a kind nobody knows") == kind_colour("a kind nobody knows")
    assert kind_colour("ffn") != kind_colour("qkv")
    assert component_colours(["b", "a", "static"]) == component_colours(["a", "static", "b"])
