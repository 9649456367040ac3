"""Measures of Splitwise (arXiv:2311.18677): power of a run; prompts and tokens on machines of their own or on the same."""

from __future__ import annotations

from collections.abc import Callable

from hwsim.catalogue import load_device
from hwsim.claim import Run
from hwsim.job import Job
from hwsim.job import run as simulated
from hwsim.serving.drawn import drawn_requests
from hwsim.serving.served import Served
from hwsim.serving.service import Service, serve


def mean_power(chosen: Run) -> float:
    """Mean power of prompt and tokens over the limit of all boards."""
    device = load_device(str(chosen.arch))
    trace = simulated(chosen.model, device, Job(batch=chosen.batch, prompt=chosen.prompt, output=chosen.output))
    assert device.power_limit is not None
    return trace.energy_j / (trace.latency_s * float(device.power_limit) * device.count)


def first_token_ratio(chosen: Run) -> float:
    """Median time to first token on machines for prompts and for tokens, over that on as many that do both."""
    return _split_ratio(chosen, lambda served: _of(served, "ttft_s", "p50"))


def token_tail_ratio(chosen: Run) -> float:
    """The 99th percentile between tokens on machines for prompts and for tokens, over that on as many that do both."""
    return _split_ratio(chosen, lambda served: _of(served, "tbt_s", "p99"))


def _split_ratio(chosen: Run, value: Callable[[Served], float]) -> float:
    """value(apart) / value(together) for the load of `args`: requests, rate, prompts and outputs; pools are [prompts, tokens]."""
    args = chosen.args
    asked = drawn_requests(args["requests"], args["rate"], "poisson", args["prompts"], args["outputs"], chosen.seed or 0)
    prompts, tokens = args["pools"]
    apart = Service(scheduler="mixed", disaggregate=(prompts, tokens))
    together = Service(scheduler="mixed", replicas=prompts + tokens)
    ours, theirs = (value(serve(chosen.model, str(chosen.arch), asked, service)) for service in (apart, together))
    return ours / theirs


def _of(served: Served, name: str, part: str) -> float:
    found = served.summary(name)[part]
    assert found is not None
    return found
