"""The Duplex study's measures over requests: lengths, the closed loop, percentiles and ratios against arithmetic."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from hwsim.catalogue import root
from hwsim.claim import Run
from hwsim.serving.steps import Step


@pytest.fixture(scope="module")
def serving():
    spec = importlib.util.spec_from_file_location("duplex_serving", root("studies") / "duplex" / "serving.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def case(serving, **changes):
    fixed = {"model": "mixtral-8x7b", "arch": "4x-h100-ideal", "batch": 4, "prompt": 64, "output": 32}
    return serving.Case(**fixed | changes)


def seen(serving, t2ft, e2e, gap, rate):
    """One request, a gap of `gap` s for nine tokens in ten and of twice that for the tenth."""
    return serving.Seen(np.array([t2ft]), np.array([e2e]), np.array([2 * gap, gap]), np.array([1.0, 9.0]), rate)


def test_lengths_add_up_and_keep_to_the_cut(serving):
    prompt, output = serving.lengths(4000, 1000, 100, seed=1)
    assert np.all(prompt + output == 1100)  # what the prompt lacks the output has
    assert np.max(np.abs(prompt - 1000)) <= round(0.95 * 99)  # min(256, 1000, 100) - 1
    assert np.mean(prompt) == pytest.approx(1000, abs=3)
    # N(0, 0.4) cut at 0.95 = 2.375 sd has a standard deviation of 0.4 sqrt(1 - 2 z phi(z) / (2 Phi(z) - 1)) = 0.377
    assert np.std(prompt) == pytest.approx(0.377 * 99, rel=0.05)


def test_the_first_batch_of_a_closed_loop_is_in_flight(serving):
    asked = serving.closed_loop(case(serving, batch=200, seed=3))
    drawn = serving.lengths(600, 64, 32, seed=3)
    assert np.all(asked.prompt + asked.output == 96)
    assert np.all(asked.output >= 1)
    assert np.all(asked.prompt[200:] == drawn[0][200:])
    assert np.mean(asked.output[:200] / drawn[1][:200]) == pytest.approx(0.5, abs=0.07)
    assert np.all(asked.cached == np.where(np.arange(600) < 200, asked.prompt - 1, 0))


def test_poisson_arrivals_have_their_rate(serving):
    asked = serving.poisson(case(serving, seed=1), 100.0)
    assert len(asked) == 1600
    assert asked.rate == pytest.approx(100.0, rel=0.1)


def test_percentiles_between_tokens_by_hand(serving):
    one = seen(serving, 1.0, 1.0, 1.0, 1.0)
    assert [one.tbt(percent) for percent in (50, 90, 91, 99)] == [1.0, 1.0, 2.0, 2.0]


def test_a_full_batch_is_measured_between_its_first_and_last_replacement(serving):
    """Outputs of 32 in a batch of 4: every request is in 32 steps, so the batch finishes 4 requests in 32 steps."""
    one = case(serving, batch=4)
    asked = serving.closed_loop(one, waves=8)
    served = serving.serve(one, asked)
    found = serving.after_warm_up(served, 4, 28)
    assert len(found.t2ft) == 28
    assert len(found.e2e) == 24
    steps = served.steps[served.steps["end_s"] <= served.fates.arrival_s[-1]]
    assert set(steps["sequences"]) == {4.0}  # never fewer
    mean = np.average(found.gaps, weights=found.weights)
    assert found.requests_per_s == pytest.approx(4 / (32 * mean), rel=0.15)
    assert np.all(found.t2ft < 2 * found.tbt(99))  # no queue: the step that it is in


def test_a_prompt_runs_on_one_node(serving):
    """Two prompts of 256 tokens are dealt over the nodes, one of 512 keeps the other waiting; on one node they are alike."""
    contexts = np.full(62, 700.0)
    for arch, waits in (("8x-h100-ideal", False), ("16x-h100-ideal", True)):
        steps = serving.engine(case(serving, model="glam-143b", arch=arch, batch=64, seed=1)).steps
        one, two = (float(steps.seconds(Step(chunks, contexts))[0]) for chunks in ([(512, 0)], [(256, 0), (256, 0)]))
        assert (one > 1.03 * two) == waits


def test_ratios_by_hand(serving, monkeypatch):
    ours, theirs = seen(serving, 1.0, 3.0, 0.5, 8.0), seen(serving, 2.0, 12.0, 1.0, 10.0)
    monkeypatch.setattr(serving, "seen", lambda one: ours if one.arch == "ours" else theirs)
    chosen = Run(model="mixtral-8x7b", args={"system": "ours", "over": "theirs", "lengths": [256, [64, 32]], "rates": [4, 16]})
    assert serving.served_t2ft_reduction(chosen) == 0.5
    assert serving.served_tbt_reduction(chosen) == 0.5
    assert serving.served_e2e_factor(chosen) == 4.0
    assert serving.served_tbt_wins(chosen) == 1.0
    assert serving.served_tails_equal(chosen) == 0.0
    assert serving.served_tail_crosses(chosen) == 0.0
    assert serving.served_trades_tail(chosen) == 0.0
    assert serving.served_trades_rate(chosen) == 1.0
