"""Collectives: limits computed by hand, laws over random sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.kernels.chip import Chip
from hwsim.kernels.collective import PARAMETERS, collective

CHIP = Chip(sms=1.0, clock=1.0, peak=1.0, vector=1.0, dram=1.0, l2=1.0, link=100e9)
P = {"latency_1": 5e-6, "latency_2": 10e-6, "latency_3": 50e-6, "hop_1": 1e-6, "hop_2": 2e-6, "rate_1": 0.1,
     "rate_2": 0.5, "rate_3": 0.8, "peers": 0.0, "host": 0.0, "one_shot": 0.0, "limit": 0.0}  # fmt: skip
NAMES = ["all_reduce", "all_gather", "reduce_scatter", "alltoall", "send_recv"]


def seconds(moved: float, devices: float = 8.0, name: str = "all_reduce", **changed: float) -> float:
    """One collective with the parameters above but for `changed`."""
    return float(collective(name=name, bytes=moved, devices=devices, chip=CHIP, p=P | changed))


def test_a_small_message_pays_latency() -> None:
    assert seconds(0.0) == pytest.approx(5e-6 + 6 * 1e-6)


def test_a_large_message_pays_bandwidth() -> None:
    """All-reduce moves 2 x 7/8 of 80 GB at 80 GB/s, a gather half of that, a send all of it."""
    assert seconds(80e9) == pytest.approx(1.75, rel=1e-3)
    assert seconds(80e9, name="all_gather") == pytest.approx(0.875, rel=1e-3)
    assert seconds(80e9, devices=2.0, name="send_recv") == pytest.approx(1.0, rel=1e-3)


def test_one_shot_reads_every_whole_message() -> None:
    alone = P | {"latency_2": 1.0, "latency_3": 1.0, "one_shot": 1.0}
    first, more = (collective(name="all_reduce", bytes=moved, devices=8.0, chip=CHIP, p=alone) for moved in (0.0, 1e6))
    assert more - first == pytest.approx(7 * 1e6 / 10e9)


def test_custom_kernels_hand_large_messages_over() -> None:
    assert seconds(1.1e6, limit=1e6) == pytest.approx(50e-6 + 6 * 2e-6 + 1.75 * 1.1e6 / 80e9)
    assert seconds(1e6, limit=1e6) == pytest.approx(10e-6 + 6 * 2e-6 + 1.75e6 / 50e9)


def test_an_eager_launch_hides_behind_a_long_collective() -> None:
    assert seconds(0.0, host=40e-6) == pytest.approx(40e-6)
    assert seconds(80e9, host=40e-6) == pytest.approx(seconds(80e9))


def test_one_device_takes_no_time() -> None:
    assert seconds(1e6, devices=1.0) == 0.0


params = st.fixed_dictionaries({q.name: st.floats(q.low, q.high) for q in PARAMETERS})
sizes = st.floats(0.0, 1e9)
devices = st.integers(2, 64).map(float)


@given(st.sampled_from(NAMES), sizes, devices, params, st.floats(1.0, 4.0))
def test_finite_monotone_and_above_the_launch(name: str, moved: float, n: float, p: dict[str, float], better: float) -> None:
    q = p | {"one_shot": 0.0, "limit": 0.0}
    base = collective(name=name, bytes=moved, devices=n, chip=CHIP, p=q)
    assert np.isfinite(base)
    assert base >= max(p["host"], min(p["latency_1"], p["latency_2"], p["latency_3"]))
    assert collective(name=name, bytes=2 * moved, devices=n, chip=CHIP, p=q) >= base
    assert collective(name=name, bytes=moved, devices=n, chip=replace(CHIP, link=100e9 * better), p=q) <= base


@given(st.lists(st.tuples(sizes, devices), min_size=1, max_size=5), params, st.sampled_from([0.0, 1e6]))
def test_a_table_is_its_rows(rows: list[tuple[float, float]], p: dict[str, float], limit: float) -> None:
    moved, n = (np.array(column) for column in zip(*rows, strict=True))
    q = p | {"one_shot": 1.0, "limit": limit}
    table = collective(name="all_reduce", bytes=moved, devices=n, chip=CHIP, p=q)
    assert table == pytest.approx([collective(name="all_reduce", bytes=a, devices=b, chip=CHIP, p=q) for a, b in rows])
