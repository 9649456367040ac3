"""Decode attention kernel model: limits that a person can work out by hand, and laws that hold whatever the parameters are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.kernels.attention_decode import PARAMETERS, SELECTION, attention_decode
from hwsim.kernels.chip import Chip

CHIP = Chip(sms=100.0, clock=1e9, peak=100e12, vector=10e12, dram=1e12, l2=10e6)
PLAIN = {q.name: q.start for q in (*PARAMETERS, *SELECTION)}
FREE = {"launch": 0.0, "unit": 0.0, "rows": 0.0, "solo": 0.0, "merge": 0.0, "ramp": 0.0, "port": 1e12}
IDEAL = PLAIN | FREE | {"compute": 1.0, "vector": 1.0, "dram": 1.0, "kept": 1.0}
LLAMA = {"heads": 32.0, "kv_heads": 8.0, "head_dim": 128.0, "kv_bytes": 2.0}

POWERS = st.integers(0, 10).map(lambda e: 2.0**e)
SHAPES = st.fixed_dictionaries(
    {
        "batch": POWERS,
        "kv_len": st.floats(1.0, 200000.0).map(round).map(float),
        "kv_heads": st.sampled_from([1.0, 2.0, 8.0]),
        "heads": st.sampled_from([8.0, 24.0, 64.0, 128.0]),
        "head_dim": st.sampled_from([64.0, 128.0, 192.0, 256.0]),
        "kv_bytes": st.sampled_from([1.0, 2.0]),
        "window": st.sampled_from([0.0, 128.0, 1000.0]),
        "resident": st.sampled_from([0.0, 0.5, 1.0]),
    }
)
FITS = st.fixed_dictionaries({q.name: st.floats(q.low, q.high) for q in PARAMETERS})
KERNELS = st.fixed_dictionaries(
    {
        "tile": st.sampled_from([8.0, 16.0, 64.0]),
        "pack_from": st.sampled_from([1.0, 2.0, 4.0]),
        "pack_to": st.sampled_from([40.0, 1e9]),
        "pack_window": st.sampled_from([0.0, 1.0]),
        "ragged": st.sampled_from([0.0, 1.0]),
        "solo_tile": st.sampled_from([0.0, 64.0]),
        "solo_splits": st.sampled_from([1.0, 64.0]),
    }
)


def test_large_cache_streams_from_dram() -> None:
    # 256 sequences x 16384 tokens x 8 heads x 128 x K and V x 2 bytes, at 0.8 of 1 TB/s
    seconds = attention_decode(batch=256.0, kv_len=16384.0, chip=CHIP, p=IDEAL | {"dram": 0.8}, **LLAMA)
    assert seconds == pytest.approx(256 * 16384 * 8 * 128 * 2 * 2 / 0.8e12, rel=1e-2)


def test_padded_query_rows_bind_the_tensor_cores() -> None:
    # 4 heads of a group work as 16 rows: 4 x 128 x 16 operations per token and KV head
    seconds = attention_decode(batch=100.0, kv_len=16384.0, chip=replace(CHIP, dram=1e18), p=IDEAL | {"tile": 16.0}, **LLAMA)
    assert seconds == pytest.approx(100 * 8 * 16384 * 4 * 128 * 16 / 100e12, rel=1e-6)


def test_one_block_of_one_sequence_draws_through_one_port() -> None:
    # 100 tokens are one block of 128: 128 x 128 x 2 x 2 bytes at 32 bytes per nanosecond, one KV head
    one = {"heads": 1.0, "kv_heads": 1.0, "head_dim": 128.0, "kv_bytes": 2.0}
    seconds = attention_decode(batch=1.0, kv_len=100.0, chip=CHIP, p=IDEAL | {"port": 32.0}, **one)
    assert seconds == pytest.approx((128 * 128 * 2 * 2 + 2 * 2 * 128) / 32e9, rel=1e-3)


def test_a_cache_is_cut_to_fill_the_chip_and_no_further_than_allowed() -> None:
    one = {"batch": 1.0, "kv_len": 131072.0, "heads": 1.0, "kv_heads": 1.0, "head_dim": 128.0, "kv_bytes": 2.0}
    whole, halves, many = (
        attention_decode(**one, chip=replace(CHIP, l2=1e12), p=IDEAL | {"port": 32.0, "splits": cuts})
        for cuts in (1.0, 2.0, 256.0)
    )
    assert whole / halves == pytest.approx(2.0, rel=1e-6)
    assert whole / many == pytest.approx(100.0, rel=1e-6)


def test_tiny_call_costs_launch_and_one_block() -> None:
    p = IDEAL | {"launch": 8e-6, "unit": 2e-6, "tile": 4.0, "compute": 1e6}
    assert attention_decode(batch=1.0, kv_len=1.0, chip=CHIP, p=p, **LLAMA) == pytest.approx(10e-6, rel=1e-2)


def test_solo_kernel_works_once_per_query_head() -> None:
    p = IDEAL | {"solo": 1e-3, "pack_to": 2.0, "launch": 0.0}
    # 800 heads of 200 sequences are 8 waves on 100 multiprocessors
    assert attention_decode(batch=25.0, kv_len=1.0, chip=CHIP, p=p, **LLAMA) == pytest.approx(8e-3, rel=1e-3)


def test_window_limits_the_cache() -> None:
    shape = {"batch": 64.0, "chip": CHIP, "p": PLAIN, **LLAMA}
    assert attention_decode(kv_len=65536.0, window=1024.0, **shape) == attention_decode(kv_len=1024.0, **shape)


def test_cache_that_survives_in_l2_is_faster() -> None:
    shape = {"batch": 8.0, "kv_len": 128.0, "chip": CHIP, "p": PLAIN, **LLAMA}
    assert attention_decode(**shape, resident=1.0) < attention_decode(**shape, resident=0.0)


@settings(max_examples=60, deadline=None)
@given(SHAPES, FITS, KERNELS)
def test_never_below_the_roofs(shape: Mapping[str, float], fit: Mapping[str, float], kernel: Mapping[str, float]) -> None:
    seconds = attention_decode(**shape, chip=CHIP, p=PLAIN | fit | kernel)
    tokens = min(shape["kv_len"], shape["window"] or np.inf)
    ops = 4 * shape["batch"] * shape["heads"] * shape["head_dim"] * tokens
    assert np.isfinite(seconds)
    assert seconds >= fit["launch"]
    assert seconds >= ops / (1.1 * CHIP.peak)
    cold = attention_decode(**shape | {"resident": 0.0}, chip=CHIP, p=PLAIN | fit | kernel)
    assert cold >= 2 * shape["batch"] * shape["kv_heads"] * shape["head_dim"] * tokens * shape["kv_bytes"] / CHIP.dram


@settings(max_examples=40, deadline=None)
@given(SHAPES, FITS, KERNELS)
def test_a_better_chip_is_not_slower(shape: Mapping[str, float], fit: Mapping[str, float], kernel: Mapping[str, float]) -> None:
    p = PLAIN | fit | kernel
    seconds = attention_decode(**shape, chip=CHIP, p=p) * (1 + 1e-9)
    for better in (replace(CHIP, dram=2e12), replace(CHIP, peak=300e12), replace(CHIP, vector=30e12), replace(CHIP, clock=2e9)):
        assert attention_decode(**shape, chip=better, p=p) <= seconds


def test_arrays_equal_a_loop() -> None:
    rng = np.random.default_rng(1)
    n = 200
    table = {
        "batch": 2.0 ** rng.integers(0, 11, n),
        "kv_len": rng.integers(1, 100000, n).astype(float),
        "kv_heads": rng.choice([1.0, 4.0, 8.0], n),
        "head_dim": rng.choice([64.0, 128.0, 256.0], n),
        "kv_bytes": rng.choice([1.0, 2.0], n),
        "window": rng.choice([0.0, 128.0], n),
    }
    heads = table["kv_heads"] * rng.choice([1.0, 3.0, 8.0, 64.0], n)
    p = PLAIN | {"pack_to": 40.0, "pack_from": 2.0, "solo_tile": 64.0, "ragged": 1.0}
    together = attention_decode(**table, heads=heads, chip=CHIP, p=p)
    one_by_one = [
        attention_decode(**{k: float(v[i]) for k, v in table.items()}, heads=float(heads[i]), chip=CHIP, p=p) for i in range(n)
    ]
    np.testing.assert_allclose(together, one_by_one, rtol=1e-12)
