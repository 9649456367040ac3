"""Which neurons are used: the curve by hand, the process against its means, and what a cache makes of them."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.activity import Activity, Neurons, drawn, expected, walk

TWO = Neurons(window=2, cached=0.2, new=0.05)  # two tokens use 20 %, one of them 15 %
OPT = Neurons(window=5, cached=0.24, new=0.024, active=(0.0156, 0.0266, 0.0536))


def test_the_curve_by_hand():
    one = expected(TWO, layers=3)
    assert one.used == pytest.approx(0.15)
    assert one.missing(1) == pytest.approx(0.05)
    assert one.touched(1) == pytest.approx(0.2)
    assert one.touched(0) == pytest.approx(0.15)
    assert 0.15 * 2**TWO.exponent == pytest.approx(0.2)


def test_several_tokens_use_what_the_curve_says():
    both = expected(TWO, layers=1, tokens=2.0)
    assert both.used == pytest.approx(0.2)
    assert both.missing(1) == pytest.approx(expected(TWO, 1, 3.0).used - 0.15)
    assert both.stays(1) == pytest.approx(0.15)  # the last token's only


neurons = st.builds(
    lambda window, cached, part: Neurons(window, cached, cached / window * part),
    st.floats(1.5, 20), st.floats(0.01, 0.6), st.floats(0.05, 0.95),
)  # fmt: skip


@given(neurons, st.integers(0, 12))
def test_what_arrives_leaves_and_a_longer_window_misses_less(some, window):
    one = expected(some, layers=2)
    assert one.live.sum() == pytest.approx(1)
    assert (one.fired <= one.live + 1e-12).all()
    assert one.missing(window) == pytest.approx(float(one.expired(window)), abs=1e-12) or window == 0
    assert one.missing(window + 1) <= one.missing(window) + 1e-12
    assert one.touched(window + 1) >= one.touched(window) - 1e-12


@given(neurons, st.floats(0.0, 1.0))
def test_a_shrunk_window_fits_and_is_no_shorter_than_needed(some, most):
    one = expected(some, layers=1)
    window = float(one.shrunk(8.0, most))
    assert one.touched(window) <= max(most, float(one.used)) + 1e-9
    assert window == 8.0 or one.touched(min(window + 1e-3, 8.0)) > most - 1e-9


def test_the_drawn_process_has_the_means_of_the_closed_one():
    closed = expected(OPT, layers=32)
    seen = [Activity(live.T, fired.T) for live, fired in islice(walk(OPT, 32, 16384, seed=1), 100)]
    for measure in ("used", "missing", "touched", "expired"):
        values = [one.used if measure == "used" else getattr(one, measure)(4) for one in seen]
        mean = closed.used if measure == "used" else getattr(closed, measure)(4)
        assert np.mean(values) == pytest.approx(float(mean), rel=0.01)


def test_layers_differ_as_published():
    seen = np.mean([fired.sum(axis=1) for _, fired in islice(walk(OPT, 32, 16384, seed=2), 50)], axis=0)
    assert seen[31] / seen[0] == pytest.approx(5.36 / 1.56, rel=0.05)


def test_a_cold_cache_misses_all_that_its_first_token_uses():
    live, fired = next(walk(TWO, 4, 1000, seed=3, cold=True))
    first = Activity(live.T, fired.T)
    assert first.missing(10) == pytest.approx(first.used)


def test_the_same_seed_draws_the_same_neurons_in_any_order():
    late, early = drawn(TWO, 2, 500, 7).layer(1, first=9), drawn(TWO, 2, 500, 7).layer(1, first=3)
    again = list(islice(walk(TWO, 2, 500, seed=7), 10))
    assert (late.fired == again[9][1][1]).all()
    assert (early.live == again[3][0][1]).all()
    many = drawn(TWO, 2, 500, 7).layer(0, first=2, passes=5)
    assert (many.fired[:, 4] == again[6][1][0]).all()
    assert not (late.fired == next(walk(TWO, 2, 500, seed=8))[1][1]).all()
