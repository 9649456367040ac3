"""GEMM kernel model: limits that a person can work out by hand, and laws that hold whatever the parameters are."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.kernels.chip import Chip
from hwsim.kernels.gemm import PARAMETERS, SELECTION, gemm

CHIP = Chip(sms=100.0, clock=1e9, peak=100e12, vector=10e12, dram=1e12, l2=10e6)
OFF = {"throttle": 0.0, "passes": 0.0, "row": 0.0, "reread": 0.0, "host": 0.0, "promote": 0.0}
PLAIN = {q.name: q.start for q in (*PARAMETERS, *SELECTION)} | OFF
IDEAL = PLAIN | {"launch": 0.0, "compute": 1.0, "dram": 0.5, "l2": 1e9, "store": 1e9, "step": 0.0}

SIZES = st.floats(1.0, 20000.0).map(round).map(float)
FITS = st.fixed_dictionaries({q.name: st.floats(q.low, q.high) for q in PARAMETERS})
STACKS = st.fixed_dictionaries({"slices": st.sampled_from([1.0, 8.0, 64.0]), "tiles": st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0])})


def test_large_square_runs_at_the_fraction_of_peak() -> None:
    # 12800 x 12800 is 10,000 tiles of 128 x 128: 100 full waves on 100 SMs, nothing padded
    seconds = gemm(m=12800.0, n=12800.0, k=65536.0, chip=CHIP, p=IDEAL | {"compute": 0.8})
    assert seconds == pytest.approx(2 * 12800**2 * 65536 / (100e12 * 0.8), rel=1e-3)


def test_one_row_streams_the_weights() -> None:
    # 2 x 8192 x 8192 bytes at half of 1 TB/s; arithmetic on 16-row tiles is 16 x 2 x 8192^2 / 100 T, cubes added
    memory, tiles = 2 * 8192 * 8192 / 0.5e12, 16 * 2 * 8192**2 / 100e12
    seconds = gemm(m=1.0, n=8192.0, k=8192.0, chip=CHIP, p=IDEAL)
    assert memory < seconds < 1.3 * (memory**3 + tiles**3) ** (1 / 3)


def test_nothing_to_do_takes_a_launch() -> None:
    padded = 64 * 2 * 16 * 64 / 1e12  # one step of 64 on the smallest tile, at one SM's share of the peak
    assert gemm(m=1.0, n=1.0, k=1.0, chip=CHIP, p=IDEAL | {"launch": 3e-6}) == pytest.approx(3e-6 + padded, rel=1e-4)
    assert gemm(m=1.0, n=1.0, k=1.0, chip=CHIP, p=IDEAL | {"host": 7e-5}) == pytest.approx(7e-5)


def test_one_tile_more_is_one_wave_more() -> None:
    p = IDEAL | {"tiles": 1.0, "slices": 1.0, "dram": 0.98}
    full, over = (gemm(m=1280.0, n=n, k=8192.0, chip=replace(CHIP, dram=1e18), p=p) for n in (1280.0, 1281.0))
    assert full == pytest.approx(8192 * 2 * 128 * 128 / 1e12, rel=1e-6)
    assert over == pytest.approx(2 * full, rel=1e-6)


def test_split_fills_the_sms_of_a_long_reduction() -> None:
    whole = gemm(m=64.0, n=64.0, k=262144.0, chip=CHIP, p=PLAIN | {"slices": 1.0})
    parts = gemm(m=64.0, n=64.0, k=262144.0, chip=CHIP, p=PLAIN | {"slices": 64.0})
    assert parts < whole / 4


def test_quantise_pass_is_bytes_over_bandwidth_or_rows() -> None:
    shape = {"m": 4096.0, "n": 256.0, "k": 4096.0, "a_bytes": 1.0, "w_bytes": 1.0, "chip": CHIP}
    without = gemm(**shape, p=PLAIN)
    assert gemm(**shape, p=PLAIN | {"passes": 2.0}) - without == pytest.approx(2 * 4096 * 4096 * 3 / 1e12)
    assert gemm(**shape, p=PLAIN | {"row": 5e-8}) - without == pytest.approx(4096 * 5e-8)
    assert gemm(**shape, quantised=0.0, p=PLAIN | {"passes": 2.0}) == without


def test_block_scales_cost_vector_time() -> None:
    # one fp32 multiply-add per output and 128 elements of k, at a tenth of the matrix rate: 10/128 more
    shape = {"m": 12800.0, "n": 12800.0, "k": 65536.0, "a_bytes": 1.0, "w_bytes": 1.0, "chip": CHIP}
    ratio = gemm(**shape, scaled=128.0, p=IDEAL | {"promote": 1.0}) / gemm(**shape, p=IDEAL)
    assert ratio == pytest.approx(1 + 10 / 128, rel=1e-3)


def test_weights_that_stay_in_the_cache_are_not_read_again() -> None:
    shape = {"m": 1.0, "n": 1000.0, "k": 1000.0, "chip": CHIP, "p": IDEAL}  # 2 MB of weights, 4 MB of cache used again
    assert gemm(**shape, copies=1.0) == pytest.approx(
        1024 * 2 * 16 * 64 / 1e12, rel=1e-6
    )  # 16 tiles of 16 x 64 compute meanwhile
    assert gemm(**shape) > 2 * 1000 * 1000 / 0.5e12
    assert gemm(**shape, copies=4.0) == gemm(**shape)


def test_long_kernels_meet_the_power_cap_by_matrix_share() -> None:
    p = IDEAL | {"throttle": 0.02, "window": 1e-6}
    busy = {"m": 12800.0, "n": 12800.0, "k": 65536.0}
    assert gemm(**busy, chip=CHIP, p=p) / gemm(**busy, chip=CHIP, p=IDEAL) == pytest.approx(1.2, rel=1e-3)
    stream = {"m": 1.0, "n": 16384.0, "k": 65536.0}
    assert gemm(**stream, chip=CHIP, p=p) / gemm(**stream, chip=CHIP, p=IDEAL) < 1.01


def test_rereading_costs_only_weights_beyond_the_cache() -> None:
    p = PLAIN | {"reread": 5.0}
    assert gemm(m=4096.0, n=512.0, k=1024.0, chip=CHIP, p=p) == gemm(m=4096.0, n=512.0, k=1024.0, chip=CHIP, p=PLAIN)
    assert gemm(m=4096.0, n=65536.0, k=1024.0, chip=CHIP, p=p) > gemm(m=4096.0, n=65536.0, k=1024.0, chip=CHIP, p=PLAIN)


@settings(max_examples=60, deadline=None)
@given(m=SIZES, n=SIZES, k=SIZES, fit=FITS, stack=STACKS, wide=st.sampled_from([0.5, 1.0, 2.0, 4.0]))
def test_never_below_its_roof(m: float, n: float, k: float, fit: dict[str, float], stack: dict[str, float], wide: float) -> None:
    p = fit | stack
    seconds = gemm(m=m, n=n, k=k, w_bytes=wide, chip=CHIP, p=p)
    assert math.isfinite(seconds)
    assert seconds >= p["launch"] + 2 * m * n * k / (CHIP.peak * p["compute"]) * (1 - 1e-9)
    cold = n * k * wide if n * k * wide >= 2 * p["resident"] * CHIP.l2 else 0.0
    assert seconds >= p["launch"] + cold / (CHIP.dram * p["dram"]) * (1 - 1e-9)
    assert seconds >= p["host"]


@settings(max_examples=40, deadline=None)
@given(m=SIZES, n=SIZES, k=SIZES, fit=FITS, stack=STACKS, better=st.sampled_from(["peak", "dram", "l2"]))
def test_better_hardware_is_never_slower(
    m: float, n: float, k: float, fit: dict[str, float], stack: dict[str, float], better: str
) -> None:
    improved = replace(CHIP, **{better: getattr(CHIP, better) * 1.7})
    p = fit | stack | {"l2": 512.0} if better == "l2" else fit | stack
    slow, fast = (gemm(m=m, n=n, k=k, copies=2.0, chip=chip, p=p) for chip in (CHIP, improved))
    if better != "l2" or p["l2"] * CHIP.clock * CHIP.sms >= CHIP.dram:  # unless the cache were slower than DRAM
        assert fast <= slow * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(shapes=st.lists(st.tuples(SIZES, SIZES, SIZES), min_size=1, max_size=6), fit=FITS, stack=STACKS)
def test_broadcast_is_the_scalar_loop(
    shapes: list[tuple[float, float, float]], fit: dict[str, float], stack: dict[str, float]
) -> None:
    m, n, k = np.array(shapes).T
    clocks = np.array([[1e9], [2e9]])
    table = gemm(m=m, n=n, k=k, chip=replace(CHIP, clock=clocks), p=fit | stack)
    for row, clock in enumerate(clocks[:, 0]):
        single = [gemm(m=a, n=b, k=c, chip=replace(CHIP, clock=clock), p=fit | stack) for a, b, c in shapes]
        np.testing.assert_allclose(table[row], single, rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(m=SIZES, n=SIZES, k=SIZES, fit=FITS, stack=STACKS)
def test_more_work_never_takes_less_time(m: float, n: float, k: float, fit: dict[str, float], stack: dict[str, float]) -> None:
    p = fit | stack | {"tiles": 0.0}
    base = gemm(m=m, n=n, k=k, chip=CHIP, p=p)
    assert gemm(m=m, n=n, k=k, groups=2.0, chip=CHIP, p=p) >= base * (1 - 1e-9)
    assert gemm(m=m, n=n, k=2 * k, chip=CHIP, p=p | {"slices": 1.0}) >= gemm(m=m, n=n, k=k, chip=CHIP, p=p | {"slices": 1.0}) * (
        1 - 1e-9
    )


def test_rows_beyond_one_chunk_keep_their_order() -> None:
    m = np.arange(1.0, 9001.0)
    many = gemm(m=m, n=4096.0, k=4096.0, chip=CHIP, p=PLAIN)
    assert many.shape == (9000,)
    assert many[[0, 4095, 4096, 8999]] == pytest.approx(
        [gemm(m=x, n=4096.0, k=4096.0, chip=CHIP, p=PLAIN) for x in (1.0, 4096.0, 4097.0, 9000.0)]
    )


def test_every_parameter_starts_inside_its_bounds() -> None:
    for q in PARAMETERS:
        assert q.low <= q.start <= q.high
        assert q.meaning
