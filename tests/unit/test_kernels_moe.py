"""Fused MoE kernel model: limits computed by hand, laws over random layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.kernels.chip import Chip
from hwsim.kernels.moe import PARAMETERS, SELECTION, moe
from hwsim.op import Array

CHIP = Chip(sms=100.0, clock=1e9, peak=1e15, vector=1e13, dram=4e12, l2=50e6)
IDEAL = {"launch": 0.0, "expert": 0.0, "compute": 1.0, "dram": 1.0, "extra": 0.0, "setup": 0.0, "local": 0.0,
         "dropped": 0.0, "unaligned": 0.0, "blend": 1.0, "untuned": 0.0, "rows": 16.0, "foreign": 0.0}  # fmt: skip
START = {parameter.name: parameter.start for parameter in (*PARAMETERS, *SELECTION)}


def layer(
    load: float, count: float, p: dict[str, float], chip: Chip = CHIP, hidden: float = 4096.0, inter: float = 1024.0
) -> Array:
    """Balanced experts, bf16, gated, all on this device."""
    return moe(
        load=np.array([load]), count=np.array([count]), tokens=load * count / 8, topk=8.0, hidden=hidden, inter=inter,
        matrices=3.0, local=count, weight_bytes=2.0, activation_bytes=2.0, chip=chip, p=p,
    )  # fmt: skip


def test_many_tokens_are_bound_by_the_matrix_peak() -> None:
    weightless = replace(CHIP, dram=1e30)
    assert layer(128e3, 8.0, IDEAL, weightless, inter=6400.0) == pytest.approx(6 * 128e3 * 8 * 4096 * 6400 / 1e15, rel=0.01)


def test_one_token_streams_the_weights_of_its_experts() -> None:
    computeless = replace(CHIP, peak=1e30)
    assert layer(1.0, 8.0, IDEAL | {"dram": 0.5}, computeless) == pytest.approx(8 * 3 * 4096 * 1024 * 2 / 2e12)


def test_no_work_costs_the_launch_and_the_bookkeeping_of_experts() -> None:
    seconds = layer(1e-9, 0.0, IDEAL | {"launch": 10e-6, "expert": 1e-6, "blend": 2.0})
    assert seconds == pytest.approx(10e-6)
    assert layer(1.0, 16.0, START | {"expert": 1e-6}) - layer(1.0, 16.0, START | {"expert": 0.0}) == pytest.approx(16e-6)


def test_every_expert_fills_row_tiles_of_its_own() -> None:
    """17 rows pay for two tiles of 16 (or one of 32), 16 rows for one: 128 tiles in gate and up, 256 in down."""
    weightless = replace(CHIP, dram=1e30)
    one_tile = 16 * 128 * 2.0 / 1e13
    expected = (2 * 4096 + 3 * 1024) * one_tile  # ceil(128 / 100) waves of k = 4096, ceil(256 / 100) of k = 1024
    assert layer(16.0, 8.0, IDEAL, weightless) == pytest.approx(expected)
    assert layer(17.0, 8.0, IDEAL, weightless) == pytest.approx(3 * 4096 * one_tile + 6 * 1024 * one_tile)


def test_default_triton_tiles_follow_the_number_of_tokens() -> None:
    weightless = replace(CHIP, dram=1e30)
    few = layer(1.0, 8.0, IDEAL | {"untuned": 1.0}, weightless)  # 1 token, 8 experts: 16 x 32; 512 and 1024 tiles
    assert few == pytest.approx((6 * 4096 + 11 * 1024) * 16 * 32 * 2.0 / 1e13)
    many = layer(64.0, 8.0, IDEAL | {"untuned": 1.0}, weightless)  # 64 tokens: 64 x 64; 256 and 512 tiles
    assert many == pytest.approx((3 * 4096 + 6 * 1024) * 64 * 64 * 2.0 / 1e13)


def test_a_kernel_of_large_tiles_computes_few_rows_as_many() -> None:
    weightless = replace(CHIP, dram=1e30)
    assert layer(3.0, 8.0, IDEAL | {"rows": 64.0}, weightless) == pytest.approx(
        layer(64.0, 8.0, IDEAL | {"rows": 64.0}, weightless)
    )
    assert layer(3.0, 8.0, IDEAL, weightless) == pytest.approx(layer(3.0, 8.0, IDEAL | {"rows": 64.0}, weightless) / 4)


def test_rows_that_are_no_multiple_of_16_elements_slow_the_product_over_them() -> None:
    """k of the second product is the inner size: 1,000 is no multiple of 16, 1,008 is."""
    weightless = replace(CHIP, dram=1e30)
    one_tile = 16 * 128 * 2.0 / 1e13  # 128 tiles of gate and up, 256 of down
    assert layer(16.0, 8.0, IDEAL | {"unaligned": 4.0}, weightless, inter=1000.0) == pytest.approx(
        (2 * 4096 + 4 * 3 * 1000) * one_tile
    )
    assert layer(16.0, 8.0, IDEAL | {"unaligned": 4.0}, weightless, inter=1008.0) == pytest.approx(
        (2 * 4096 + 3 * 1008) * one_tile
    )
    assert layer(16.0, 8.0, IDEAL, weightless, inter=1000.0) == pytest.approx((2 * 4096 + 3 * 1000) * one_tile)


def test_pairs_of_other_ranks_are_skipped_moved_or_computed() -> None:
    """64 tokens x 8 of 32 experts on 4 ranks: 128 pairs here, 384 elsewhere; one expert with 384 rows has 24 tiles of 16."""
    ends = replace(CHIP, dram=1e30), replace(CHIP, peak=1e30)

    def price(p: dict[str, float], chip: Chip) -> Array:
        return moe(load=np.array([16.0]), count=np.array([8.0]), tokens=64.0, topk=8.0, hidden=4096.0, inter=1024.0, matrices=3.0,
                   local=8.0, weight_bytes=2.0, activation_bytes=2.0, chip=chip, p=p)  # fmt: skip

    one_tile = 16 * 128 * 2.0 / 1e13
    assert price(IDEAL, ends[0]) == pytest.approx((2 * 4096 + 3 * 1024) * one_tile)  # 8 x 16 and 8 x 32 tiles
    assert price(IDEAL | {"foreign": 1.0}, ends[0]) == pytest.approx((6 * 4096 + 11 * 1024) * one_tile)  # 32 x 16 and 32 x 32
    pair = 4096 * 6 + 1024 * 12
    assert price(IDEAL | {"dropped": 0.5}, ends[1]) - price(IDEAL, ends[1]) == pytest.approx(384 * 0.5 * pair / 4e12)
    moved = price(IDEAL | {"dropped": 0.5, "local": 2.0, "foreign": 1.0}, ends[1]) - price(IDEAL, ends[1])
    assert moved == pytest.approx(512 * 2.0 * pair / 4e12)


def test_skewed_routing_pads_more_and_streams_less() -> None:
    p, weightless = IDEAL | {"blend": 8.0}, replace(CHIP, dram=1e30)

    def price(load: list[float], count: list[float], chip: Chip) -> Array:
        return moe(load=np.array(load), count=np.array(count), tokens=128.0, topk=8.0, hidden=4096.0, inter=1024.0, matrices=3.0,
                   local=64.0, weight_bytes=2.0, activation_bytes=2.0, chip=chip, p=p)  # fmt: skip

    assert price([961.0, 1.0], [1.0, 63.0], weightless) >= price([16.0], [64.0], weightless)
    assert price([964.0, 10.0], [1.0, 6.0], CHIP) < price([16.0], [64.0], CHIP)


sizes = st.integers(min_value=1, max_value=64).map(lambda n: 128.0 * n)
loads = st.floats(min_value=1.0, max_value=4096.0)
counts = st.integers(min_value=1, max_value=256).map(float)
CHOICES = {
    name: st.sampled_from(values) for name, values in {"untuned": [0.0, 1.0], "rows": [16.0, 64.0], "foreign": [0.0, 1.0]}.items()
}
params = st.fixed_dictionaries({q.name: st.floats(q.low, q.high) for q in PARAMETERS} | CHOICES)


@given(loads, counts, sizes, sizes, params)
def test_never_below_the_roof(load: float, count: float, hidden: float, inter: float, p: dict[str, float]) -> None:
    seconds = layer(load, count, p, hidden=hidden, inter=inter)
    weights, ops = count * 3 * hidden * inter * 2 / CHIP.dram, load * count * 6 * hidden * inter / CHIP.peak
    assert np.isfinite(seconds)
    assert seconds >= max(weights, ops / 1.1) * (1 - 1e-9)


@given(loads, counts, params, st.floats(1.0, 4.0))
def test_never_slower_on_a_better_chip(load: float, count: float, p: dict[str, float], better: float) -> None:
    base = layer(load, count, p)
    for name in ("dram", "peak"):
        assert layer(load, count, p, replace(CHIP, **{name: getattr(CHIP, name) * better})) <= base * (1 + 1e-9)


@given(st.lists(st.tuples(loads, counts, sizes), min_size=1, max_size=5))
def test_a_table_is_its_rows(rows: list[tuple[float, float, float]]) -> None:
    load, count, hidden = (np.array(column) for column in zip(*rows, strict=True))
    table = moe(
        load=load[None, :], count=count[None, :], tokens=load * count / 8, topk=8.0, hidden=hidden, inter=1024.0, matrices=3.0,
        local=count, weight_bytes=2.0, activation_bytes=2.0, chip=CHIP, p=START,
    )  # fmt: skip
    assert table == pytest.approx([layer(a, b, START, hidden=c) for a, b, c in rows])
