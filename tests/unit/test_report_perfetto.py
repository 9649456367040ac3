"""Perfetto traces: fields of the Trace Event Format, no overlap within a thread, durations that add up, a bounded size."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from dataclasses import replace

import pytest

from hwsim.device import Device, Link, Memory, Unit
from hwsim.job import run
from hwsim.lowering.model import Attention, FeedForward, Layer, Model
from hwsim.report.perfetto import perfetto

TINY = Model("tiny", 64, 1000, ((Layer(Attention(4, 2, 16), FeedForward(128)), 4),))
CHIP = Device(
    name="chip",
    count=4,
    memories={"dram": Memory(capacity=1e9, bandwidth=1e10)},
    units={
        "matrix": Unit(does=("matmul",), memory="dram", peak={"bf16": 1e12}, overhead=1e-7),
        "vector": Unit(does=("vector",), memory="dram", peak={"fp32": 1e11}),
    },
    links={"wire": Link(bandwidth=1e9, latency=1e-6, reach=4, memory="dram")},
)
RUNS = {
    "generate": run(TINY, CHIP, phase="generate", batch=2, prompt=16, output=9),
    "pipeline": run(TINY, CHIP, phase="prefill", batch=8, prompt=16, parallel="pp=2,tp=2,microbatches=4"),
}


def events(document, ph):
    return [event for event in document["traceEvents"] if event["ph"] == ph]


def named(document, what):
    return {(event["pid"], event["tid"]): event["args"]["name"] for event in events(document, "M") if event["name"] == what}


def bars(document, thread):
    threads = named(document, "thread_name")
    return [event for event in events(document, "X") if threads[event["pid"], event["tid"]] == thread]


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("limit", [3, 40, 300, 60_000])
def test_events_are_well_formed_and_never_overlap(name, limit):
    document = json.loads(json.dumps(perfetto([RUNS[name], RUNS[name]], limit), allow_nan=False))
    threads = named(document, "thread_name")
    lanes = defaultdict(list)
    for event in events(document, "X"):
        assert event["name"]
        assert event["cat"]
        assert event["ts"] >= 0
        assert event["dur"] >= 0
        assert (event["pid"], event["tid"]) in threads
        lanes[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert lanes
    for spans in lanes.values():
        spans.sort()
        assert all(after[0] >= before[1] for before, after in itertools.pairwise(spans))
        # readers that cut to whole nanoseconds see no overlap either
        cut = [(math.floor(start * 1000), math.floor(start * 1000) + math.floor((end - start) * 1000)) for start, end in spans]
        assert all(after[0] >= before[1] for before, after in itertools.pairwise(cut))


@pytest.mark.parametrize("limit", [3, 40, 300, 60_000])
def test_passes_add_up_to_the_latency_and_limits_hold(limit):
    trace = RUNS["generate"]
    document = perfetto([trace], limit)
    found = bars(document, "passes")
    assert sum(event["dur"] for event in found) == pytest.approx(trace.latency_s * 1e6, rel=1e-4)
    assert len(events(document, "X")) - len(found) <= limit


def test_every_layer_of_every_step_is_drawn_when_there_is_room():
    document = perfetto([RUNS["generate"]])
    assert [event["name"] for event in bars(document, "passes")] == ["prefill", *(f"decode {i}" for i in range(1, 9))]
    assert len([event for event in events(document, "X") if event["name"].startswith("dense.qkv#")]) == 9 * 4
    drawn = sum(event["dur"] for unit in ("matrix", "vector", "wire") for event in bars(document, unit))
    assert drawn == pytest.approx(RUNS["generate"].latency_s * 1e6, rel=1e-3)  # one after another: nothing overlaps here


def test_a_small_limit_folds_layers_and_says_so():
    document = perfetto([RUNS["generate"]], 300)
    words = [event["args"]["ops"] for event in bars(document, "passes")]
    assert words[0] == "every layer"
    assert words[1].startswith("layers folded")
    none = [event["args"]["ops"] for event in bars(perfetto([RUNS["generate"]], 40), "passes")]
    assert none[-1].startswith("not drawn")


def test_processes_are_runs_and_stages_threads_are_units():
    document = perfetto([RUNS["pipeline"], replace(RUNS["generate"], arch="other")])
    assert list(named(document, "process_name").values()) == ["tiny on chip, stage 0", "tiny on chip, stage 1", "tiny on other"]
    assert sorted(set(named(document, "thread_name").values())) == ["matrix", "passes", "vector", "wire"]
    sorts = [event for event in events(document, "M") if event["name"] == "thread_sort_index"]
    assert len(sorts) == len(named(document, "thread_name"))


def test_counters_give_back_the_bytes_of_each_memory():
    trace = RUNS["generate"]
    counted = [(event["ts"], event["args"]["GB/s"]) for event in events(perfetto([trace]), "C")]
    assert counted == sorted(counted, key=lambda one: one[0])
    moved = sum(rate * 1e9 * (after - when) * 1e-6 for (when, rate), (after, _) in itertools.pairwise(counted))
    assert moved == pytest.approx(sum(row.bytes.get("dram", 0.0) for row in trace.rows), rel=1e-3)
    assert counted[-1][1] == 0


def test_a_million_steps_stay_small():
    long = run(TINY, CHIP, phase="generate", batch=1, prompt=16, output=100_000)
    document = perfetto([long], 1000)
    assert len(document["traceEvents"]) < 5000
    assert [event["name"] for event in bars(document, "passes")] == ["prefill", "decode"]
