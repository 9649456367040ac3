"""Duplex: the PIM's cost, the split of experts and the memory they share, against arithmetic and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwsim.catalogue import load_device
from hwsim.cost import price
from hwsim.engine import estimate, simulate
from hwsim.errors import InputError
from hwsim.job import Job, estimated, run
from hwsim.lowering.batch import decode
from hwsim.op import Experts
from hwsim.placement import duplex, place
from hwsim.placement.capacity import footprint
from hwsim.placement.policy import homes, read_policy
from tests.unit.test_transformer import DEEPSEEK, MIXTRAL

DUPLEX = load_device("duplex")
WEIGHTS = 3 * 4096 * 14336 * 2  # one Mixtral expert in fp16: 352.3 MB


def experts(counts: list[float], **changes) -> Experts:
    fixed = {"hidden": 4096, "inner": 14336.0, "matrices": 3, "weights": "fp16", "activations": "fp16", "stream": "fp16"}
    return Experts(name="e", kind="experts", tokens=64.0, chosen=np.array(counts), counted=True, **fixed | changes)


def seconds(op: Experts, unit: str) -> float:
    return float(price(op, unit, DUPLEX, homes(DUPLEX, unit)).alone_s)


def test_one_expert_of_16_tokens_by_hand():
    # worked example of the facts sheet: 105.1 us on the xPU (memory), 52.9 us on Logic-PIM (compute), 26.3 us of reading
    assert seconds(experts([16.0]), "tensor") == pytest.approx(WEIGHTS / 3.35e12, rel=0.01)
    assert seconds(experts([16.0]), "pim") == pytest.approx(16 * WEIGHTS / 106.5e12, rel=1e-6)
    assert seconds(experts([4.0]), "pim") == pytest.approx(WEIGHTS / 13.408e12, rel=1e-6)


def test_experts_run_one_after_another_on_a_pim():
    # 2 tokens: memory-bound, 26.3 us; 30 tokens: compute-bound, 99.2 us; a grouped GEMM would overlap them: 105.8 us of compute
    both = seconds(experts([2.0, 30.0]), "pim")
    assert both == pytest.approx(WEIGHTS / 13.408e12 + 30 * WEIGHTS / 106.5e12, rel=1e-6)
    assert seconds(experts([2.0, 30.0, 0.0]), "pim") == pytest.approx(both)


def test_break_even_is_at_32_tokens_per_expert():
    # 106.5 TFLOP/s / 3.35 TB/s = 31.8 tokens
    assert seconds(experts([31.0]), "pim") < seconds(experts([31.0]), "tensor")
    assert seconds(experts([33.0]), "pim") > seconds(experts([33.0]), "tensor")


@given(arrays(float, st.integers(1, 7), elements=st.integers(0, 400).map(float)))
@settings(max_examples=60, deadline=None)
def test_the_split_is_the_best_of_all_splits_in_ascending_order(counts):
    op = experts(list(counts))
    on_pim = duplex._split(op, DUPLEX, "tensor", "pim", spaces=99)

    def longest(mask) -> float:
        parts = [seconds(experts(list(np.where(side, counts, 0.0))), unit) for unit, side in (("tensor", ~mask), ("pim", mask))]
        return max(parts)

    # sums per expert, as the paper adds them; the grouped GEMM of the xPU is never slower than that
    def summed(mask) -> float:
        return max(
            sum(seconds(experts([n]), unit) for n in counts[side] if n)
            for unit, side in (("tensor", ~mask), ("pim", mask))
        )  # fmt: skip

    order = np.argsort(counts, kind="stable")
    prefixes = [np.isin(np.arange(len(counts)), order[:k]) for k in range(len(counts) + 1)]
    assert summed(on_pim) == pytest.approx(min(summed(mask) for mask in prefixes), rel=1e-9)
    assert longest(on_pim) <= summed(on_pim) * (1 + 1e-9)


def test_ascending_order_is_never_far_from_brute_force():
    rng = np.random.default_rng(1)
    for _ in range(20):
        counts = rng.binomial(64, 0.25, size=6).astype(float)
        op = experts(list(counts))
        times = {unit: [seconds(experts([n]), unit) if n else 0.0 for n in counts] for unit in ("tensor", "pim")}

        def longest(mask, times=times) -> float:
            return max(
                sum(t for t, m in zip(times["tensor"], mask, strict=True) if not m),
                sum(t for t, m in zip(times["pim"], mask, strict=True) if m),
            )

        best = min(longest(mask) for mask in itertools.product([False, True], repeat=6))
        assert longest(duplex._split(op, DUPLEX, "tensor", "pim", 99)) <= best * 1.3


def test_draws_are_split_one_by_one():
    rng = np.random.default_rng(0)
    counts = rng.binomial(64, 0.25, size=(8, 5)).astype(float)
    together = duplex._split(experts(list(counts)), DUPLEX, "tensor", "pim", 4)
    for draw in range(5):
        alone = duplex._split(experts(list(counts[:, draw])), DUPLEX, "tensor", "pim", 4)
        assert np.array_equal(together[:, draw], alone)


def test_experts_of_one_space_stay_together():
    counts = [1.0, 400.0, 1.0, 400.0, 1.0, 400.0, 1.0, 400.0]
    by_space = duplex._split(experts(counts), DUPLEX, "tensor", "pim", 4)
    assert all(by_space[2 * space] == by_space[2 * space + 1] for space in range(4))
    assert duplex._split(experts(counts), DUPLEX, "tensor", "pim", 99).tolist() == [n == 1.0 for n in counts]


def latency(policy: str, sequences: tuple[tuple[int, int], ...]) -> float:
    return run(MIXTRAL, "4x-duplex", Job(phase="mixed", sequences=sequences, policy=policy, parallel="tp=4", seed=3)).latency_s


def test_each_part_of_co_processing_helps_where_it_can_and_a_bad_allocation_undoes_it():
    decoding, mixed = ((1, 4096),) * 64, ((2048, 0), *((1, 4096),) * 63)
    assert latency("duplex.pe-experts", decoding) < 0.95 * latency("duplex.faster", decoding)
    assert latency("duplex.pe-attention", decoding) == pytest.approx(latency("duplex.faster", decoding))
    assert latency("duplex.pe-attention", mixed) < latency("duplex.faster", mixed)
    assert latency("duplex.pe", mixed) <= latency("duplex.pe-attention", mixed) * (1 + 1e-9)
    assert latency("duplex.pe:allocation=striped", decoding) == pytest.approx(latency("duplex.faster", decoding), rel=1e-3)
    assert latency("duplex.pe:kv=striped", mixed) == pytest.approx(latency("duplex.pe-experts", mixed))
    assert latency("duplex.pe:allocation=free", decoding) <= latency("duplex.pe", decoding) * (1 + 1e-9)


def test_without_co_processing_one_unit_works_at_a_time():
    trace = run(MIXTRAL, "4x-duplex", Job(phase="mixed", sequences=((512, 0), *[(1, 4096)] * 63)))
    busy = sorted((row.start_s, row.end_s) for row in trace.rows if row.unit in ("tensor", "pim"))
    assert all(start >= end - 1e-12 for (_, end), (start, _) in itertools.pairwise(busy))


def test_mapping_of_section_iv():
    for arch, both in (("4x-duplex", {"tensor"}), ("4x-duplex-pe", {"tensor"}), ("2x-hetero", {"pim"})):
        trace = run(MIXTRAL, arch, Job(phase="mixed", sequences=((2048, 0), *[(1, 1024)] * 31), weights="fp16"))
        where: dict[str, set[str]] = {}
        for row in trace.rows:
            where.setdefault(row.kind, set()).add(row.unit)
        assert all(where[kind] == {"tensor"} for kind in ("qkv", "out", "head", "router", "attention.prefill"))
        assert where["attention.decode"] == {"pim"}
        assert where["experts"] == both  # 520 tokens an expert: the xPU is faster


def test_shared_experts_wait_for_routed_ones_without_co_processing():
    trace = run(DEEPSEEK, "16x-duplex", Job(phase="decode", batch=32, prompt=64, weights="fp8", parallel="tp=16"))
    busy = sorted((row.start_s, row.end_s) for row in trace.rows if row.unit in ("tensor", "pim"))
    assert {row.unit for row in trace.rows if row.kind == "experts"} == {"pim"}
    assert all(start >= end - 1e-12 for (_, end), (start, _) in itertools.pairwise(busy))


@pytest.mark.parametrize("policy", ["duplex.faster", "duplex.pe", "duplex.hetero", "fastest", "op-b"])
@pytest.mark.parametrize("path", ["memories.bundles.bandwidth", "units.pim.peak.fp16", "units.tensor.peak.bf16"])
@pytest.mark.parametrize("points", [3, 8])  # eight is also the number of experts
def test_design_points_are_priced_as_each_alone(policy, path, points):
    device, values = load_device("4x-duplex"), np.geomspace(2e12, 5e14, points)

    def latency(value) -> object:
        return estimated(
            MIXTRAL, device.with_values({path: value}), decode(64, 2048), Job(policy=policy, parallel="tp=4")
        ).latency_s

    assert latency(values) == pytest.approx([latency(float(value)) for value in values], rel=1e-12)


def test_a_device_without_a_pim_is_refused():
    with pytest.raises(InputError, match="no PIM"):
        run(MIXTRAL, "4x-h100-ideal", Job(phase="decode", policy="duplex.pe"))


def test_a_view_of_a_view_is_refused():
    twice = {**DUPLEX.memories, "again": DUPLEX.memories["bundles"].model_copy(update={"view_of": "bundles"})}
    with pytest.raises(ValueError, match="is a view itself"):
        type(DUPLEX)(**{**{name: getattr(DUPLEX, name) for name in type(DUPLEX).model_fields}, "memories": twice})


def test_both_paths_fill_one_memory():
    rows = place([experts([5.0, 90.0])], DUPLEX, duplex.pe())
    assert {row.unit for row in rows} == {"tensor", "pim"}
    (held,) = footprint(rows, DUPLEX).values()
    assert held["weights"] == 2 * WEIGHTS


def test_energy_follows_the_path():
    on_xpu, on_pim = (price(experts([4.0]), unit, DUPLEX, homes(DUPLEX, unit)) for unit in ("tensor", "pim"))
    assert on_xpu.joules["hbm"] == pytest.approx((WEIGHTS + 4 * 2 * (2 * 4096 + 4 * 14336)) * 8 * 3.59e-12)
    assert on_pim.joules["bundles"] == pytest.approx(WEIGHTS * 8 * 1.92e-12)
    assert on_pim.joules["pim"] == pytest.approx(2 * 4 * WEIGHTS / 2 * 0.23e-12)


def test_two_roads_agree_on_a_drawn_stage():
    device = load_device("4x-duplex-pe-et")
    rows = [task.row for task in estimated(MIXTRAL, device, decode(32, 2048), Job(seed=5)).tasks]
    # the units share the external path for activations only
    assert simulate(rows, device).latency_s == pytest.approx(float(estimate(rows, device).latency_s), rel=0.01)


def test_many_draws_at_once_are_the_draws():
    every = estimated(MIXTRAL, "4x-duplex-pe-et", decode(32, 2048), Job(seed=5), draws=200).latency_s
    layers = [estimated(MIXTRAL, "4x-duplex-pe-et", decode(32, 2048), Job(seed=seed)).latency_s for seed in range(6)]
    assert np.shape(every) == (200,)
    assert np.mean(every) == pytest.approx(np.mean(layers), rel=0.01)


@pytest.mark.parametrize(
    "text", ["duplex.pe:allocation=round", "duplex.pe:kv=x", "duplex.pe:spaces=4", "duplex.nothing", "duplex.faster:x=1"]
)
def test_policies_that_are_refused(text):
    with pytest.raises(InputError, match="accepted"):
        read_policy(text)


def test_the_policy_with_expert_tensor_parallelism_brings_its_plan():
    job = {"phase": "decode", "batch": 32, "prompt": 512, "seed": 1}
    one = run("mixtral-8x7b", "4x-duplex", policy="duplex.pe-et", **job)
    two = run("mixtral-8x7b", "4x-duplex", policy="duplex.pe", parallel="et", **job)
    assert one.latency_s == two.latency_s == run("mixtral-8x7b", "4x-duplex-pe-et", **job).latency_s
    assert one.latency_s != run("mixtral-8x7b", "4x-duplex", policy="duplex.pe-et", parallel="ep", **job).latency_s
