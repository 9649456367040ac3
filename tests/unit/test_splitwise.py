"""The Splitwise study's measures: power by hand, and what separate machines for prompts and tokens must do."""

from __future__ import annotations

import importlib.util

import pytest

from hwsim.catalogue import root
from hwsim.claim import Run
from hwsim.job import Job, run


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("splitwise_study", root("studies") / "splitwise" / "study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_mean_power_is_joules_over_seconds_and_boards(study):
    trace = run("llama-2-7b", "2x-a100", Job(batch=2, prompt=64, output=8))
    chosen = Run(model="llama-2-7b", arch="2x-a100", batch=2, prompt=64, output=8)
    assert study.mean_power(chosen) == pytest.approx(trace.energy_j / trace.latency_s / (2 * 400))


def load(**changes):
    fixed = {"requests": 100, "rate": 8.0, "prompts": "fixed:1024", "outputs": "fixed:64", "pools": [1, 1]}
    return Run(model="llama-2-70b", arch="8x-h100", seed=1, args=fixed | changes)


def test_prompts_elsewhere_hold_up_no_token(study):
    # together, a token waits for a whole prompt of 1,024 (some 50 ms beside 15 ms); apart for none
    assert study.token_tail_ratio(load()) < 0.6


def test_a_lone_request_gets_its_first_token_at_the_same_time(study):
    # one at a time there is nothing to wait for: the prompt is the same step on the same machine
    assert study.first_token_ratio(load(rate=0.1, requests=5)) == pytest.approx(1.0, rel=1e-6)
