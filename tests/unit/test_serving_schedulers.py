"""Schedulers, caches and clusters step by step, by hand: an engine whose every step takes one second, blocks of one token."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.serving.cluster import Cluster
from hwsim.serving.requests import make_requests
from tests.serving_by_hand import Priced, Wire, engines, serve


def steps_of(asked, **how):
    """Decisions of a single engine that looks at every step, and what became of the requests."""
    seen = []
    fates, cluster = serve(asked, ahead=1, seen=seen, **how)
    return [step for step in seen if step], fates, cluster


def test_chunked_cuts_prompts_to_what_decodes_leave():
    steps, fates, _ = steps_of([(0, 25, 3), (0, 8, 2)], max_batched_tokens=10)
    assert steps == [[(0, 10)], [(0, 10)], [(0, 5), (1, 5)], [(0, 1), (1, 3)], [(0, 1), (1, 1)]]
    assert fates.started_s.tolist() == [0, 2]
    assert fates.first_s.tolist() == [3, 4]
    assert fates.finished_s.tolist() == [5, 5]


def test_chunked_finishes_a_prompt_that_is_cut_to_single_tokens():
    """Three decodes leave one token of four to the fourth request's prompt of three."""
    asked = [(0, 1, 6), (0, 1, 6), (0, 1, 6), (0.5, 3, 2)]
    for ahead in (1, 1024):
        fates, _ = serve(asked, max_batched_tokens=4, ahead=ahead)
        assert fates.first_s.tolist() == [1, 1, 1, 4]
        assert fates.finished_s.tolist() == [6, 6, 6, 5]


def test_max_seqs_holds_others_back():
    steps, fates, _ = steps_of([(0, 2, 2), (0, 2, 1), (0, 2, 1)], max_seqs=2)
    assert steps == [[(0, 2), (1, 2)], [(0, 1), (2, 2)]]
    assert fates.finished_s.tolist() == [2, 1, 2]


def test_the_youngest_is_preempted_and_finds_again_what_nobody_took():
    """10 blocks: both hold 5 at 2 s, the first needs a sixth; until it is done it takes three of the five the second gave up."""
    asked = [(0, 4, 5), (0, 4, 4)]
    steps, fates, cluster = steps_of(asked, blocks=10)
    both = [(0, 1), (1, 1)]
    assert steps == [[(0, 4), (1, 4)], both, [(0, 1)], [(0, 1)], [(0, 1)], [(1, 4)], [(1, 1)]]
    assert fates.preemptions.tolist() == [0, 1]
    assert fates.first_s.tolist() == [1, 1]
    assert fates.finished_s.tolist() == [5, 7]
    assert sorted(zip(*map(np.ndarray.tolist, cluster.replicas[0].log.between_tokens()), strict=True)) == [
        (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 1.0), (1.0, 2.0), (4.0, 1.0)
    ]  # fmt: skip
    again, fates, _ = steps_of(asked, blocks=10, prefix_caching=False)
    assert again == [[(0, 4), (1, 4)], both, [(0, 1)], [(0, 1)], [(0, 1)], [(1, 6)], [(1, 1)]]
    assert fates.finished_s.tolist() == [5, 7]


def test_admission_waits_for_the_blocks_of_a_chunk():
    steps, fates, _ = steps_of([(0, 6, 2), (0, 5, 1)], blocks=10)
    assert steps == [[(0, 6)], [(0, 1)], [(1, 5)]]
    assert fates.preemptions.sum() == 0
    steps, _, _ = steps_of([(0, 6, 2), (0, 4, 1)], blocks=10)
    assert steps == [[(0, 6), (1, 4)], [(0, 1)]]


def test_a_prefix_that_the_cache_holds_is_not_computed():
    asked = make_requests([0, 0, 0], [10, 10, 10], [1, 1, 1], np.array([0, 7, 10]))
    seen = []
    Cluster(engines(seen=seen, ahead=1)).serve(asked)
    assert seen[0] == [(0, 10), (1, 3), (2, 1)]
    seen.clear()
    Cluster(engines(seen=seen, ahead=1, prefix_caching=False)).serve(asked)
    assert seen[0] == [(0, 10), (1, 10), (2, 10)]


def test_mixed_reserves_blocks_for_the_output():
    """6 and 5 blocks at the end: together in 11, one after another in 10."""
    asked = [(0, 4, 3), (0, 3, 3)]
    steps, _, _ = steps_of(asked, blocks=11, scheduler="mixed")
    assert steps == [[(0, 4), (1, 3)], [(0, 1), (1, 1)], [(0, 1), (1, 1)]]
    steps, fates, _ = steps_of(asked, blocks=10, scheduler="mixed")
    assert steps == [[(0, 4)], [(0, 1)], [(0, 1)], [(1, 3)], [(1, 1)], [(1, 1)]]
    assert fates.preemptions.sum() == 0


def test_mixed_takes_whole_prompts_beside_decodes():
    steps, _, _ = steps_of([(0, 5, 3), (0, 5, 2), (0, 12, 1)], max_batched_tokens=8, scheduler="mixed")
    assert steps == [[(0, 5)], [(0, 1), (1, 5)], [(0, 1), (1, 1), (2, 12)]]


