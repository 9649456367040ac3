"""Jobs: what is refused, noted, and that generations add up whichever way they are priced."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.catalogue import load_device
from hwsim.engine import estimate
from hwsim.errors import InputError
from hwsim.job import Job, run
from hwsim.lowering.batch import decode, mixed
from hwsim.lowering.transformer import lower
from hwsim.placement import place
from tests.unit.test_transformer import DENSE, MIXTRAL


def test_capacity_may_be_the_only_array():
    points = load_device("h100").with_values({"memories.hbm.capacity": np.array([1e9, 80e9])})
    closed = estimate(place(lower(DENSE, decode(1, 100)), points), points)
    assert np.isnan(closed.latency_s).tolist() == [True, False]
    assert closed.reason.tolist() == [1, 0]


def test_seeded_generation_scatters_around_the_expected_one():
    expected = run(MIXTRAL, "4x-h100", Job(batch=4, prompt=100, output=65))
    drawn = [run(MIXTRAL, "4x-h100", Job(batch=4, prompt=100, output=65, seed=seed)) for seed in (1, 2)]
    assert drawn[0].latency_s != drawn[1].latency_s
    for trace in drawn:
        assert trace.latency_s == pytest.approx(expected.latency_s, rel=0.05)
        assert trace.latency_s == pytest.approx(trace.marks["ttft_s"] + 64 * trace.marks["tpot_s"])


def test_ranks_with_loads_of_their_own_are_added_up_step_by_step():
    trace = run(MIXTRAL, "4x-h100", Job(batch=4, prompt=100, output=9, seed=3, parallel="tp=4,ep=4"))
    steps = [row for row in trace.rows if row.phase == "decode" and row.kind == "experts"]
    assert len(steps) == 4
    after = next(row for row in trace.rows if row.phase == "decode" and row.name.endswith("experts.all_reduce"))
    assert after.start_s >= max(row.end_s for row in steps) - 1e-12


def test_a_seed_means_nothing_to_a_dense_network():
    assert run(DENSE, "h100", Job(phase="decode", seed=1)) == run(DENSE, "h100", Job(phase="decode"))


def test_notes_say_what_a_reader_should_know():
    trace = run("gpt2", "h100", Job(phase="decode", prompt=4000))
    assert any("4000 tokens" in note and "1024" in note for note in trace.notes)
    hot = run(DENSE, "h100", Job(phase="decode", set={"power_limit": "1 W"}))
    assert any("above its limit of 1 W" in note for note in hot.notes)
    assert run(DENSE, "h100", Job(phase="decode")).notes == ()


def test_encoders_do_not_decode():
    with pytest.raises(InputError, match="encoder"):
        run("bert-base", "h100", Job(phase="decode"))
    assert run("bert-base", "h100", Job(phase="prefill", batch=8, prompt=128)).latency_s > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [({"seed": "x"}, "seed"), ({"batch": 0}, "batch"), ({"batch": True}, "batch"), ({"output": 10**7}, "output")],
)
def test_jobs_that_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        Job(**change)


def test_whole_numbers_of_numpy_are_whole_numbers():
    assert run(DENSE, "h100", Job(phase="decode", batch=np.int64(4))).tokens == 4


@pytest.mark.parametrize("sequences", [[(0, 1)], [(1, -1)], [(1,)], [(1, 2, -3)], []])
def test_sequences_that_are_refused(sequences):
    with pytest.raises(InputError, match="sequence"):
        mixed(sequences)


@pytest.mark.parametrize("batch", [0, -8, np.array([1, 0])])
def test_batches_that_are_refused(batch):
    with pytest.raises(InputError, match="batch"):
        decode(batch, 100)


def test_a_host_that_cannot_keep_up_decides():
    """965 kernels of 46.5 us: per layer 2 norms, 4 products, activation, rotation, attention, cache, 2 reductions; 5 more."""
    alone, hosted = (run("llama-2-70b", "8x-a100", phase="decode", host=host) for host in (None, "eager"))
    assert hosted.latency_s == pytest.approx(965 * 46.5e-6)
    assert hosted.latency_s > alone.latency_s
    row = next(row for row in hosted.rows if row.unit == "host")
    assert row.seconds == pytest.approx(hosted.latency_s - alone.latency_s)
    static = {row.unit: row.joules for row in hosted.rows}["static"]["static"]
    assert static == pytest.approx(8 * float(load_device("a100").static_power) * hosted.latency_s)


def test_graphs_hide_launches_of_decodes_but_not_of_prompts():
    """vLLM's host: 1 ms a step and 10 us a sequence; prompts of two tokens cannot hide 323 launches of 30 us."""
    alone, hosted = (run("llama-3.1-8b", "h100", phase="decode", batch=4, host=host) for host in (None, "vllm"))
    assert hosted.latency_s - alone.latency_s == pytest.approx(1e-3 + 4 * 10e-6)
    short = run("llama-3.1-8b", "h100", phase="prefill", prompt=2, host="vllm")
    assert short.latency_s == pytest.approx(323 * 30e-6 + 1e-3 + 10e-6)


def test_generation_waits_for_its_host_in_every_step():
    whole = run("llama-2-70b", "8x-a100", prompt=64, output=4, host="eager")
    assert whole.latency_s == pytest.approx(4 * 965 * 46.5e-6, rel=0.05)
    assert whole.marks["tpot_s"] == pytest.approx(965 * 46.5e-6)
