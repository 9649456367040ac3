"""Mapping by Op/B, fastest unit and pin unit, on a device whose two units share one memory."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.device import Device, Memory, Unit
from hwsim.engine import estimate, simulate
from hwsim.errors import InputError, PlacementError
from hwsim.lowering.batch import decode, mixed
from hwsim.lowering.transformer import lower
from hwsim.op import Elementwise, Gemm
from hwsim.placement import fastest, op_b, pin, place, read_policy
from tests.unit.test_transformer import DENSE, MIXTRAL

# xPU: 400 op per byte at its port; PIM: four times the bandwidth, 8 op per byte. Crossing: 80e12 / 2.5e12 = 32 op per byte.
XPU = Unit(does=("matmul", "vector"), peak={"bf16": 1000e12}, memory="hbm", port=2.5e12)
PIM = Unit(does=("matmul", "vector"), peak={"bf16": 80e12}, memory="hbm", port=10e12)
DUAL = Device(name="dual", memories={"hbm": Memory(capacity=1e13, bandwidth=10e12)}, units={"xpu": XPU, "pim": PIM})


def gemm(tokens: float) -> Gemm:
    """A weight-dominated product: tokens x 2 / 2 bytes = `tokens` operations per byte."""
    return Gemm(name="g", kind="g", m=tokens, n=1e6, k=1e6)


@pytest.mark.parametrize(("tokens", "unit"), [(1, "pim"), (31, "pim"), (33, "xpu"), (1000, "xpu")])
@pytest.mark.parametrize("policy", [fastest(), op_b(), op_b(32)])
def test_low_op_b_goes_to_the_unit_with_bandwidth(tokens, unit, policy):
    assert [row.unit for row in place([gemm(float(tokens))], DUAL, policy)] == [unit]


def test_a_threshold_moves_the_border():
    assert [row.unit for row in place([gemm(100.0)], DUAL, op_b(200))] == ["pim"]


def test_pinning_sends_everything_it_can():
    assert {row.unit for row in place(lower(DENSE, decode(1, 100)), DUAL, pin("pim"))} == {"pim"}


def test_pinning_leaves_what_the_unit_cannot_do():
    device = DUAL.model_copy(update={"units": {"xpu": XPU, "pim": PIM.model_copy(update={"does": ("matmul",)})}})
    rows = place(lower(DENSE, decode(1, 100)), device, pin("pim"))
    assert {row.unit for row in rows if row.op.math == "vector"} == {"xpu"}
    assert {row.unit for row in rows if row.op.math == "matmul"} == {"pim"}


@pytest.mark.parametrize("policy", [fastest(), op_b()])
def test_masks_choose_per_point_what_scalars_choose_one_by_one(policy):
    tokens = np.array([1.0, 8.0, 31.0, 33.0, 500.0])
    rows = place([gemm(tokens)], DUAL, policy)
    shares = {row.unit: np.broadcast_to(row.share, 5) for row in rows}
    assert np.all(sum(shares.values()) == 1)
    for i, t in enumerate(tokens):
        alone = place([gemm(float(t))], DUAL, policy)[0].unit
        assert shares[alone][i] == 1
    together = estimate(rows, DUAL).latency_s
    assert together == pytest.approx([float(estimate(place([gemm(float(t))], DUAL, policy), DUAL).latency_s) for t in tokens])


def test_fastest_over_a_swept_bandwidth():
    swept = DUAL.with_values({"units.pim.port": np.array([0.1e12, 10e12])})
    shares = {row.unit: row.share for row in place([gemm(1.0)], swept)}
    assert list(shares["xpu"]) == [1, 0]
    assert list(shares["pim"]) == [0, 1]


def test_order_of_units_does_not_break_ties():
    twin = {"b": XPU, "a": XPU}
    one = place([gemm(1.0)], DUAL.model_copy(update={"units": twin}))[0].unit
    two = place([gemm(1.0)], DUAL.model_copy(update={"units": dict(reversed(twin.items()))}))[0].unit
    assert one == two == "a"


def test_units_that_share_a_memory_slow_each_other_exactly_while_both_read():
    # by hand: the PIM alone would take 1 ms; while the xPU draws its 2.5 TB/s for 1 ms, 7.5 TB/s are left for the PIM:
    # after 1 ms it has moved 7.5 of its 10 GB and needs 0.25 ms more at full rate
    home = {"weights": "hbm", "activations": "hbm", "kv": "hbm"}
    from hwsim.placement.rows import Row

    reads = [
        Elementwise(name=n, kind="read", tokens=1.0, read=b / 2, written=0.0, work=0.0) for n, b in (("x", 2.5e9), ("p", 10e9))
    ]
    trace = simulate([Row(reads[0], "xpu", home), Row(reads[1], "pim", home)], DUAL)
    ends = {row.name: row.end_s for row in trace.rows}
    assert ends == pytest.approx({"x": 1e-3, "p": 1.25e-3}, rel=1e-12)
    assert {row.name: row.bound for row in trace.rows} == {"x": "memory", "p": "shared"}


def test_prefill_and_decode_attention_of_a_mixed_batch_run_side_by_side():
    trace = simulate(place(lower(MIXTRAL, mixed([(2048, 0)] + [(1, 4096)] * 32)), DUAL, op_b()), DUAL)
    rows = {row.name: row for row in trace.rows}
    pre, dec = rows["moe.attention.prefill"], rows["moe.attention.decode"]
    assert (pre.unit, dec.unit) == ("xpu", "pim")
    assert pre.start_s == dec.start_s
    assert trace.latency_s >= float(
        estimate(place(lower(MIXTRAL, mixed([(2048, 0)] + [(1, 4096)] * 32)), DUAL, op_b()), DUAL).latency_s
    )


def test_formats_a_unit_lacks_are_widened_or_refused():
    narrow = Gemm(name="g", kind="g", m=1.0, n=10.0, k=10.0, weights="fp8", activations="fp8")
    assert place([narrow], DUAL)[0].unit in DUAL.units  # computed in bf16
    only_int = DUAL.model_copy(update={"units": {"mcu": XPU.model_copy(update={"peak": {"int8": 1e9}})}})
    with pytest.raises(PlacementError, match="no unit can do g \\(matmul in fp8\\)"):
        place([narrow], only_int)


@pytest.mark.parametrize(
    "text", ["slowest", "op-b:ridge=0", "op-b:ridge=nan", "op-b:unit=x", "pin", "pin:unit=", "fastest:x=1", ""]
)
def test_policies_that_are_refused(text):
    with pytest.raises(InputError, match="policy"):
        read_policy(text)


def test_pinning_to_a_unit_that_is_not_there_names_those_that_are():
    with pytest.raises(InputError, match="no unit 'gpu'; accepted: pim, xpu"):
        place([gemm(1.0)], DUAL, read_policy("pin:unit=gpu"))
