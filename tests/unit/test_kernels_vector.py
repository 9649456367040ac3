"""Streaming kernels: limits computed by hand, laws over random shapes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.kernels.chip import Chip
from hwsim.kernels.vector import PARAMETERS, vector

CHIP = Chip(sms=100.0, clock=1e9, peak=1e15, vector=1e13, dram=2e12, l2=40e6)
ONLY = {"launch": 0.0, "dram": 0.8, "cache": 1e9, "resident": 0.5, "row": 0.0, "passes": 1.0, "blend": 8.0}


def test_large_operands_stream_from_memory() -> None:
    assert vector(bytes=1.6e9, ops=0.0, rows=0.0, chip=CHIP, p=ONLY) == pytest.approx(1e-3)


def test_small_operands_stay_in_the_cache() -> None:
    """20 MB fit in half of 40 MB: 100 SMs x 1 GHz x 64 B x 0.5 = 3.2 TB/s; 30 MB miss by half."""
    p = ONLY | {"cache": 0.5}
    assert vector(bytes=20e6, ops=0.0, rows=0.0, chip=CHIP, p=p) == pytest.approx(6.25e-6)
    assert vector(bytes=30e6, ops=0.0, rows=0.0, chip=CHIP, p=ONLY) == pytest.approx(0.5 * 30e6 / 1.6e12)


def test_short_rows_pay_latency() -> None:
    assert vector(bytes=1.0, ops=0.0, rows=1e6, chip=CHIP, p=ONLY | {"row": 1e-7}) == pytest.approx(1e-3)


def test_launch_and_arithmetic_are_floors() -> None:
    assert vector(bytes=0.0, ops=1e10, rows=0.0, chip=CHIP, p=ONLY | {"launch": 5e-6}) == pytest.approx(5e-6 + 1e-3)


def test_an_unfused_stack_walks_again() -> None:
    fused = vector(bytes=1.6e9, ops=0.0, rows=0.0, chip=CHIP, p=ONLY)
    assert vector(bytes=1.6e9, ops=0.0, rows=0.0, chip=CHIP, p=ONLY | {"passes": 6.0}) == pytest.approx(6 * fused)


params = st.fixed_dictionaries({q.name: st.floats(q.low, q.high) for q in PARAMETERS})
amounts = st.floats(0.0, 1e11)


@given(st.floats(2e8, 1e11), amounts, st.floats(0.0, 1e7), params)
def test_never_below_the_roof(moved: float, ops: float, rows: float, p: dict[str, float]) -> None:
    seconds = vector(bytes=moved, ops=ops, rows=rows, chip=CHIP, p=p)
    assert np.isfinite(seconds)
    assert seconds >= max(moved / CHIP.dram, ops / CHIP.vector) * (1 - 1e-9)


@given(amounts, amounts, st.floats(0.0, 1e7), params, st.floats(1.0, 4.0))
def test_never_slower_on_a_better_chip(moved: float, ops: float, rows: float, p: dict[str, float], better: float) -> None:
    base = vector(bytes=moved, ops=ops, rows=rows, chip=CHIP, p=p)
    for name in ("dram", "vector", "clock", "l2"):
        chip = replace(CHIP, **{name: getattr(CHIP, name) * better})
        assert vector(bytes=moved, ops=ops, rows=rows, chip=chip, p=p) <= base * (1 + 1e-9)


@given(st.lists(st.tuples(amounts, amounts), min_size=1, max_size=5), params)
def test_a_table_is_its_rows(rows: list[tuple[float, float]], p: dict[str, float]) -> None:
    moved, ops = (np.array(column) for column in zip(*rows, strict=True))
    table = vector(bytes=moved, ops=ops, rows=8.0, chip=CHIP, p=p)
    assert table == pytest.approx([vector(bytes=a, ops=b, rows=8.0, chip=CHIP, p=p) for a, b in rows])
