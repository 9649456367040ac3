"""Routing: expected experts and tokens against closed forms and against sampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import InputError
from hwsim.lowering.moe import Routing, chosen_probability, drawn_counts, read_routing, sampled_counts, stream
from hwsim.op import Experts


def experts(tokens: float, chosen: np.ndarray, **more) -> Experts:
    return Experts(name="e", kind="experts", tokens=tokens, hidden=4096, inner=16384.0, matrices=2, chosen=chosen, **more)


@pytest.mark.parametrize(("tokens", "distinct"), [(32, 41), (64, 56), (128, 63)])
def test_distinct_glam_experts_touched(tokens, distinct):
    # 64 (1 - (62/64)^T): Duplex, arXiv:2409.01141, section III
    op = experts(float(tokens), chosen_probability(64, 2, 0.0))
    assert op.active == pytest.approx(64 * (1 - (62 / 64) ** tokens))
    assert int(op.active) == distinct or round(op.active) == distinct


def test_weights_of_experts_without_tokens_are_not_read():
    one = experts(1.0, chosen_probability(64, 2, 0.0))
    assert one.active == pytest.approx(2.0)
    assert one.bytes["weights"] == pytest.approx(2 * 2 * 4096 * 16384 * 2)  # 268.4 MB an expert, as in the paper
    assert one.resident["weights"] == pytest.approx(64 * 2 * 4096 * 16384 * 2)


def test_balanced_routing_touches_as_many_as_it_can():
    op = experts(16.0, chosen_probability(64, 2, 0.0), balanced=True)
    assert op.active == 32
    assert experts(1000.0, chosen_probability(64, 2, 0.0), balanced=True).active == 64


@given(st.integers(2, 64), st.floats(0, 3), st.data())
@settings(deadline=None, max_examples=50)
def test_probabilities_add_up_to_top_k_and_follow_popularity(count, exponent, data):
    top_k = data.draw(st.integers(1, count))
    odds = chosen_probability(count, top_k, exponent)
    assert odds.sum() == pytest.approx(top_k)
    assert np.all(odds <= 1 + 1e-6)
    assert np.all(np.diff(odds) <= 1e-6)


@pytest.mark.parametrize(("count", "top_k", "exponent"), [(8, 2, 1.0), (64, 6, 1.2), (128, 8, 0.5), (256, 8, 1.0)])
def test_expected_values_agree_with_sampling(count, top_k, exponent):
    tokens, draws = 64, 400
    counts = [sampled_counts(tokens, count, top_k, exponent, stream(3, "expert_routing", i)) for i in range(draws)]
    mean_hit = np.mean([np.count_nonzero(c) for c in counts])
    expected = experts(float(tokens), chosen_probability(count, top_k, exponent))
    assert expected.active == pytest.approx(mean_hit, rel=0.01)
    busiest = np.mean([c[0] for c in counts]) / tokens
    assert expected.chosen[0] == pytest.approx(busiest, rel=0.02)


def test_sampling_gives_every_token_top_k_distinct_experts():
    counts = sampled_counts(1000, 16, 4, 0.0, stream(1, "expert_routing"))
    assert counts.sum() == 4000
    assert counts.max() <= 1000


def test_streams_of_one_seed_are_independent_and_repeatable():
    assert stream(7, "a").random() == stream(7, "a").random()
    assert len({stream(7, "a").random(), stream(7, "b").random(), stream(8, "a").random(), stream(7, "a", 1).random()}) == 4


@pytest.mark.parametrize("text", ["zipf", "zipf:s=-1", "uniform:s=1", "", "zipf:s=1e9", "random", "zipf:s=11"])
def test_routings_that_are_refused(text):
    with pytest.raises(InputError, match="routing"):
        read_routing(text)


def test_routings_that_read():
    assert read_routing("zipf:s=1.2", 4) == Routing("zipf", 1.2, 4)
    assert read_routing("balanced", 4) == Routing("balanced")


def test_ranks_of_a_skewed_layer_each_have_their_own_load():
    op = experts(64.0, chosen_probability(8, 2, 1.0))
    ranks = op.dealt(4)
    assert [rank.rank for rank in ranks] == [0, 1, 2, 3]
    assert [float(rank.pairs) for rank in ranks] == [pytest.approx(64 * op.chosen[r::4].sum()) for r in range(4)]
    assert sum(rank.stands_for for rank in ranks) == 1


def test_ranks_with_equal_loads_are_one_op():
    (rank,) = experts(64.0, chosen_probability(8, 2, 0.0)).dealt(4)
    assert (rank.experts, rank.stands_for, float(rank.pairs)) == (2, 1.0, 32.0)


def test_many_draws_at_once_are_many_one_by_one():
    rngs = [stream(1, "expert_routing", draw) for draw in (5, 6, 7)]
    at_once = drawn_counts(9.0, 16, 2, Routing(seed=1, draw=5, draws=3), rngs)
    for column, draw in zip(at_once.T, (5, 6, 7), strict=True):
        alone = drawn_counts(9.0, 16, 2, Routing(seed=1, draw=draw), [stream(1, "expert_routing", draw)])
        assert column.tolist() == alone.tolist()
