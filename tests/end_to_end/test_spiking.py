"""Networks of events as a user types them: runs, rooflines, reports, and files that are refused."""

from __future__ import annotations

import json

import pytest

from hwsim.catalogue import root
from tests.command import document, hwsim, refused

LSM = ("lsm-nmnist", "rram-40nm")


def test_run_says_where_energy_goes_and_what_fired():
    status, out, err = hwsim("run", *LSM)
    assert (status, err) == (0, "")
    for word in ("crossbar", "synapses", "neuron", "image.readout", "streams are synthetic", "% of neurons"):
        assert word in out


def test_run_json_adds_up():
    run = document("run", *LSM, "--batch", "3", "--seed", "5")
    assert (run["model"], run["arch"], run["tokens"]) == ("lsm-nmnist", "rram-40nm", 3)
    assert sum(op["joules"] for op in run["ops"]) == pytest.approx(run["energy_j"])
    parts = {name for op in run["ops"] for name in op["joules_by_component"]}
    assert {"cells", "drivers", "converters", "digital", "sram"} <= parts
    assert all(0 <= op["start_s"] <= op["end_s"] <= run["latency_s"] * (1 + 1e-12) for op in run["ops"])


def test_training_has_a_backward_pass():
    kinds = {op["kind"] for op in document("run", "srnn-nmnist", "a100-peak", "--phase", "train", "--batch", "4")["ops"]}
    assert {"backward.encoder", "backward.head", "backward.loss"} <= kinds


def test_roofline_has_a_crossbar_roof(tmp_path):
    page = tmp_path / "roofline.html"
    points = {point["name"]: point for point in document("roofline", *LSM, "--html", str(page))["ops"]}
    step = points["synapses"]
    assert (step["unit"], step["precision"]) == ("crossbar", "analog")
    assert step["attained_op_s"] < step["roof_op_s"] <= 2 * 512 * 256 / 90e-9
    assert "crossbar analog" in page.read_text()


def test_compare_with_baselines():
    runs = document("compare", "lsm-nmnist", "a100-peak", "rram-40nm", "digital-snn")["runs"]
    assert runs[1]["energy_ratio"] < runs[2]["energy_ratio"] < runs[0]["energy_ratio"] == 1


def test_report_names_streams_and_no_prompt(tmp_path):
    report, trace = tmp_path / "r.html", tmp_path / "t.json"
    status, _, err = hwsim("run", *LSM, "--report", str(report), "--perfetto", str(trace))
    assert (status, err) == (0, "")
    assert "cells" in report.read_text()
    assert "prompt 1024" not in " ".join(report.read_text().split())
    assert json.loads(trace.read_text())


def test_show_counts_weights():
    assert document("show", "lsm-atv")["trainable_parameters"] == 2 * (200 + 1) * 64


def test_one_macro_has_no_room_for_two_reservoirs():
    assert "memory array holds" in refused("run", "lsm-atv", "rram-40nm")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", *LSM, "--kv", "fp8"),
        ("run", *LSM, "--sequences", "1:2", "--phase", "mixed"),
        ("run", *LSM, "--parallel", "tp=1"),
        ("run", *LSM, "--batch", "0"),
        ("run", "lsm-nmnist", "2x-h100"),
        ("run", "gpt2", "h100", "--phase", "train"),
        ("serve", "lsm-nmnist", "h100", "--rate", "1"),
        ("run", *LSM, "--set", "units.crossbar.crossbar.rows=0"),
        ("run", *LSM, "--set", "units.crossbar.crossbar.read_time=5"),
        ("run", *LSM, "--set", "units.crossbar.crossbar.sums=1"),
    ],
)
def test_bad_options_are_refused_in_one_line(arguments):
    assert "accepted" in refused(*arguments)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("decay: 0.9", "decay: 1.5", "decay: 1.5; accepted: a number from 0 to 1"),
        ("neurons: 200", "neurons: 0", "neurons: 0; accepted: a whole number"),
        ("density: 0.05", "denisty: 0.05", "denisty: 0.05; accepted"),
        ("density: 0.05", "density: .nan", "density: nan; accepted"),
        ("cell: lif", "cell: gru", "cell: 'gru'; accepted: lif, rnn"),
        ("outputs: 10", "outputs: ten", "outputs: 'ten'; accepted"),
        ("fixed: true", "fixed: 3", "fixed: 3; accepted: true or false"),
        ("encoders:", "layers: 3\nencoders:", "layers: 3; accepted"),
        ("name: image", "name: a b", "name: 'a b'; accepted: a word"),
        ("threshold: 5.0, ", "", "threshold: missing; accepted"),
    ],
)
def test_bad_networks_are_refused_in_one_line(tmp_path, old, new, says):
    text = (root("models") / "lsm-nmnist.yaml").read_text()
    assert old in text
    path = tmp_path / "net.yaml"
    path.write_text(text.replace(old, new))
    assert says in refused("run", str(path), "rram-40nm")


@pytest.mark.parametrize("encoders", ["3", "[]", "[1]", "null"])
def test_encoders_are_a_list(tmp_path, encoders):
    path = tmp_path / "net.yaml"
    path.write_text(f"name: net\nencoders: {encoders}\noutputs: 3\n")
    assert "encoders" in refused("run", str(path), "rram-40nm")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("rows: {value: 512", "rows: {value: -1", "rows"),
        ("sums: analogue", "sums: magic", "sums"),
        ("      row_energy", "      row_enrgy", "row_enrgy"),
        ("    cost: crossbar\n", "    cost: crosbar\n", "crosbar"),
    ],
)
def test_bad_crossbars_are_refused_in_one_line(tmp_path, old, new, says):
    text = (root("arch") / "rram-40nm.yaml").read_text()
    assert old in text
    path = tmp_path / "chip.yaml"
    path.write_text(text.replace(old, new))
    assert says in refused("run", "lsm-nmnist", str(path))


def test_a_crossbar_cost_needs_a_crossbar(tmp_path):
    text = (root("arch") / "a100-ideal.yaml").read_text().replace("cost: roofline", "cost: crossbar")
    path = tmp_path / "chip.yaml"
    path.write_text(text)
    assert "crossbar: missing" in refused("run", "lsm-nmnist", str(path))
