"""Low-bit kernels: limits that a person can work out by hand, laws that hold whatever the parameters are, who runs them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.catalogue import load_device
from hwsim.cost import price
from hwsim.cost.chips import chip_of, sustained
from hwsim.formats import bits
from hwsim.kernels.chip import Chip
from hwsim.kernels.low_bit import PARAMETERS, SELECTION, low_bit
from hwsim.op import Gemm
from hwsim.placement.policy import homes

CHIP = Chip(sms=100.0, clock=1e9, peak=100e12, vector=10e12, dram=1e12, l2=10e6)
PLAIN = {q.name: q.start for q in (*PARAMETERS, *SELECTION)}
IDEAL = PLAIN | {"launch": 0.0, "dram": 0.5, "l2": 1e9, "unpack": 0.0, "scale": 0.0, "turn": 0.0}
SIZES = st.floats(1.0, 20000.0).map(round).map(float)
FITS = st.fixed_dictionaries(
    {q.name: st.floats(q.low, q.high) for q in PARAMETERS} | {q.name: st.just(q.start) for q in SELECTION}
)


def test_one_row_streams_its_packed_weights() -> None:
    seconds = low_bit(m=1.0, n=25600.0, k=8192.0, a_bytes=0.0, o_bytes=0.0, w_bytes=0.5, chip=CHIP, p=IDEAL)
    assert seconds == pytest.approx(0.5 * 25600 * 8192 / 0.5e12)


def test_many_rows_run_at_the_sustained_rate() -> None:
    # 6400 rows are 100 problems of 64, 25600 columns 100 tiles of 256, 8192 deep 128 steps: 12,800 steps of each of 100 SMs
    seconds = low_bit(m=6400.0, n=25600.0, k=8192.0, chip=CHIP, p=IDEAL)
    assert seconds == pytest.approx(2 * 6400 * 25600 * 8192 / 100e12)
    sparse = low_bit(m=6400.0, n=25600.0, k=8192.0, chip=CHIP, p=IDEAL | {"density": 0.5})
    assert sparse == pytest.approx(seconds / 2)


def test_a_stripe_more_than_the_sms_have_is_a_step_more() -> None:
    p = IDEAL | {"dram": 0.98}
    full, over = (low_bit(m=64.0, n=25600.0, k=k, w_bytes=1e-6, a_bytes=0.0, o_bytes=0.0, chip=CHIP, p=p) for k in (64.0, 65.0))
    assert over == pytest.approx(2 * full)


def test_unpacking_is_instructions_over_lanes() -> None:
    # 5 T instructions a second; every weight is unpacked once for each 64 rows
    p = IDEAL | {"unpack": 50.0}
    seconds = low_bit(m=128.0, n=25600.0, k=8192.0, chip=CHIP, p=p)
    assert seconds == pytest.approx(2 * 50 * 25600 * 8192 / 5e12)


def test_scaling_is_instructions_per_result_and_group() -> None:
    p = IDEAL | {"scale": 4.0}
    seconds = low_bit(m=64.0, n=25600.0, k=8192.0, group=16.0, chip=CHIP, p=p)
    assert seconds == pytest.approx(4 * 64 * 25600 * (8192 / 16) / 5e12)


def test_sms_that_share_a_column_take_turns() -> None:
    shape = {"m": 64.0, "n": 256.0, "k": 6400.0, "chip": CHIP}  # one column, a step for each SM
    assert low_bit(**shape, p=IDEAL | {"turn": 1e-6}) - low_bit(**shape, p=IDEAL) == pytest.approx(100e-6)


@settings(max_examples=60)
@given(SIZES, SIZES, SIZES, FITS)
def test_never_faster_than_memory_or_arithmetic(m: float, n: float, k: float, p: dict[str, float]) -> None:
    seconds = float(low_bit(m=m, n=n, k=k, chip=CHIP, p=p))
    assert math.isfinite(seconds)
    assert seconds >= n * k * 0.515625 / 1e12
    assert seconds >= 2 * m * n * k * p["density"] / (100e12 * p["compute"]) * (1 - 1e-9)


@settings(max_examples=30)
@given(SIZES, SIZES, SIZES, FITS)
def test_arrays_are_pointwise_and_more_rows_never_faster(m: float, n: float, k: float, p: dict[str, float]) -> None:
    rows = np.array([m, m + 16.0, 2 * m + 64.0])
    many = low_bit(m=rows, n=n, k=k, chip=CHIP, p=p)
    assert many.tolist() == [float(low_bit(m=float(one), n=n, k=k, chip=CHIP, p=p)) for one in rows]


def gemm(weights: str, activations: str = "fp16") -> Gemm:
    return Gemm(name="g", kind="ffn", m=16.0, n=8192.0, k=8192.0, weights=weights, activations=activations, stream="fp16")


def test_the_stack_decides_who_unpacks() -> None:
    device = load_device("rtx-3090")
    named = {stack: device.with_stack(stack) for stack in ("marlin", "vllm")}
    methods = {stack: price(gemm("int4_g128"), "tensor", d, homes(d, "tensor")).method for stack, d in named.items()}
    assert methods["marlin"] == "kernel low_bit"
    assert methods["vllm"].startswith("kernel gemm")
    assert price(gemm("fp16"), "tensor", named["marlin"], homes(device, "tensor")).method == "kernel gemm"


def test_sparse_weights_are_half_the_operations_and_fewer_bits() -> None:
    assert bits("int4_g128_24") == 4 / 2 + 2 / 2 + 16 / 128
    assert gemm("int4_g128_24").ops == gemm("int4_g128").ops / 2


def test_the_sustained_rate_is_the_devices_own() -> None:
    device = load_device("rtx-3090")
    chip, slower = chip_of(device, "fp16"), sustained(device, "fp16")
    assert chip is not None
    assert slower is not None
    assert slower.peak == pytest.approx(chip.peak * device.units["tensor"].efficiency)
