"""What serving stacks do in one kernel although it is several ops: no launch, no collective and no pass of its own."""

from __future__ import annotations

import pytest

from hwsim.catalogue import load_device, load_model
from hwsim.cost import price
from hwsim.cost.chips import chip_of
from hwsim.host import launches
from hwsim.kernels.gemm import gemm
from hwsim.kernels.sets import choose
from hwsim.lowering.batch import decode
from hwsim.lowering.transformer import lower
from hwsim.op import Gemm, Move
from hwsim.placement import Plan, parallelize
from hwsim.placement.policy import homes

DEEPSEEK = load_model("deepseek-v3")


def ops_of(plan: Plan, device: str):
    return parallelize(lower(DEEPSEEK, decode(16, 1000)), plan, load_device(device))


def reductions(ops) -> list[str]:
    return [op.name for op in ops if isinstance(op, Move) and op.kind == "all_reduce" and op.name.startswith("moe.")]


def test_a_shared_experts_sums_are_reduced_with_those_of_the_experts():
    ops = ops_of(Plan(tp=8), "8x-h200")
    assert reductions(ops) == ["moe.out.all_reduce", "moe.experts.all_reduce"]
    reduced = next(op for op in ops if op.name == "moe.experts.all_reduce")
    assert set(reduced.after) == {"moe.experts", "moe.shared.down"}


def test_it_is_reduced_alone_where_tokens_travel_to_the_experts():
    assert reductions(ops_of(Plan(tp=8, dp=2, ep=16), "16x-h200")) == ["moe.out.all_reduce", "moe.shared.down.all_reduce"]


def test_projections_down_of_latent_attention_are_one_product():
    """Queries go down to 1,536, keys and values to 512 and a rotary key of 64."""
    down = next(op for op in lower(DEEPSEEK, decode(16, 1000)) if op.name == "moe.down")
    assert isinstance(down, Gemm)
    assert (down.n, down.k) == (1536 + 512 + 64, 7168)


def test_residual_adds_are_not_launched():
    device = load_device("h200")
    ops = {op.name: op for op in lower(load_model("llama-3.1-8b"), decode(4, 1000))}
    add, norm = (price(ops[name], "vector", device, homes(device, "vector")) for name in ("dense.add1", "dense.norm2"))
    assert (add.fixed_s, norm.fixed_s) == (0.0, 3e-6)
    assert (ops["dense.add1"].launches, ops["dense.norm2"].launches) == (0, 1)


@pytest.mark.parametrize(("weights", "passes"), [("fp8", 0), ("fp8_block", 1)])
def test_quantised_layers_are_launched_like_plain_ones(weights, passes):
    """Static scales: one launch and no pass. Block scales: at most two, and the pass as it was measured."""
    device = load_device("h200").with_stack("trtllm")
    op = Gemm(name="up", kind="ffn", m=16.0, n=4096.0, k=8192.0, weights=weights, activations=weights)
    found = price(op, "tensor", device, homes(device, "tensor")).alone_s
    own, plain = (choose(device.kernels["gemm"], "trtllm", name).parameters for name in (weights, "bf16"))
    launch = min(own["launch"], (1 + passes) * plain["launch"])
    shape = {"m": 16.0, "n": 4096.0, "k": 8192.0, "a_bytes": 1.0, "w_bytes": 1.0, "o_bytes": 2.0}
    scaled = {"scaled": 128.0} if passes else {}
    kept = {} if passes else {"passes": 0.0, "row": 0.0}
    expected = gemm(**shape, **scaled, copies=float("inf"), chip=chip_of(device, "fp8"), p={**own, **kept, "launch": launch})
    assert found == pytest.approx(float(expected), rel=2e-2)  # scales of blocks weigh a little
    assert launch < own["launch"] or passes


def test_kernels_of_a_layer_are_counted():
    """Llama: 2 norms, 4 products, activation, rotation, attention and cache; 32 layers, look-up, last norm and logits."""
    assert launches(lower(load_model("llama-3.1-8b"), decode(4, 1000))) == 32 * 10 + 3
