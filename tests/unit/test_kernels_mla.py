"""Latent attention kernel models: limits that a person can work out by hand, and laws that hold whatever the parameters are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.kernels import mla_decode as decode
from hwsim.kernels import mla_prefill as prefill
from hwsim.kernels.chip import Chip
from hwsim.kernels.mla_decode import mla_decode
from hwsim.kernels.mla_prefill import mla_prefill

CHIP = Chip(sms=100.0, clock=1e9, peak=100e12, vector=10e12, dram=1e12, l2=10e6)
DECODE = {q.name: q.start for q in (*decode.PARAMETERS, *decode.SELECTION)}
PREFILL = {q.name: q.start for q in (*prefill.PARAMETERS, *prefill.SELECTION)}
IDEAL_DECODE = DECODE | {
    "launch": 0.0,
    "unit": 0.0,
    "rows": 0.0,
    "merge": 0.0,
    "ramp": 0.0,
    "port": 1e12,
    "compute": 1.0,
    "dram": 1.0,
}
FREE = {"launch": 0.0, "unit": 0.0, "tail": 0.0, "passes": 0.0, "port": 1e12, "exponentials": 1e12, "compute": 1.0}
IDEAL_PREFILL = PREFILL | FREE | {"tile": 128.0, "step": 128.0}

SHAPES = st.fixed_dictionaries(
    {
        "batch": st.integers(0, 10).map(lambda e: 2.0**e),
        "heads": st.sampled_from([1.0, 8.0, 16.0, 128.0]),
        "tokens": st.floats(1.0, 30000.0).map(round).map(float),
        "resident": st.sampled_from([0.0, 1.0]),
    }
)
DECODE_FITS = st.fixed_dictionaries({q.name: st.floats(q.low, q.high) for q in decode.PARAMETERS})
PREFILL_FITS = st.fixed_dictionaries({q.name: st.floats(q.low, q.high) for q in prefill.PARAMETERS})


def decode_seconds(shape: Mapping[str, float], chip: Chip, p: Mapping[str, float]) -> float:
    rest = {k: v for k, v in shape.items() if k != "tokens"}
    return float(mla_decode(**rest, kv_len=shape["tokens"], kv_bytes=2.0, chip=chip, p=p))


def prefill_seconds(shape: Mapping[str, float], chip: Chip, p: Mapping[str, float]) -> float:
    rest = {k: v for k, v in shape.items() if k != "tokens"}
    return float(mla_prefill(**rest, q_len=shape["tokens"], kv_len=shape["tokens"], chip=chip, p=p))


def test_few_heads_stream_the_latent_once() -> None:
    # 576 elements of 2 bytes per token, whatever the number of heads, at 0.8 of 1 TB/s
    p = IDEAL_DECODE | {"dram": 0.8}
    few, more = (mla_decode(batch=256.0, kv_len=16384.0, heads=heads, kv_bytes=2.0, chip=CHIP, p=p) for heads in (1.0, 2.0))
    assert few == pytest.approx(256 * 16384 * 576 * 2 / 0.8e12, rel=0.02)
    assert more == pytest.approx(few, rel=0.01)


def test_all_heads_bind_the_tensor_cores() -> None:
    # 2 x (576 + 512) operations per head and token
    seconds = mla_decode(batch=100.0, kv_len=16384.0, heads=128.0, kv_bytes=2.0, chip=replace(CHIP, dram=1e18), p=IDEAL_DECODE)
    assert seconds == pytest.approx(100 * 16384 * 128 * 2 * 1088 / 100e12, rel=1e-6)


def test_narrow_kernel_below_its_limit_only() -> None:
    p = IDEAL_DECODE | {"narrow_to": 32.0, "narrow_tile": 32.0, "narrow": 0.1}
    shape = {"batch": 100.0, "kv_len": 16384.0, "kv_bytes": 2.0, "chip": replace(CHIP, dram=1e18), "p": p}
    assert mla_decode(heads=32.0, **shape) == pytest.approx(100 * 16384 * 32 * 2 * 1088 / 10e12, rel=1e-6)
    assert mla_decode(heads=64.0, **shape) == pytest.approx(100 * 16384 * 64 * 2 * 1088 / 100e12, rel=1e-6)


def test_conversion_of_the_cache_is_a_pass_before() -> None:
    shape = {"batch": 64.0, "kv_len": 8192.0, "heads": 8.0, "kv_bytes": 1.0, "chip": CHIP}
    more = mla_decode(**shape, p=DECODE | {"convert": 2.0}) - mla_decode(**shape, p=DECODE)
    assert more == pytest.approx(64 * 8192 * 576 / (2.0 * 1e9 * 100), rel=1e-6)


def test_expanded_and_absorbed_prefill_run_at_peak() -> None:
    pairs = 8192 * (8192 + 128) / 2
    shape = {"batch": 2.0, "q_len": 8192.0, "kv_len": 8192.0, "heads": 128.0, "chip": replace(CHIP, l2=1e12)}
    expanded = mla_prefill(**shape, p=IDEAL_PREFILL)
    assert expanded == pytest.approx(2 * 128 * pairs * 2 * (192 + 128) / 100e12, rel=1e-3)
    # absorbed: a tile of 128 rows is one position of 128 heads, and visits half a step more than it needs
    absorbed = mla_prefill(**shape, p=IDEAL_PREFILL | {"absorbed": 1.0})
    assert absorbed == pytest.approx(2 * 128 * pairs * 2 * (576 + 512) / 100e12, rel=1e-2)


def test_tiny_calls_cost_a_launch() -> None:
    one_block = 128 * 2 * 1088 * 16 / 1e12
    seconds = mla_decode(batch=1.0, kv_len=1.0, heads=16.0, kv_bytes=2.0, chip=CHIP, p=IDEAL_DECODE | {"launch": 9e-6})
    assert seconds == pytest.approx(9e-6 + one_block, rel=1e-3)
    one_tile = 128 * 128 * 2 * 320 / 1e12
    seconds = mla_prefill(batch=1.0, q_len=1.0, kv_len=1.0, heads=16.0, chip=CHIP, p=IDEAL_PREFILL | {"launch": 9e-6})
    assert seconds == pytest.approx(9e-6 + one_tile, rel=1e-3)


@settings(max_examples=50, deadline=None)
@given(SHAPES, DECODE_FITS, st.sampled_from([0.0, 32.0]))
def test_decode_never_below_the_roofs(shape: Mapping[str, float], fit: Mapping[str, float], narrow_to: float) -> None:
    p = DECODE | fit | {"narrow_to": narrow_to}
    seconds = decode_seconds(shape, CHIP, p)
    assert np.isfinite(seconds)
    assert seconds >= fit["launch"]
    assert seconds >= shape["batch"] * shape["tokens"] * shape["heads"] * 2 * 1088 / (1.1 * CHIP.peak) * (1 - 1e-9)
    assert decode_seconds(shape | {"resident": 0.0}, CHIP, p) >= shape["batch"] * shape["tokens"] * 576 * 2 / CHIP.dram * (
        1 - 1e-9
    )


@settings(max_examples=50, deadline=None)
@given(SHAPES, PREFILL_FITS, st.sampled_from([0.0, 1.0]))
def test_prefill_never_below_the_roof(shape: Mapping[str, float], fit: Mapping[str, float], absorbed: float) -> None:
    seconds = prefill_seconds(shape, CHIP, PREFILL | fit | {"absorbed": absorbed})
    pairs = shape["tokens"] * (shape["tokens"] + 1) / 2
    assert np.isfinite(seconds)
    assert seconds >= fit["launch"]
    assert seconds >= shape["batch"] * shape["heads"] * pairs * 2 * (1088 if absorbed else 320) / (1.1 * CHIP.peak) * (1 - 1e-9)


@settings(max_examples=30, deadline=None)
@given(SHAPES, DECODE_FITS, PREFILL_FITS)
def test_a_better_chip_is_not_slower(shape: Mapping[str, float], first: Mapping[str, float], second: Mapping[str, float]) -> None:
    for better in (replace(CHIP, dram=2e12), replace(CHIP, peak=300e12), replace(CHIP, clock=2e9)):
        assert decode_seconds(shape, better, DECODE | first) <= decode_seconds(shape, CHIP, DECODE | first) * (1 + 1e-9)
        assert prefill_seconds(shape, better, PREFILL | second) <= prefill_seconds(shape, CHIP, PREFILL | second) * (1 + 1e-9)


def test_arrays_equal_a_loop() -> None:
    rng = np.random.default_rng(1)
    n = 200
    batch, tokens = 2.0 ** rng.integers(0, 11, n), rng.integers(1, 50000, n).astype(float)
    heads, kv_bytes = rng.choice([1.0, 16.0, 64.0, 128.0], n), rng.choice([1.0, 2.0], n)
    p = DECODE | {"narrow_to": 32.0}
    together = mla_decode(batch=batch, kv_len=tokens, heads=heads, kv_bytes=kv_bytes, chip=CHIP, p=p)
    rows = zip(batch.tolist(), tokens.tolist(), heads.tolist(), kv_bytes.tolist(), strict=True)
    np.testing.assert_allclose(
        together, [mla_decode(batch=b, kv_len=t, heads=h, kv_bytes=w, chip=CHIP, p=p) for b, t, h, w in rows], rtol=1e-12
    )
    for absorbed in (0.0, 1.0):
        q = PREFILL | {"absorbed": absorbed}
        table = mla_prefill(batch=batch, q_len=tokens, kv_len=tokens, heads=heads, chip=CHIP, p=q)
        rows = zip(batch.tolist(), tokens.tolist(), heads.tolist(), kv_bytes.tolist(), strict=True)
        np.testing.assert_allclose(
            table, [mla_prefill(batch=b, q_len=t, kv_len=t, heads=h, chip=CHIP, p=q) for b, t, h, _ in rows], rtol=1e-12
        )
