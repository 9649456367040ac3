"""Prefill attention kernel model: limits that a person can work out by hand, and laws that hold whatever the parameters are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.kernels._attention import causal
from hwsim.kernels.attention_prefill import PARAMETERS, SELECTION, attention_prefill
from hwsim.kernels.chip import Chip

CHIP = Chip(sms=100.0, clock=1e9, peak=100e12, vector=10e12, dram=1e12, l2=10e6)
PLAIN = {q.name: q.start for q in (*PARAMETERS, *SELECTION)}
FREE = {"launch": 0.0, "unit": 0.0, "tail": 0.0, "passes": 0.0, "convert": 0.0, "port": 1e12, "exponentials": 1e12}
IDEAL = PLAIN | FREE | {"compute": 1.0, "wide": 1.0, "tile": 128.0, "step": 128.0}
MHA = {"heads": 32.0, "kv_heads": 8.0, "head_dim": 128.0, "kv_bytes": 2.0}

LENGTHS = st.sampled_from([1.0, 17.0, 100.0, 128.0, 129.0, 1500.0, 8192.0])
SHAPES = st.fixed_dictionaries(
    {
        "batch": st.integers(0, 8).map(lambda e: 2.0**e),
        "q_len": LENGTHS,
        "prefix": st.sampled_from([0.0, 1.0, 511.0, 4096.0]),
        "kv_heads": st.sampled_from([1.0, 2.0, 8.0]),
        "heads": st.sampled_from([8.0, 24.0, 64.0]),
        "head_dim": st.sampled_from([64.0, 128.0, 256.0]),
        "window": st.sampled_from([0.0, 128.0, 1000.0]),
    }
)
FITS = st.fixed_dictionaries({q.name: st.floats(q.low, q.high) for q in PARAMETERS})
KERNELS = st.fixed_dictionaries(
    {
        "tile": st.sampled_from([64.0, 128.0]),
        "step": st.sampled_from([64.0, 128.0]),
        "packs": st.sampled_from([0.0, 1.0, 2.0]),
    }
)


def seconds_of(shape: Mapping[str, float], chip: Chip, p: Mapping[str, float]) -> float:
    rest = {k: v for k, v in shape.items() if k != "prefix"}
    return float(attention_prefill(**rest, kv_len=shape["q_len"] + shape["prefix"], kv_bytes=2.0, chip=chip, p=p))


def pairs(q_len: float, kv_len: float, window: float) -> float:
    last = np.arange(kv_len - q_len + 1, kv_len + 1)
    return float(np.minimum(last, window or np.inf).sum())


def test_causal_tiles_by_hand() -> None:
    # 4 tiles of 128 queries see 1, 2, 3 and 4 steps of 128 keys; with 256 tokens before them, two steps more each
    tiles = causal(512.0, 512.0, 0.0, 128.0, 128.0)
    assert (tiles.count, tiles.keys, tiles.longest) == (4.0, 10 * 128.0, 512.0)
    assert causal(512.0, 768.0, 0.0, 128.0, 128.0).keys == 18 * 128.0


def test_windowed_tiles_by_hand() -> None:
    # a tile of 128 queries and a window of 128 keys touch two steps of 128; the first tile only one
    assert causal(1024.0, 1024.0, 128.0, 128.0, 128.0).keys == (1 + 7 * 2) * 128.0


def test_large_prefill_runs_at_the_fraction_of_peak() -> None:
    # 8 x 32 heads, 8192 x 8192 / 2 pairs (plus half a tile), 4 x 128 operations each
    seconds = attention_prefill(batch=8.0, q_len=8192.0, kv_len=8192.0, chip=CHIP, p=IDEAL | {"compute": 0.8}, **MHA)
    assert seconds == pytest.approx(8 * 32 * 8192 * (8192 + 128) / 2 * 4 * 128 / 80e12, rel=1e-3)


def test_softmax_and_matrix_work_take_turns() -> None:
    p = IDEAL | {"exponentials": 10.0}
    seconds = attention_prefill(batch=8.0, q_len=8192.0, kv_len=8192.0, chip=CHIP, p=p, **MHA)
    softmax = 8 * 32 * 8192 * (8192 + 128) / 2 / (100 * 10 * 1e9)
    assert seconds == pytest.approx(8 * 32 * 8192 * (8192 + 128) / 2 * 4 * 128 / 100e12 + softmax, rel=1e-3)


def test_one_long_tile_bounds_a_small_batch() -> None:
    # one new token of one head against 65,536 keys: one multiprocessor works, its tile padded to 128 rows
    one = {"heads": 1.0, "kv_heads": 1.0, "head_dim": 128.0, "kv_bytes": 2.0}
    seconds = attention_prefill(batch=1.0, q_len=1.0, kv_len=65536.0, chip=replace(CHIP, l2=1e12), p=IDEAL, **one)
    assert seconds == pytest.approx(65536 * 128 * 4 * 128 / 1e12, rel=1e-3)


def test_packing_saves_short_queries() -> None:
    shape = {"batch": 64.0, "q_len": 8.0, "kv_len": 4096.0, "chip": CHIP, **MHA}
    assert attention_prefill(**shape, p=IDEAL | {"packs": 1.0}) < attention_prefill(**shape, p=IDEAL) / 2


def test_passes_around_the_kernel_are_bytes_over_bandwidth() -> None:
    # 3 passes over Q and 2 over K and V, 16 bit, from DRAM at 0.9 of its peak
    shape = {"batch": 64.0, "q_len": 4096.0, "kv_len": 4096.0, "chip": CHIP, **MHA}
    more = attention_prefill(**shape, p=IDEAL | {"passes": 3.0, "convert": 2.0}) - attention_prefill(**shape, p=IDEAL)
    assert more == pytest.approx(64 * 4096 * 128 * 2 * (3 * 32 + 2 * 2 * 8) / 0.9e12, rel=1e-3)


def test_tiny_call_costs_launch_and_one_tile() -> None:
    p = IDEAL | {"launch": 8e-6, "unit": 2e-6}
    one_tile = 128 * 128 * 4 * 128 / 1e12
    seconds = attention_prefill(batch=1.0, q_len=1.0, kv_len=1.0, chip=CHIP, p=p, **MHA)
    assert seconds == pytest.approx(10e-6 + one_tile, rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(SHAPES, FITS, KERNELS)
def test_never_below_the_roofs(shape: Mapping[str, float], fit: Mapping[str, float], kernel: Mapping[str, float]) -> None:
    p = PLAIN | fit | kernel | {"wide": min(fit["wide"], 1.0)}
    seconds = seconds_of(shape, CHIP, p)
    ops = (
        4
        * shape["batch"]
        * shape["heads"]
        * shape["head_dim"]
        * pairs(shape["q_len"], shape["q_len"] + shape["prefix"], shape["window"])
    )
    assert np.isfinite(seconds)
    assert seconds >= fit["launch"]
    assert seconds >= ops / (1.1 * CHIP.peak) * (1 - 1e-9)


@settings(max_examples=40, deadline=None)
@given(SHAPES, FITS, KERNELS)
def test_a_better_chip_is_not_slower(shape: Mapping[str, float], fit: Mapping[str, float], kernel: Mapping[str, float]) -> None:
    p = PLAIN | fit | kernel
    seconds = seconds_of(shape, CHIP, p) * (1 + 1e-9)
    for better in (replace(CHIP, dram=2e12), replace(CHIP, peak=300e12), replace(CHIP, clock=2e9), replace(CHIP, l2=50e6)):
        assert seconds_of(shape, better, p) <= seconds


def test_arrays_equal_a_loop() -> None:
    rng = np.random.default_rng(1)
    n = 200
    q_len = rng.integers(1, 9000, n).astype(float)
    table = {
        "batch": 2.0 ** rng.integers(0, 9, n),
        "q_len": q_len,
        "kv_len": q_len + rng.choice([0.0, 777.0], n),
        "heads": rng.choice([8.0, 40.0, 96.0], n),
        "kv_heads": rng.choice([1.0, 4.0, 8.0], n),
        "head_dim": rng.choice([64.0, 128.0, 256.0], n),
        "kv_bytes": rng.choice([1.0, 2.0], n),
        "window": rng.choice([0.0, 128.0], n),
    }
    for packs in (0.0, 1.0, 2.0):
        p = PLAIN | {"packs": packs}
        together = attention_prefill(**table, chip=CHIP, p=p)
        one_by_one = [attention_prefill(**{k: float(v[i]) for k, v in table.items()}, chip=CHIP, p=p) for i in range(n)]
        np.testing.assert_allclose(together, one_by_one, rtol=1e-12)
