"""Laws of serving, over random loads, schedulers, caches, replicas, disaggregation and closed loops."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.catalogue import load_device
from hwsim.job import Job
from hwsim.serving import Served, Service, drawn_requests, make_requests
from hwsim.serving import serve as service_of
from hwsim.serving.cluster import Cluster, Fates
from hwsim.serving.requests import Requests
from hwsim.serving.routers import ROUTERS
from hwsim.serving.schedulers import SCHEDULERS
from tests.serving_by_hand import Priced, engines, serve

few = settings(deadline=None, max_examples=60)
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
