"""Laws of serving, over random loads, schedulers, caches, replicas, disaggregation and closed loops."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.catalogue import load_device, root
from hwsim.job import Job
from hwsim.serving import Served, Service, drawn_requests, make_requests
from hwsim.serving import serve as service_of
from hwsim.serving.cache import Room
from hwsim.serving.cluster import Cluster, Fates
from hwsim.serving.requests import Requests
from hwsim.serving.routers import ROUTERS
from hwsim.serving.schedulers import SCHEDULERS
from hwsim.serving.service import Engine
from tests.serving_by_hand import Priced, engines, serve

few = settings(deadline=None, max_examples=40)
TIMES = ("started_s", "first_s", "finished_s", "arrival_s", "preemptions", "replica")


def price(tokens: float, sequences: float, cached: float) -> float:
    """Irregular seconds, so that ties and cancelled errors are no help."""
    return 0.01 + 0.0013 * tokens + 0.0007 * sequences + 0.00001 * cached


@st.composite
def loads(draw, most: int = 25) -> Requests:
    many = draw(st.integers(1, most))
    lengths = st.lists(st.integers(1, 60), min_size=many, max_size=many)
    arrivals = draw(st.lists(st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0, 3.0]) | st.floats(0, 5), min_size=many, max_size=many))
    prompt, output = draw(lengths), draw(lengths)
    cached = [draw(st.integers(0, tokens)) for tokens in prompt] if draw(st.booleans()) else [0] * many
    return make_requests(arrivals, prompt, output, np.array(cached))


@st.composite
def hows(draw) -> dict[str, object]:
    """Small caches, so that preemption is the rule; some too small for the longest request."""
    size = draw(st.sampled_from([1, 2, 4, 16]))
    return {
        "scheduler": draw(st.sampled_from(sorted(SCHEDULERS))), "router": draw(st.sampled_from(sorted(ROUTERS))), "size": size,
        "blocks": -(-draw(st.integers(40, 400)) // size), "max_seqs": draw(st.sampled_from([1, 2, 3, 8, 256])),
        "max_batched_tokens": draw(st.sampled_from([1, 2, 3, 5, 17, 64, 8192])), "prefix_caching": draw(st.booleans()),
        "span": draw(st.sampled_from([0, 0, 0, 8, 32])),
    }  # fmt: skip


@st.composite
def clusters(draw) -> tuple[dict[str, object], tuple[int, int], int | None]:
    """How engines work, (engines, engines that only decode), and how many requests a closed loop keeps under way."""
    return draw(hows()), (draw(st.integers(1, 3)), draw(st.sampled_from([0, 0, 1, 2]))), draw(st.sampled_from([None, None, 1, 3]))


def ran(asked: Requests, kind, ahead: int = 1024) -> tuple[Fates, Cluster, Priced]:
    how, (first, second), concurrency = kind
    steps = Priced(price)
    cluster = Cluster(
        engines(first, steps=steps, ahead=ahead, **how),
        engines(second, steps=steps, ahead=ahead, **how) if second else None,
        lambda tokens: 0.003 * tokens,
    )
    return cluster.serve(asked, concurrency), cluster, steps


def gaps(cluster: Cluster) -> dict[float, int]:
    total: Counter[float] = Counter()
    for replica in cluster.replicas:
        for seconds, many in zip(*replica.log.between_tokens(), strict=True):
            total[seconds] += many
    return total


@few
@given(loads(), clusters())
def test_skipping_ahead_is_stepping_one_by_one(asked, kind):
    (fates, cluster, steps), (slow, stepped, ones) = ran(asked, kind), ran(asked, kind, ahead=1)
    for name in TIMES:
        assert np.array_equal(getattr(fates, name), getattr(slow, name), equal_nan=True), name
    assert fates.rejected == slow.rejected
    assert gaps(cluster) == gaps(stepped)
    assert steps.joules() == ones.joules()
    for one, other in zip(cluster.replicas, stepped.replicas, strict=True):
        assert max(one.log.columns["blocks"], default=0) == max(other.log.columns["blocks"], default=0)


@few
@given(loads(), clusters())
def test_requests_and_tokens_are_conserved(asked, kind):
    fates, cluster, steps = ran(asked, kind)
    done = ~np.isnan(fates.finished_s)
    assert np.count_nonzero(done) + len(fates.rejected) == len(asked)
    assert not set(np.flatnonzero(done)) & set(fates.rejected)
    # every token but a request's first one ends a gap; nothing else does
    assert sum(gaps(cluster).values()) == (asked.output[done] - 1).sum()
    computed = (asked.prompt + asked.output - 1)[done]
    hits = np.minimum(asked.cached, asked.prompt - 1)[done] * kind[0]["prefix_caching"]
    if fates.preemptions.any():  # something was computed twice, or found again
        assert steps.joules()["tokens"] >= (computed - hits).sum()
    else:
        assert steps.joules()["tokens"] == (computed - hits).sum()
    for replica in cluster.replicas:
        assert replica.queue.used == replica.load == 0
        starts, ends = (np.array(replica.log.columns[name]) for name in ("start_s", "end_s"))
        assert np.all(starts[1:] >= ends[:-1])  # one step at a time
    assert np.all(fates.arrival_s[done] <= fates.started_s[done])
    assert np.all(fates.started_s[done] < fates.first_s[done])
    assert np.all((fates.first_s < fates.finished_s)[done] == (asked.output > 1)[done])


@few
@given(loads(), hows())
def test_first_come_first_started(asked, how):
    """On one engine requests start in order of arrival: nobody overtakes, whatever is preempted."""
    fates, _, _ = ran(asked, (how, (1, 0), None))
    started = fates.started_s[~np.isnan(fates.started_s)]
    assert np.all(np.diff(started) >= 0)
    if not fates.preemptions.any():
        first = fates.first_s[~np.isnan(fates.first_s)]
        assert np.all(np.diff(first) >= 0)


@pytest.mark.parametrize(
    ("model", "device", "job"),
    [("gpt2", "h100", Job()), ("gpt2", "h100-ideal", Job()), ("olmoe-1b-7b", "h100-ideal", Job(seed=3)),
     ("olmoe-1b-7b", "2x-h100", Job(seed=3, parallel="tp=2,ep=2"))],
)  # fmt: skip
@pytest.mark.parametrize("blocks", [0, 40])
def test_skipping_ahead_takes_the_same_seconds_and_joules_of_real_engines(model, device, job, blocks):
    """`blocks` 40: a cache so small that sequences are preempted."""
    asked = drawn_requests(12, 1e5, "poisson", "gaussian:mean=100,sd=40", "gaussian:mean=30,sd=15", 5)
    found = []
    for ahead in (1, 1024):
        engine = Engine.of(model, device, Service(max_seqs=8, max_batched_tokens=512, ahead=ahead), job)
        cluster = engine.cluster()
        if blocks:
            cluster.replicas[0].queue.room = Room(blocks, 16)
        found.append((cluster.serve(asked), cluster, cluster.replicas[0].steps.joules()))
    (slow, stepped, ones), (fates, cluster, joules) = found
    for name in TIMES:
        assert np.array_equal(getattr(fates, name), getattr(slow, name)), name
    assert gaps(cluster) == gaps(stepped)
    assert (fates.preemptions.sum() > 0) == bool(blocks)
    assert len(cluster.replicas[0].log.columns["steps"]) < len(stepped.replicas[0].log.columns["steps"])
    assert joules == pytest.approx(ones, rel=1e-9)


def test_experts_are_drawn_for_all_data_parallel_ranks_whatever_their_number():
    """A third of 20 tokens, three times, is 20 tokens, though not in floating point."""
    asked = drawn_requests(8, 500.0, "poisson", "20", "5", 5)
    served = service_of("olmoe-1b-7b", "3x-h100-ideal", asked, Service(), Job(seed=1, parallel="dp=3,ep=3"))
    assert served.completed == 8


RERUN = """
import json
from hwsim.job import Job
from hwsim.serving import Service, drawn_requests, serve
asked = drawn_requests(20, 100.0, "gamma:cv=2", "lognormal:mean=80,sd=60", "gaussian:mean=20,sd=5", 9)
served = serve("olmoe-1b-7b", "h100-ideal", asked, Service(replicas=2, router="least-loaded"), Job(seed=2))
print(json.dumps(served.to_dict()), served.table.to_csv(), served.steps.to_csv())
"""


def test_same_seed_same_bytes_across_processes():
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": str(root("arch").parent)}
    there = subprocess.run([sys.executable, "-c", RERUN], capture_output=True, check=True, env=environment, text=True).stdout
    with contextlib.redirect_stdout(io.StringIO()) as here:
        exec(RERUN, {})
    assert there == here.getvalue()


@pytest.fixture(scope="module")
def long() -> Served:
    """1,000 requests in bursts: ten in the system in the mean, at most eight of them in a step."""
    asked = drawn_requests(1000, 40.0, "gamma:cv=2", "gaussian:mean=100,sd=50", "lognormal:mean=30,sd=30", 1)
    return service_of("llama-3.1-8b", "h100-ideal", asked, Service(max_seqs=8))


def test_littles_law(long):
    """Mean number in the system = throughput x mean time in it, the number being counted from arrivals and departures alone."""
    table = long.table
    when = np.concatenate([table["arrival_s"], table["finished_s"]])
    change = np.concatenate([np.ones(len(table)), -np.ones(len(table))])
    order = np.argsort(when, kind="stable")
    inside, gap = np.cumsum(change[order])[:-1], np.diff(when[order])
    mean_number = (inside * gap).sum() / gap.sum()
    assert mean_number == pytest.approx(long.requests_per_s * long.summary("e2e_s")["mean"], rel=0.02)
    # and from what the engine logged, step by step: sequences in service = throughput x mean time in service
    served = (long.steps["sequences"] * (long.steps["end_s"] - long.steps["start_s"])).sum() / long.makespan_s
    assert served == pytest.approx(long.requests_per_s * (table["e2e_s"] - table["queue_s"]).mean(), rel=1e-9)


def test_what_a_service_says_of_itself_adds_up(long):
    document, table = long.to_dict(), long.table
    assert document["tokens"] == long.requests.output.sum()
    assert document["tokens_per_s"] * document["makespan_s"] == pytest.approx(document["tokens"])
    assert 0 < document["utilisation"] <= 1
    assert sum(document["joules"].values()) == pytest.approx(document["energy_j"])
    between = long.gaps[0] @ long.gaps[1]
    assert between == pytest.approx((table["e2e_s"] - table["ttft_s"]).sum(), rel=1e-9)
    assert long.steps["blocks"].max() <= long.room.blocks
    assert np.all(table["queue_s"] <= table["ttft_s"])
    assert np.all(table["ttft_s"] <= table["e2e_s"])


@settings(deadline=None, max_examples=25)
@given(loads(), st.sampled_from([1.1, 2.0, 10.0]))
def test_a_higher_rate_never_shortens_a_queue_without_batching(asked, faster):
    """One request at a time is a G/G/1 queue: Lindley's recurrence holds and every single wait grows with the rate.

    With batching that is no law; see the next test.
    """
    if not asked.rate:
        return
    one = (({"scheduler": "chunked", "max_seqs": 1, "prefix_caching": False, "blocks": 1000}), (1, 0), None)
    waits = []
    for rate in (asked.rate, asked.rate * faster):
        fates = ran(asked.at_rate(rate), one)[0]
        wait, service = fates.started_s - fates.arrival_s, fates.finished_s - fates.started_s
        later = np.maximum(0.0, wait[:-1] + service[:-1] - np.diff(fates.arrival_s))
        assert wait[0] == 0
        assert np.allclose(wait[1:], later, rtol=1e-9, atol=1e-9)
        waits.append(wait)
    assert np.all(waits[0] <= waits[1] + 1e-9)


def test_with_batching_a_higher_rate_can_shorten_the_queue():
    """The smallest example: three prompts of one output token, a step taking a second for each 10 tokens.

    At 0, 0.9 and 1.1 s the second prompt starts alone at 1.0 and the third waits for its long step: 0.1 + 1.9 s of waiting. A
    fifth faster, at 0, 0.72 and 0.88 s, both are there at 1.0 and run together: 0.28 + 0.12 s.
    """
    waited = []
    for faster in (1.0, 1.25):
        asked = [(0.0, 10, 1), (0.9 / faster, 20, 1), (1.1 / faster, 20, 1)]
        fates, _ = serve(asked, steps=Priced(lambda tokens, sequences, cached: tokens / 10))
        waited.append((fates.started_s - fates.arrival_s).sum())
    assert waited == pytest.approx([2.0, 0.4])


def test_constant_arrivals_and_steps_have_a_closed_form():
    """D/D/1. One token, one at a time, a second each, ten arrive in a second: the n-th starts at n, having waited 0.9 n."""
    many = 1000
    asked = [(0.1 * n, 1, 1) for n in range(many)]
    tracemalloc.start()
    fates, cluster = serve(asked, max_seqs=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert fates.started_s == pytest.approx(np.arange(many))
    assert fates.finished_s - fates.arrival_s == pytest.approx(0.9 * np.arange(many) + 1)
    assert len(cluster.replicas[0].log.columns["steps"]) == many
    assert not cluster.heap
    assert peak < 2_000 * many  # bytes; what waits is small


def test_overload_in_batches_has_a_closed_form():
    """8 at once, 5 tokens each, a second a step, all there at the start: the n-th group of 8 runs from 5 n to 5 n + 5."""
    fates, cluster = serve([(0.0, 3, 5)] * 80, max_seqs=8)
    group = np.arange(80) // 8
    assert fates.started_s.tolist() == (5.0 * group).tolist()
    assert fates.first_s.tolist() == (5.0 * group + 1).tolist()
    assert fates.finished_s.tolist() == (5.0 * group + 5).tolist()
    assert gaps(cluster) == {1.0: 80 * 4}


def test_poisson_arrivals_and_constant_steps_wait_as_queueing_theory_says():
    """M/D/1 at load 0.7: mean wait = 0.7 / (2 (1 - 0.7)) steps = 1.167; 20,000 arrivals are within 5 % of it."""
    asked = drawn_requests(20_000, 0.7, "poisson", "1", "1", 4)
    fates = Cluster(engines(max_seqs=1)).serve(asked)
    assert np.mean(fates.started_s - fates.arrival_s) == pytest.approx(0.7 / 0.6, rel=0.05)


def test_batching_without_bounds_waits_for_the_next_step_only():
    """Steps of a second begin at whole seconds as long as anything runs: start = ceil(arrival), first token a second later."""
    rng = np.random.default_rng(2)
    arrivals = np.concatenate([[0.0], np.sort(rng.uniform(0, 50, 200))])
    outputs = np.concatenate([[100], rng.integers(1, 20, 200)])
    fates, _ = serve([(float(a), 5, int(o)) for a, o in zip(arrivals, outputs, strict=True)], blocks=100_000)
    assert np.array_equal(fates.started_s, np.ceil(arrivals))
    assert np.array_equal(fates.first_s, np.ceil(arrivals) + 1)
    assert np.array_equal(fates.finished_s, np.ceil(arrivals) + outputs)


@settings(deadline=None, max_examples=15)
@given(
    st.integers(1, 3000), st.integers(1, 40), st.floats(1, 4),
    st.sampled_from(["memories.hbm.bandwidth", "units.tensor.peak.bf16", "units.vector.peak.fp32"]),
    st.sampled_from(sorted(SCHEDULERS)),
)  # fmt: skip
def test_a_faster_device_is_never_slower_for_a_single_request(prompt, output, factor, number, scheduler):
    device = load_device("h100-ideal")
    where = number.split(".")
    value = getattr(device, where[0])[where[1]]
    value = value.bandwidth if where[2] == "bandwidth" else value.peak[where[3]]
    asked = make_requests([0.0], [prompt], [output])
    slow, fast = (
        service_of("gpt2", one, asked, Service(scheduler=scheduler)).table
        for one in (device, device.with_values({number: float(value) * factor}))
    )
    for name in ("ttft_s", "e2e_s"):
        assert fast[name][0] <= slow[name][0] * (1 + 1e-12)
