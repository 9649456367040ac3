"""Networks larger than memory from the command line: runs, comparisons, reports, refusals."""

from __future__ import annotations

import json

import pytest

from tests.command import document, hwsim, refused

STEP = ("--phase", "decode", "--prompt", "256")


def test_a_run_says_where_bytes_stay_and_time_goes(tmp_path):
    page = tmp_path / "offload.html"
    status, out, err = hwsim("run", "opt-6.7b", "m1-max", "--policy", "flash.windowed:k=4", *STEP, "--report", str(page))
    assert (status, err) == (0, "")
    assert "memory management" in out
    assert "flash holds" in out
    text = page.read_text()
    assert "Where each byte stays" in text
    assert "I/O, memory management, compute" in text
    ran = document("run", "opt-6.7b", "m1-max", "--policy", "flash.windowed:k=4", *STEP)
    assert sum(ran["held_bytes"]["flash"].values()) == pytest.approx(2 * 6.66e9, rel=0.01)
    assert sum(ran["held_bytes"]["dram"].values()) < 0.6 * sum(ran["held_bytes"]["flash"].values())


def test_policies_side_by_side_are_the_ablation():
    """The order of table 2 of arXiv:2312.11514, each technique on top of the others."""
    steps = ["flash.naive", "flash.hybrid", "flash.sparse", "flash.windowed:k=4", "flash.bundled:k=4"]
    found = document("compare", "opt-6.7b", "m1-max-metal", *(part for step in steps for part in ("--policy", step)), *STEP)[
        "runs"
    ]
    assert [run["arch"].split()[1] for run in found] == steps
    assert [run["latency_s"] for run in found] == sorted((run["latency_s"] for run in found), reverse=True)


def test_drawn_neurons_are_the_same_for_the_same_seed():
    def draw(seed: str) -> float:
        ran = document(
            "run", "phi-2", "m1-max", "--policy", "flash.bundled:k=1", "--prompt", "16", "--output", "4", "--seed", seed
        )
        return ran["latency_s"]

    assert draw("1") == draw("1") != draw("2")


def test_rooflines_have_roofs_of_the_ways_inside(tmp_path):
    page = tmp_path / "roof.html"
    status, out, err = hwsim("roofline", "opt-6.7b", "m1-max", "--policy", "flash.bundled:k=4", "--html", str(page))
    assert (status, err) == (0, "")
    assert "whole run" in out
    assert "Dotted: ways inside the device" in page.read_text()


def test_a_format_of_embedding_and_head():
    def weights(*options: str) -> float:
        ran = document("run", "qwen3-1.7b", "oneplus-13", "--weights", "int4_g32", *options, *STEP)
        return sum(size for kind, size in ran["held_bytes"]["dram"].items() if kind != "kv")

    assert weights("--head", "int4_g32") == pytest.approx(weights() - 151936 * 2048 * (2 - 4.5 / 8), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("opt-175b", "m1-max", "--policy", "flash.naive", "--set", "memories.flash.capacity=256GB"),
            "memory flash holds 256 GB",
        ),
        (("opt-6.7b", "h100", "--policy", "flash.naive"), "no drive"),
        (("llama-3.1-8b", "m1-max", "--policy", "flash.sparse"), "nothing is known of the network's neurons"),
        (("opt-6.7b", "m1-max", "--policy", "flash.bundled:overlap=maybe"), "accepted: yes, no"),
        (("opt-6.7b", "m1-max", "--policy", "flash.speculative:accepted=9"), "from 1 to draft + 1"),
        (("opt-6.7b", "m1-max", "--policy", "flash.experts"), "no routed experts"),
        (("opt-6.7b", "m1-max", "--head", "int99"), "int99"),
        (("mixtral-8x7b", "m1-max", "--policy", "hybrid.moe_lens"), "no link that reads a host's memory"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(arguments, says):
    assert says in refused("run", *arguments)


def test_serving_keeps_its_weights():
    assert "accepted for serving" in refused("serve", "opt-6.7b", "m1-max", "--rate", "1", "--policy", "flash.naive")


@pytest.mark.parametrize(
    "neurons",
    [
        {"window": 1, "cached": 0.2, "new": 0.02},
        {"window": 5, "cached": 0.2, "new": 0.1},
        {"window": 5},
        [1],
        {"window": 5, "hot": 1},
    ],
)
def test_neurons_that_cannot_be_are_refused(tmp_path, neurons):
    config = {
        "model_type": "opt", "hidden_size": 64, "ffn_dim": 256, "num_hidden_layers": 2, "num_attention_heads": 2,
        "vocab_size": 99, "neurons": neurons,
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert "neurons" in refused("run", str(path), "m1-max")
