"""Report tables: breakdowns add up to totals, roofline points are what one computes by hand, text survives narrow terminals."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from rich.table import Table

from hwsim.device import Device, Link, Memory, Unit
from hwsim.engine import simulate
from hwsim.job import run
from hwsim.lowering.model import Attention, FeedForward, Layer, MixtureOfExperts, Model
from hwsim.op import Gemm, Lookup
from hwsim.placement import place
from hwsim.report import shown
from hwsim.report.passes import passes
from hwsim.report.points import left_out, roofline_points
from hwsim.report.tables import breakdown, comparison, labels, op_table
from hwsim.report.text import check_table, facts_table, ops_table, roofline_table, summary_table

TINY = Model("tiny", 64, 1000, ((Layer(Attention(4, 2, 16), MixtureOfExperts(4, 2, FeedForward(128))), 3),))
CHIP = Device(
    name="chip",
    memories={"dram": Memory(capacity=1e9, bandwidth=1e10, efficiency=0.5, energy=1e-11)},
    units={
        "matrix": Unit(does=("matmul",), memory="dram", peak={"bf16": 1e12}, efficiency=0.8, energy={"bf16": 1e-12}),
        "vector": Unit(does=("vector",), memory="dram", peak={"fp32": 1e11}),
    },
    links={"wire": Link(bandwidth=1e9, latency=1e-6, reach=2, memory="dram", energy=1e-11)},
    static_power=2.0,
)
PAIR = CHIP.model_copy(update={"count": 2, "name": "2x-chip"})


def printed(table: Table, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(table)
    return file.getvalue()


def test_a_memory_bound_point_sits_on_the_slope():
    # 2 x 1 x 1000 x 1000 = 2e6 op; weights 2e6 B, activations 2 x 2000 B; 5e9 B/s reach the unit: 0.4008 ms
    op = Gemm(name="g", kind="ffn", m=1.0, n=1000.0, k=1000.0)
    (point,) = roofline_points(simulate(place([op], CHIP), CHIP), CHIP)
    assert point["op_b"] == pytest.approx(2e6 / 2.004e6)
    assert point["seconds"] == pytest.approx(2.004e6 / 5e9)
    assert point["attained_op_s"] == pytest.approx(2e6 / 2.004e6 * 5e9)
    assert point["roof_op_s"] == pytest.approx(point["attained_op_s"])
    assert point["fraction"] == pytest.approx(1)
    assert (point["unit"], point["precision"], point["bound"]) == ("matrix", "bf16", "memory")


def test_a_compute_bound_point_reaches_the_flat_roof_less_its_overhead():
    # 2e12 op at 0.8e12 op/s take 2.5 s; an overhead of 2.5 s halves what is attained
    slow = CHIP.with_values({"units.matrix.overhead": 2.5})
    op = Gemm(name="g", kind="ffn", m=10000.0, n=10000.0, k=10000.0)
    (point,) = roofline_points(simulate(place([op], slow), slow), slow)
    assert point["roof_op_s"] == pytest.approx(0.8e12)
    assert point["attained_op_s"] == pytest.approx(0.4e12)
    assert point["fraction"] == pytest.approx(0.5)


def test_rates_are_those_of_one_device_of_a_system():
    one = {p["name"]: p for p in roofline_points(run(TINY, CHIP, phase="decode", batch=4, prompt=16), CHIP)}
    two = {p["name"]: p for p in roofline_points(run(TINY, PAIR, phase="decode", batch=4, prompt=16), PAIR)}
    assert two["norm1"]["attained_op_s"] == pytest.approx(one["norm1"]["attained_op_s"])
    assert max(point["fraction"] for point in two.values()) <= 1 + 1e-9


def test_moves_and_lookups_are_left_out_by_name():
    trace = run(TINY, PAIR, phase="decode", batch=4, prompt=16)
    assert left_out(trace, PAIR) == ["lookup", "lookup.all_gather", "out.all_reduce", "experts.all_reduce", "logits.all_gather"]
    assert not {"lookup", "out.all_reduce"} & {point["name"] for point in roofline_points(trace, PAIR)}


@pytest.mark.parametrize(
    ("what", "by"),
    [
        ("seconds", ["kind", "bound"]),
        ("seconds", ["unit"]),
        ("joules", ["kind", "component"]),
        ("joules", ["phase"]),
        ("bytes", ["memory"]),
        ("op", ["kind"]),
    ],
)
def test_breakdowns_add_up_to_the_totals(what, by):
    trace = run(TINY, PAIR, phase="generate", batch=4, prompt=16, output=5)
    table = breakdown(trace, what, by)
    rows = [getattr(row, what) for row in trace.rows]
    total = sum(sum(value.values()) if isinstance(value, dict) else value for value in rows)
    assert total > 0
    assert table[what].sum() == pytest.approx(total)
    assert table["share"].sum() == pytest.approx(1)


def test_op_table_adds_up_and_folds_microbatches_and_sampled_layers():
    piped = run(TINY, PAIR, phase="prefill", batch=4, prompt=16, parallel="pp=2,microbatches=2")
    table = op_table(piped)
    assert table["joules"].sum() == pytest.approx(piped.energy_j)
    assert table["seconds"].sum() == pytest.approx(sum(row.seconds for row in piped.rows))
    assert set(table["stage"]) == {0, 1}
    assert not table["op_name"].str.contains("@").any()
    sampled = run(TINY, CHIP, phase="decode", batch=4, prompt=16, seed=1)
    qkv = op_table(sampled, limit=20).set_index("op_name").loc["qkv"]
    assert qkv["repeat"] == 3
    assert len(op_table(sampled)) > len(op_table(sampled, limit=20))


def test_bound_of_a_line_is_that_of_most_of_its_time():
    trace = simulate(place([Gemm(name="g", kind="ffn", m=1.0, n=100.0, k=100.0)], CHIP), CHIP)
    row = trace.rows[0]
    parts = (replace(row, bound="memory"), replace(row, bound="compute", end_s=row.end_s * 3))
    (bound,) = op_table(replace(trace, rows=parts))["bound"]
    assert bound == "compute"


def test_comparison_gives_ratios_to_the_first():
    slow, fast = run(TINY, CHIP, phase="decode"), run(TINY, CHIP.with_values({"memories.dram.bandwidth": 4e10}), phase="decode")
    table = comparison([(slow, CHIP), (fast, CHIP)])
    assert table["speedup"].tolist() == [1.0, slow.latency_s / fast.latency_s]
    assert table["energy_ratio"].tolist() == [1.0, slow.energy_j / fast.energy_j]
    assert table["power_w"].iloc[0] == pytest.approx(slow.energy_j / slow.latency_s)
    assert list(table.index) == ["chip (1)", "chip (2)"]


def test_labels_name_models_only_where_they_differ():
    trace = run(TINY, CHIP, phase="decode")
    assert labels([trace, replace(trace, arch="other")]) == ["chip", "other"]
    assert labels([trace, replace(trace, model="big")]) == ["tiny on chip", "big on chip"]


def test_steps_added_up_become_mean_passes_in_real_order():
    trace = run(TINY, CHIP, phase="generate", batch=2, prompt=16, output=5)
    prefill, decode = passes(trace)
    assert (prefill.count, decode.count) == (1, 4)
    assert prefill.seconds + 4 * decode.seconds == pytest.approx(trace.latency_s)
    assert decode.seconds == pytest.approx(trace.marks["tpot_s"])
    names = [row.name for row in decode.unfolded()]
    assert names[0] == "embed.lookup"
    assert names.index("moe.experts#0") < names.index("moe.qkv#1") < names.index("moe.experts#1")
    assert sum(row.seconds for row in decode.unfolded()) == pytest.approx(decode.seconds)


@pytest.mark.parametrize("width", [80, 160])
def test_text_loses_nothing_at_any_width(width):
    trace = run(TINY, PAIR, phase="generate", batch=4, prompt=16, output=5)
    text = printed(ops_table(trace), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    assert "\x1b" not in text
    for word in ("experts.all_reduce", "attention.decode", "matrix", "wire", "energy", "Op/B", "static power, decode"):
        assert word in text
    assert "tokens/s" in printed(summary_table([(trace, PAIR), (trace, PAIR)]), width)
    assert "attention.decode" in printed(roofline_table(trace, PAIR), width)


def test_summary_says_that_energy_is_missing_instead_of_showing_zero():
    bare = CHIP.model_copy(update={"static_power": 0.0, "memories": {"dram": Memory(capacity=1e9, bandwidth=1e10)}, "links": {}})
    bare = bare.model_copy(update={"units": {n: u.model_copy(update={"energy": {}}) for n, u in CHIP.units.items()}})
    content = shown.summary([(run(TINY, bare, phase="decode"), bare)])
    assert "holds no energy numbers" in content.note
    assert not any(line[0].startswith("energy") for line in content.lines)


def test_check_table_shows_every_column_and_the_counts():
    claim = {
        "id": "a-1", "system": "s", "metric": "latency", "published": 2.0, "simulated": 2.5, "error": 0.25, "tolerance": 0.1,
        "unit": "ms", "provenance": "table", "verdict": "missed", "role": "claim", "ok": False,
        "reason": "kernels [red]not[/red] modelled",
    }  # fmt: skip
    other = claim | {
        "id": "a-2",
        "simulated": None,
        "error": None,
        "verdict": "not-modelled",
        "published": [1.0, 3.0],
        "ok": True,
    }
    summary = {"reproduced": 0, "missed": 1, "not-modelled": 1, "rows": 2, "failed": 1}
    text = printed(check_table({"claims": [claim, other], "summary": summary}), 80)
    for word in ("a-1", "latency [ms]", "[red]not[/red]", "2.5", "+25.0 %", "10 %", "missed (!)", "1, 3", "2 claims", "1 differ"):
        assert word in text


def test_facts_table_gives_every_number_its_source():
    device = {"arch": "chip", "numbers": [{"path": "memories.dram.bandwidth", "value": "10 GB/s", "source": "data\x1b[31msheet"}]}
    text = printed(facts_table(device), 80)
    assert "10 GB/s" in text
    assert "\x1b" not in text
    model = printed(facts_table({"model": "tiny", "parameters": 12345, "layers": [{"count": 3}], "source": "paper"}), 80)
    assert "12,345" in model
    assert "layers.0.count" in model
    assert model.count("paper") == 3


def test_lookups_have_no_intensity_rather_than_zero():
    trace = simulate(place([Lookup(name="l", kind="embedding", tokens=4.0, width=64, rows=1000.0)], CHIP), CHIP)
    assert shown.ops(trace).lines[0][6] == shown.NONE
