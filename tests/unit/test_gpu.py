"""Networks on measured GPUs: what the kernel models are asked, and what no kernel may do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwsim.catalogue import load_device, load_model, names
from hwsim.cost.gpu import _in_a_graph, called
from hwsim.job import Job, estimated, run
from hwsim.lowering.batch import decode, prefill
from hwsim.lowering.transformer import lower
from hwsim.op import AttentionOp, Experts, Gemm

GPUS = [name for name in names("arch") if any(unit.cost == "gpu" for unit in load_device(name).units.values())]


def roomy(name: str):
    device = load_device(name)
    return device.with_values({f"memories.{memory}.capacity": 1e15 for memory, part in device.memories.items() if part.capacity})


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize(
    ("model", "job"),
    [
        ("llama-3.1-8b", {"phase": "mixed", "sequences": ((8192, 0), *[(2, 0)] * 40)}),
        ("llama-3.1-8b", {"phase": "mixed", "sequences": ((2048, 6000), (1, 30000), *[(1, 10)] * 30)}),
        ("deepseek-v2-lite", {"phase": "mixed", "sequences": ((8192, 0), *[(2, 0)] * 40)}),
        ("bert-base", {"phase": "prefill", "batch": 32, "prompt": 512}),
        ("qwen3-30b-a3b", {"phase": "decode", "batch": 64}),
    ],
)
def test_nothing_beats_the_datasheet(gpu, model, job):
    """Operations at the peak of the datasheet, row by row."""
    device = roomy(gpu)
    for row in run(model, device, **job).rows:
        unit = device.units.get(row.unit)
        precision = unit.precision_for(row.precision) if unit and row.precision else None
        if precision and unit.cost == "gpu":
            assert row.seconds >= row.op / unit.peak[precision] * (1 - 1e-9)


@pytest.mark.parametrize("gpu", ["h100", "a100", "b200"])
@pytest.mark.parametrize("model", ["llama-3.1-8b", "deepseek-v2-lite"])
def test_a_batch_with_more_sequences_takes_no_less(gpu, model):
    device = roomy(gpu)
    one = run(model, device, phase="mixed", sequences=((16384, 0),)).latency_s
    more = run(model, device, phase="mixed", sequences=((16384, 0), *[(2, 0)] * 63)).latency_s
    assert one <= more < 1.2 * one


def test_an_encoder_does_the_work_of_a_causal_one_of_twice_the_length_and_half_the_batch():
    op = next(op for op in lower(load_model("bert-base"), prefill(64, 512)) if isinstance(op, AttentionOp))
    (call,) = called(op)
    batch, new, seen = (call.arguments[name] for name in ("batch", "q_len", "kv_len"))
    assert new == seen == 2 * 512 - 1  # 1023 x 1024 / 2 causal pairs: two sequences of 512
    assert batch * new == pytest.approx(64 * 512)
    assert batch * new * (new + 1) / 2 == pytest.approx(64 * 512 * 512) == pytest.approx(op.pairs)


def test_scales_of_blocks_add_no_step_to_the_main_loop():
    op = Gemm(name="g", kind="g", m=16.0, n=4096.0, k=4096.0, weights="fp8_block", activations="fp8")
    (call,) = called(op)
    assert (call.arguments["w_bytes"], call.arguments["scaled"]) == (1.0, 128.0)


def test_latent_attention_is_asked_for_with_the_widths_of_its_network():
    model = load_model("deepseek-v2-lite")
    own = {"latent": 512.0, "rope": 64.0}
    for batch, rest in ((prefill(2, 300), {"nope": 128.0, "value": 128.0}), (decode(2, 300), {})):
        op = next(op for op in lower(model, batch) if isinstance(op, AttentionOp))
        (call,) = called(op)
        assert {name: call.arguments[name] for name in own | rest} == own | rest
    narrow = replace(op, latent=256, rope=32, qk_dim=288, v_dim=256)
    assert {name: called(narrow)[0].arguments[name] for name in own} == {"latent": 256.0, "rope": 32.0}


@pytest.mark.parametrize("gpu", ["h100", "b200", "a100"])
def test_an_array_that_holds_prompts_of_one_token_is_its_scalars(gpu):
    lengths = np.array([1.0, 100.0, 3000.0])
    many = estimated("llama-3.1-8b", gpu, prefill(2, lengths)).latency_s
    assert many == pytest.approx([float(estimated("llama-3.1-8b", gpu, prefill(2, n)).latency_s) for n in lengths], rel=1e-9)


@pytest.mark.parametrize("model", ["qwen3-30b-a3b", "llama-3.1-8b"])
def test_smaller_weights_do_not_speed_up_the_same_arithmetic(model):
    """Prefill is bound by arithmetic: weights that are widened to 16 bits save bytes, not time."""
    device = roomy("h100")
    latency = {
        weights: run(model, device, phase="prefill", batch=4, prompt=2048, weights=weights, activations="bf16").latency_s
        for weights in ("bf16", "fp8", "int8", "int4_g128")
    }
    assert all(0.9 * latency["bf16"] < one < 2 * latency["bf16"] for one in latency.values())


def test_a_format_that_was_not_measured_says_whose_numbers_it_takes():
    methods = {row.method for row in run("llama-3.1-8b", "h100", Job(weights="int8", activations="int8"), phase="prefill").rows}
    assert "kernel gemm as fp8" in methods


@pytest.mark.parametrize("tokens", [4.0, 100.0, 512.0, 10_000.0])
def test_tokens_scatter_over_experts_as_chance_has_it(tokens):
    """Two of eight experts each: binomial with p = 1/4; given any, the mean is E / hit."""
    experts = next(op for op in lower(load_model("mixtral-8x7b"), prefill(1, tokens)) if isinstance(op, Experts))
    (call,) = called(experts)
    load, count = call.arguments["load"], call.arguments["count"]
    assert count.sum() == pytest.approx(8 * (1 - 0.75**tokens))
    assert (load * count).sum() == pytest.approx(2 * tokens)
    assert load.min() >= 1
    if tokens > 50:
        assert np.average((load - tokens / 4) ** 2, weights=count) == pytest.approx(tokens * 3 / 16, rel=0.01)


def test_experts_do_not_cross_the_edge_of_a_tile_together():
    """128 tokens of each expert fill a tile: one more must not double the work."""
    seconds = [run("mixtral-8x7b", "2x-h20", phase="prefill", prompt=n).latency_s for n in (512, 513)]
    assert seconds[0] < seconds[1] < 1.05 * seconds[0]


def test_counted_experts_keep_their_counts():
    experts = Experts(
        name="e",
        kind="experts",
        tokens=10.0,
        hidden=64,
        inner=64.0,
        matrices=3,
        chosen=np.array([10.0, 6.0, 4.0, 0.0]),
        counted=True,
    )
    (call,) = called(experts)
    assert sorted((call.arguments["load"] * call.arguments["count"]).tolist()) == [0.0, 4.0, 6.0, 10.0]


def test_a_generation_may_take_the_kernels_of_another_and_says_why():
    ada, rtx = (load_device(name).kernels["gemm"] for name in ("rtx-4090", "rtx-pro-6000"))
    assert [one.parameters for one in ada] == [one.parameters for one in rtx]
    assert all(one.fitted.startswith("not fitted on Ada") for one in ada)


def test_a_set_that_stands_for_two_formats_is_launched_as_each_of_them():
    """Where block scales have no set of their own they take fp8's, with a pass of their own, whichever was asked first."""
    device = load_device("h200").with_stack("trtllm")
    own = next(one for one in device.kernels["gemm"] if "fp8" in one.formats and "trtllm" in one.stacks)
    first, second = (_in_a_graph(own, launches, device).parameters for launches in (1, 2))
    assert first["passes"] == 0.0 < second["passes"]
    assert first["launch"] < second["launch"]
