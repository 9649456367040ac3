"""Figures of a served load: distributions, means over time and tokens made, against sums done by hand."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hwsim.report.serving import cumulated, distribution_figure, means_over, percentiles_figure, tokens_until, waiting_over
from hwsim.serving import Service, make_requests, serve


def test_a_distribution_counts_its_weights():
    x, y = cumulated(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0]))
    assert x.tolist() == [1, 1, 2, 3]
    assert y.tolist() == [0, 0.25, 0.75, 1]


def test_a_thinned_distribution_keeps_its_ends_and_its_middle():
    x, y = cumulated(np.arange(100_000.0), np.ones(100_000), points=101)
    assert len(x) <= 102
    assert (x[0], x[-1], y[-1]) == (0, 99_999, 1)
    assert np.interp(0.5, y, x) == pytest.approx(50_000, rel=0.01)


def test_means_over_time_are_weighted_by_time_and_added_over_engines():
    steps = pd.DataFrame({
        "start_s": [0.0, 2.0, 0.0], "end_s": [1.0, 4.0, 4.0], "replica": [0, 0, 1], "sequences": [4.0, 2.0, 10.0],
    })  # fmt: skip
    # 0 to 2 s: 4 for one second, then idle; 2 to 3 and 3 to 4 s: 2; beside it always 10
    assert means_over(steps, "sequences", np.array([0.0, 2.0, 3.0, 4.0])).tolist() == [12, 12, 12]
    assert means_over(steps, "sequences", np.array([0.0, 1.0, 2.0])).tolist() == [14, 10]


def test_tokens_are_made_from_the_first_to_the_last_of_each_request():
    fates = SimpleNamespace(first_s=np.array([1.0, 2.0, np.nan]), finished_s=np.array([5.0, 2.0, np.nan]))
    served = SimpleNamespace(fates=fates, requests=SimpleNamespace(output=np.array([9, 1, 5])))
    # the first: one at 1 s, eight more until 5 s, two a second; the second: its only one at 2 s; the third was rejected
    assert tokens_until(served, np.array([0.5, 1.0, 2.0, 3.0, 5.0, 9.0])).tolist() == [0, 1, 4, 6, 10, 10]


@pytest.mark.parametrize("values", [[1.0, 1.0], [0.0, 0.0, 0.0], [1e-6, 1.0, 2.0], [0.0, 1e-3, 1.0]])
@pytest.mark.parametrize("bound", [None, 1.0, 1e6])
def test_distributions_of_any_shape_are_drawn(values, bound):
    summary = dict(zip(("p50", "p90", "p99"), np.percentile(values, (50, 90, 99)), strict=True))
    figure = distribution_figure("ttft", np.array(values), np.ones(len(values)), summary, bound)
    low, high = figure.layout.xaxis.range
    assert np.isfinite([low, high]).all()
    assert low < high
    assert ("objective" in str(figure.data[-1].name)) == (bound is not None)
    assert ("beyond" in str(figure.data[-1].name)) == (bound == 1e6)


def test_rates_at_which_nothing_was_completed_leave_a_gap():
    none: dict[str, float | None] = {"p50": None, "p90": None, "p99": None}
    some: dict[str, float | None] = {"p50": 1.0, "p90": 2.0, "p99": 30.0}
    figure = percentiles_figure(np.array([1.0, 2.0]), [some, none], "TTFT", None)
    assert [trace.y[0] for trace in figure.data] == [1, 2, 30]
    assert all(np.isnan(trace.y[1]) for trace in figure.data)
    assert percentiles_figure(np.array([1.0]), [none], "TTFT", None).layout.yaxis.range[1] > 0


def test_requests_that_wait_are_counted_from_arrival_to_their_first_step():
    """One engine and one sequence at a time: each of three requests waits for those before it."""
    served = serve("gpt2", "h100-ideal", make_requests([0.0, 0.0, 0.0], [8] * 3, [4] * 3), Service(max_seqs=1))
    end = served.makespan_s
    assert waiting_over(served, np.array([0.0, end / 3, 2 * end / 3, end])) == pytest.approx([2, 1, 0], abs=1e-6)
    assert waiting_over(served, np.array([0.0, end]))[0] * end == pytest.approx(served.table["queue_s"].sum())
