"""Board power: limits computed by hand, laws over random kernels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.kernels.chip import Chip
from hwsim.kernels.power import PARAMETERS, power

CHIP = Chip(sms=100.0, clock=1e9, peak=1e15, vector=1e13, dram=4e12, l2=50e6)
HARD = {"idle": 0.2, "active": 0.1, "knee": 1e-3, "op": 0.5, "byte": 0.4, "sharp": 50.0, "spread": 1.0}


def test_nothing_to_do_draws_idle_power() -> None:
    assert power(ops=0.0, bytes=0.0, seconds=1.0, tdp=500.0, chip=CHIP, p=HARD) == pytest.approx(100.0)


def test_half_the_peak_below_the_cap() -> None:
    """0.2 idle + 0.1 active + 0.5 x 0.5 arithmetic + 0.4 x 0.25 memory = 0.65 of TDP."""
    assert power(ops=0.5e15, bytes=1e12, seconds=1.0, tdp=1000.0, chip=CHIP, p=HARD) == pytest.approx(650.0, rel=1e-3)


def test_half_the_chip_has_half_the_active_power() -> None:
    full = power(ops=0.1e15, bytes=0.0, seconds=1.0, tdp=1000.0, chip=CHIP, p=HARD)
    half = power(ops=0.1e15, bytes=0.0, seconds=1.0, tdp=1000.0, filled=0.5, chip=CHIP, p=HARD)
    assert full - half == pytest.approx(50.0, rel=1e-3)


def test_both_roofs_at_once_meet_the_cap() -> None:
    assert power(ops=1e15, bytes=4e12, seconds=1.0, tdp=700.0, chip=CHIP, p=HARD | {"op": 2.0}) == pytest.approx(700.0, rel=1e-3)


params = st.fixed_dictionaries({q.name: st.floats(q.low, q.high) for q in PARAMETERS})
parts = st.floats(0.0, 1.0)


@given(parts, parts, st.floats(0.01, 1.0), params)
def test_the_cap_holds(u: float, b: float, filled: float, p: dict[str, float]) -> None:
    total = power(ops=u * 1e15, bytes=b * 4e12, seconds=1.0, tdp=700.0, filled=filled, chip=CHIP, p=p)
    assert 0.0 <= total <= 700.0 * (1 + 1e-9)


@given(parts, parts, params)
def test_faster_work_draws_no_less(u: float, b: float, p: dict[str, float]) -> None:
    slow = power(ops=u * 1e15, bytes=b * 4e12, seconds=2.0, tdp=700.0, chip=CHIP, p=p)
    assert power(ops=u * 1e15, bytes=b * 4e12, seconds=1.0, tdp=700.0, chip=CHIP, p=p) >= slow * (1 - 1e-9)


@given(st.lists(st.tuples(parts, parts), min_size=1, max_size=5), params)
def test_a_table_is_its_rows(rows: list[tuple[float, float]], p: dict[str, float]) -> None:
    u, b = (np.array(column) for column in zip(*rows, strict=True))
    table = power(ops=u * 1e15, bytes=b * 4e12, seconds=1.0, tdp=700.0, chip=CHIP, p=p)
    assert table == pytest.approx([power(ops=x * 1e15, bytes=y * 4e12, seconds=1.0, tdp=700.0, chip=CHIP, p=p) for x, y in rows])
