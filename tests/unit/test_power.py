"""Energy of measured GPUs: the board's watts while an op runs, over what it draws at rest."""

import math

import numpy as np
import pytest

import hwsim
from hwsim.cost import energy, price
from hwsim.errors import HwsimError
from hwsim.kernels.sets import choose
from hwsim.op import Gemm

H200 = hwsim.load_device("h200")
HOME = {"weights": "hbm", "activations": "hbm"}


def _gemm(m: float, **others: object) -> Gemm:
    return Gemm(name="p", kind="gemm", m=m, n=8192.0, k=8192.0, **others)


def _watts(op: Gemm) -> float:
    """Over what the board draws at rest."""
    cost = price(op, "tensor", H200, HOME)
    return sum(energy(cost, op, "tensor", H200).values()) / cost.alone_s


def test_a_large_product_by_hand():
    op = _gemm(8192.0)
    cost = price(op, "tensor", H200, HOME)
    p = choose(H200.kernels["power"], "gemm", "bf16").parameters
    used = 2 * 8192.0**3 / cost.alone_s / 989e12
    streamed = 3 * 8192**2 * 2 / cost.alone_s / 4800e9
    active = p["active"] * (1 - math.exp(-(used + streamed) / p["knee"]))  # 64 x 64 tiles fill all SMs
    total = p["idle"] + active + p["op"] * used + p["byte"] * streamed
    watts = 700 * total / (1 + total ** p["sharp"]) ** (1 / p["sharp"])
    assert sum(energy(cost, op, "tensor", H200).values()) == pytest.approx((watts - 133) * cost.alone_s)


def test_no_op_takes_a_board_over_its_limit():
    for m in (1.0, 64.0, 1000.0, 16384.0):
        assert 0 < _watts(_gemm(m)) <= 700 - 133


def test_a_run_draws_between_idle_and_the_limit():
    for phase in ("prefill", "decode"):
        for device in ("h200", "b200", "2x-h20"):
            trace = hwsim.run("llama-3.1-8b", device, phase=phase, batch=16, prompt=1024)
            board = hwsim.load_device(device)
            watts = trace.energy_j / trace.latency_s / board.count
            assert float(board.static_power) < watts <= float(board.power_limit)


def test_arrays_give_what_their_scalars_give():
    sizes = np.array([1.0, 200.0, 4096.0])
    several = _watts(_gemm(sizes))
    assert several == pytest.approx([_watts(_gemm(float(m))) for m in sizes])


def test_a_format_without_watts_of_its_own_takes_the_nearest():
    """Weight-only int4 multiplies in bf16, and draws as bf16 does."""
    assert 200 < _watts(_gemm(4096.0, weights="int4_g128")) < 567


def test_machines_without_measured_power_have_energies_per_operation_and_byte():
    a100 = hwsim.load_device("a100")
    op = _gemm(4096.0)
    joules = energy(price(op, "tensor", a100, HOME), op, "tensor", a100)
    assert joules["tensor"] == pytest.approx(op.ops * a100.units["tensor"].energy["bf16"])
    assert joules["hbm"] == pytest.approx(sum(op.bytes.values()) * a100.memories["hbm"].energy)


def test_another_limit_changes_neither_time_nor_energy_and_is_said_to_be_exceeded():
    joules = set()
    for watts in ("400 W", "700 W", "1400 W"):
        trace = hwsim.run("llama-3.1-8b", H200.with_values({"power_limit": watts}), phase="prefill", batch=8)
        joules.add(trace.energy_j)
        assert any("above its limit" in note for note in trace.notes) == (watts == "400 W")
    assert len(joules) == 1


def test_a_board_without_power_is_refused():
    with pytest.raises(HwsimError, match=r"power_limit.*above 0"):
        H200.with_values({"power_limit": "0 W"})
