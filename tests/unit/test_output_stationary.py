"""What an op costs on an array: against hand computation on MixPE's files, in both modes; scales, attention, experts, passes."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.catalogue import load_device, load_model
from hwsim.cost import price
from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.job import Job, estimated, run
from hwsim.lowering.batch import decode, prefill
from hwsim.lowering.moe import chosen_probability
from hwsim.lowering.published import as_published
from hwsim.lowering.transformer import lower
from hwsim.op import AttentionOp, Conv, Experts, Gemm, Op
from hwsim.placement.policy import homes

CLOCK = 500e6


def cost(op: Op, device: Device):
    return price(op, "array", device, homes(device, "array"))


def gemm(weights: str = "int4", activations: str = "int8", m: float = 64.0, n: float = 4096.0, k: float = 4096.0) -> Gemm:
    return Gemm(name="g", kind="ffn", m=m, n=n, k=k, weights=weights, activations=activations, stream="fp16")


def test_one_product_a_cycle_and_element_as_the_array_works():
    found = cost(gemm(), load_device("mixpe-w4a8"))
    by_hand = 4096 * 4096 / 64 / CLOCK  # 64 rows fill the rows of 64 x 64 elements
    assert by_hand <= found.busy_s <= by_hand * 1.01
    assert found.alone_s == pytest.approx(float(found.busy_s))


def test_operands_wider_than_an_element_take_passes():
    device = load_device("mixpe-w4a8")
    times = [cost(gemm(weights), device).busy_s for weights in ("int2", "int4", "int8", "bf16")]
    assert times[0] == pytest.approx(times[1], rel=1e-2)  # elements of MixPE do not divide
    assert times[2] == pytest.approx(2 * times[1], rel=1e-2)
    assert times[3] == pytest.approx(times[2], rel=1e-2)  # 16 bits are quantised to 8 on their way in


def test_elements_that_divide_are_faster_for_narrow_operands():
    device = load_device("mixpe-bitfusion")
    full, half, quarter = (
        cost(gemm(w, a), device).busy_s for w, a in (("int8", "int8"), ("int4", "int8"), ("int4", "int4"))
    )  # fmt: skip
    assert full / half == pytest.approx(2, rel=0.02)
    assert full / quarter == pytest.approx(4, rel=0.02)


@pytest.mark.parametrize(("when", "multiplications"), [("before", 4096 * 4096), ("after", 64 * 4096 * 4096 / 128)])
def test_scales_before_or_after_the_product(when, multiplications):
    device = load_device("mixpe-w4a8").with_values({"units.array.array.dequantise": when})
    plain = device.with_values({"units.array.array.dequantise": "after"})
    grouped, whole = cost(gemm("int4_g128"), device), cost(gemm("int4"), plain)
    extra = multiplications / 4096 / CLOCK
    assert grouped.busy_s - whole.busy_s == pytest.approx(extra, rel=0.05)


def test_elements_draw_their_leakage_always_and_their_dynamic_power_while_they_work():
    device = load_device("mixpe-int8")
    found = cost(gemm("int8", "int8"), device)
    cycles = 4096 * 4096 * 64 / 1024
    by_hand = 1024 * (64.314e-6 * found.alone_s + 279.96e-6 * cycles / CLOCK)
    assert found.joules["array"] == pytest.approx(by_hand, rel=1e-6)


def test_decode_attention_fills_as_many_rows_as_queries_share_a_head():
    shape = {"sequences": 2.0, "pairs": 2000.0, "q_tokens": 2.0, "kv_tokens": 2000.0, "cached_tokens": 2000.0, "qk_dim": 128}
    op = AttentionOp(
        name="a", kind="attention.decode", heads=32.0, kv_heads=8.0, v_dim=128, kv_dim=256, cache_width=2048.0, kv="int4",
        stream="fp16", **shape,
    )  # fmt: skip
    found = cost(op, load_device("mixpe-w4a8"))
    # 4 queries of a group on 64 rows: every key of 8 heads passes 64 columns, 128 cycles deep, then its value
    assert found.busy_s == pytest.approx(2000 * 8 * (128 + 128) / 64 / CLOCK)
    assert sum(found.traffic.values()) == pytest.approx(sum(op.bytes.values()))


def test_experts_are_products_one_after_another():
    device = load_device("mixpe-w4a8")
    op = Experts(
        name="e", kind="experts", tokens=64.0, hidden=512, inner=1024.0, matrices=3, chosen=chosen_probability(4, 4, 0.0),
        balanced=True, weights="int4", activations="int8", stream="fp16",
    )  # fmt: skip
    up, down = (cost(gemm(m=64.0, n=n, k=k), device).busy_s for n, k in ((2048.0, 512.0), (512.0, 1024.0)))
    assert cost(op, device).busy_s == pytest.approx(4 * (up + down), rel=1e-9)


def test_rows_may_be_an_array():
    device, rows = load_device("mixpe-w4a8"), np.array([1.0, 8.0, 64.0, 128.0])
    many = estimated("llama-3.1-8b", device, decode(rows, 512.0)).latency_s
    for index, m in enumerate(rows.tolist()):
        assert many[index] == pytest.approx(run("llama-3.1-8b", device, phase="decode", batch=int(m), prompt=512).latency_s)
    assert np.all(np.diff(many) > 0)


def test_a_device_whose_array_has_no_buffers_says_so():
    device = load_device("mixpe-w4a8").model_copy(update={"buffers": {}})
    with pytest.raises(InputError, match="buffers activations, weights, outputs"):
        cost(gemm(), device)


def test_the_released_layers_of_a_network():
    array = load_device("mixpe-w4a8").units["array"].array
    assert array is not None
    ops = as_published(lower(load_model("llama-2-13b"), decode(64, 1)), array)
    shapes = [(op.name, op.m, op.k, op.n, op.repeat, op.weights, op.activations) for op in ops if isinstance(op, Gemm)]
    assert shapes == [
        ("dense.qkv", 64, 5120, 15360, 40, "int4", "int4"), ("dense.qkv.scales", 64, 640, 120, 40, "int8", "int8"),
        ("dense.out", 64, 5120, 5120, 40, "int4", "int4"), ("dense.out.scales", 64, 640, 40, 40, "int8", "int8"),
        ("dense.ffn.up", 64, 5120, 20480, 40, "int4", "int4"), ("dense.ffn.up.scales", 64, 640, 160, 40, "int8", "int8"),
        ("dense.ffn.down", 64, 20480, 5120, 40, "int4", "int4"), ("dense.ffn.down.scales", 64, 2560, 40, 40, "int8", "int8"),
    ]  # fmt: skip


def test_a_fifth_of_the_blocks_is_wide_and_the_patches_are_16_x_16():
    array = load_device("mixpe-ant").units["array"].array
    assert array is not None
    ops = as_published(lower(load_model("vit-huge"), prefill(64, 1)), array)
    patches, *linear = ops
    assert isinstance(patches, Conv)
    assert (patches.kernel, patches.side, patches.m, patches.weights) == (16, 14.0, 64 * 196, "int8")
    of_qkv = [op for op in linear if op.kind == "qkv" and isinstance(op, Gemm)]
    assert [(op.repeat, op.weights) for op in of_qkv] == [(26, "int4"), (6, "int8")]


def test_a_run_says_how_it_is_charged():
    for quirks in ("none", "as-published"):
        trace = run("vit-base", "mixpe-w4a8", phase="prefill", batch=4, prompt=197, quirks=quirks)
        assert any(f"quirks: {quirks}" in note for note in trace.notes)
    with pytest.raises(InputError, match="accepted for h100: none"):
        run("vit-base", "h100", phase="prefill", prompt=197, quirks="as-published")


def test_the_peak_of_a_unit_is_that_of_its_array():
    device = load_device("mixpe-w4a8")
    assert device.units["array"].peak["int8"] == 2 * 4096 * CLOCK
    larger = device.with_values({"units.array.array.rows": "128"})
    assert larger.units["array"].peak["int8"] == 2 * 8192 * CLOCK
    assert device.with_quirks("as-published").units["array"].peak == {"int8": 2 * 4096 * CLOCK, "int4": 8 * 4096 * CLOCK}


@pytest.mark.parametrize(("rows", "expected"), [
    (8, {"mixpe-w4a8": 5.20, "mixpe-w4a16": 2.60, "mixpe-ant": 1.81, "mixpe-bitfusion": 1.45, "mixpe-int8": 1.16}),
    (128, {"mixpe-w4a8": 20.7, "mixpe-w4a16": 5.19, "mixpe-ant": 2.53, "mixpe-bitfusion": 1.47, "mixpe-int8": 1.16}),
])  # fmt: skip
def test_as_published_at_other_rows(rows, expected):
    """What the released simulator gives for OPT-6.7B: how far an array is filled decides."""
    seconds = {
        name: run("opt-6.7b", name, phase="decode", batch=rows, prompt=1, quirks="as-published").latency_s
        for name in ("mixpe-fp16", *expected)
    }
    found = {name: seconds["mixpe-fp16"] / seconds[name] for name in expected}
    assert found == pytest.approx(expected, rel=3e-3)


def test_networks_that_the_released_lists_do_not_have_are_refused():
    with pytest.raises(InputError, match="dense transformers only; accepted here: none"):
        run("mixtral-8x7b", "mixpe-w4a8", Job(phase="prefill", prompt=16, quirks="as-published"))