def test_prefill_first_lets_decodes_wait():
    steps, fates, _ = steps_of([(0, 3, 3), (0.5, 4, 2)], scheduler="prefill-first")
    assert steps == [[(0, 3)], [(1, 4)], [(0, 1), (1, 1)], [(0, 1)]]
    assert fates.first_s.tolist() == [1, 2]
    assert fates.finished_s.tolist() == [4, 3]
    steps, _, _ = steps_of([(0, 5, 1), (0, 3, 1), (0, 9, 1), (0, 1, 1)], max_batched_tokens=8, scheduler="prefill-first")
    assert steps == [[(0, 5), (1, 3)], [(2, 9)], [(3, 1)]]


@pytest.mark.parametrize(("arrival", "start"), [(2.5, 3.0), (2.0, 2.0), (1.999, 2.0)])
def test_an_arrival_cuts_a_plan_after_the_step_it_falls_into(arrival, start):
    steps = Priced()
    fates, cluster = serve([(0, 1, 10), (arrival, 1, 1)], steps=steps)
    assert fates.started_s.tolist() == [0, start]
    assert fates.finished_s.tolist() == [10, start + 1]
    assert sum(n for _, _, n in steps.ran) == 10
    assert [first for _, first, _ in steps.ran] == [0, *np.cumsum([n for _, _, n in steps.ran])[:-1].tolist()]
    assert cluster.replicas[0].log.columns["steps"].tolist() == [start, 1, 10 - start - 1]


def test_ends_are_sums_of_prices_that_grow_with_the_context():
    """A step costs its cached tokens: 0 for the prompt of 3, then 3, 4, 5."""
    fates, _ = serve([(0, 3, 4)], steps=Priced(lambda tokens, sequences, cached: 1 + cached))
    assert fates.first_s.tolist() == [1]
    assert fates.finished_s.tolist() == [1 + 4 + 5 + 6]


def test_a_closed_loop_replaces_at_once_whoever_ends():
    fates, _ = serve([(9, 1, 2), (9, 1, 3), (9, 1, 1), (9, 1, 1)], concurrency=2)
    assert fates.arrival_s.tolist() == [0, 0, 2, 3]
    assert fates.finished_s.tolist() == [2, 3, 3, 4]
    fates, _ = serve([(0, 50, 1), (0, 5, 1), (0, 50, 1), (0, 5, 1)], concurrency=1, blocks=10)
    assert sorted(fates.rejected) == [0, 2]
    assert fates.finished_s[[1, 3]].tolist() == [1, 2]


def test_requests_take_a_while_to_get_to_an_engine():
    fates = Cluster(engines(), ahead_s=0.5).serve(make_requests([0.0, 2.0], [1, 1], [2, 1]))
    assert fates.arrival_s.tolist() == [0, 2]
    assert (fates.started_s.tolist(), fates.first_s.tolist()) == ([0.5, 2.5], [1.5, 3.5])


def test_who_follows_in_a_closed_loop_misses_the_step_that_begins_meanwhile():
    fates = Cluster(engines(), ahead_s=0.1).serve(make_requests([0.0] * 3, [1] * 3, [2, 3, 1]), concurrency=2)
    assert fates.arrival_s == pytest.approx([0, 0, 2.1])
    assert fates.finished_s == pytest.approx([2.1, 3.1, 4.1])  # at the engine at 2.2, in the step from 3.1 on


def test_routers():
    asked = [(0, 1, 10), (0.1, 1, 1), (0.2, 1, 10), (1.5, 1, 1)]
    for router, replica in (("round-robin", 0), ("least-loaded", 1)):
        fates, _ = serve(asked, many=3, router=router)
        assert fates.replica.tolist() == [0, 1, 2, replica]


def test_prompts_cross_the_link_one_after_another_and_hold_their_blocks():
    """A second a token on the link: 1 to 5 s and 5 to 9 s. The third prompt waits until the first one's blocks are free."""
    first, second = engines(blocks=8), engines()
    cluster = Cluster(first, second, Wire())
    fates = cluster.serve(make_requests([0, 0, 0], [4, 4, 4], [3, 2, 1]))
    assert fates.started_s.tolist() == [0, 0, 5]
    assert fates.first_s.tolist() == [1, 1, 6]
    assert fates.finished_s.tolist() == [7, 10, 6]
    assert fates.replica.tolist() == [1, 1, 0]
    assert first.replicas[0].log.columns["blocks"].tolist() == [8, 8]
    assert sorted(second.replicas[0].log.lengths) == [1, 5, 9]


def test_links_of_two_senders_do_not_wait_for_each_other():
    cluster = Cluster(engines(2), engines(), Wire())
    fates = cluster.serve(make_requests([0, 0], [4, 4], [2, 2]))
    assert fates.finished_s.tolist() == [6, 6]


def test_a_decoder_preempts_and_computes_anew():
    """6 blocks: both arrive with 2 of cache and grow to 4; the younger gives way and comes back with what it has generated."""
    cluster = Cluster(engines(), engines(blocks=6, prefix_caching=False), Wire(0.0))
    fates = cluster.serve(make_requests([0, 0], [2, 2], [3, 3]))
    assert fates.preemptions.tolist() == [0, 1]
    assert fates.finished_s.tolist() == [3, 4]
