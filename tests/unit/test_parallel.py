"""Parallelism: work is divided without loss, collectives carry what the algorithms say, on the link that reaches."""

from __future__ import annotations

import pytest

from hwsim.catalogue import load_device
from hwsim.cost.chips import chip_of
from hwsim.device import Device, Link
from hwsim.engine import estimate, simulate
from hwsim.errors import CapacityError, InputError
from hwsim.job import run
from hwsim.kernels.collective import collective
from hwsim.lowering.batch import decode, prefill
from hwsim.lowering.moe import Routing
from hwsim.lowering.transformer import lower
from hwsim.op import Experts, Move, Op
from hwsim.placement import Plan, parallelize, place
from hwsim.placement.parallel import default_plan, read_plan
from tests.unit.test_transformer import DEEPSEEK, DENSE, MIXTRAL


def system(count: int) -> Device:
    one = load_device("h100-ideal").model_copy(update={"count": count})
    links = {
        "near": Link(bandwidth=450e9, latency=3e-6, reach=8, memory="hbm"),
        "far": Link(bandwidth=50e9, latency=1e-6, reach=1024, memory="hbm"),
    }
    return one.model_copy(update={"links": links})


def moves(ops: list[Op]) -> list[Move]:
    return [op for op in ops if isinstance(op, Move)]


def work(ops: list[Op], kinds: tuple[str, ...]) -> float:
    return sum(float(op.ops) * op.repeat for op in ops if op.kind in kinds)


MATMULS = ("qkv", "out", "ffn", "head", "attention.decode", "attention.prefill")


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_tensor_parallel_divides_all_matrix_work(tp):
    ops = lower(DENSE, decode(8, 1000))
    parts = parallelize(ops, Plan(tp=tp), system(tp))
    assert work(parts, MATMULS) * tp == pytest.approx(work(ops, MATMULS))
    held = sum(op.resident.get("weights", 0) * op.repeat for op in parts) * tp
    assert held == pytest.approx(sum(op.resident.get("weights", 0) * op.repeat for op in ops))


def test_two_all_reduces_a_layer_with_ring_traffic():
    parts = parallelize(lower(DENSE, decode(8, 1000)), Plan(tp=4), system(4))
    reduces = [move for move in moves(parts) if move.kind == "all_reduce"]
    assert len(reduces) == 2
    for move in reduces:
        assert move.repeat == 32
        assert move.hops == 6
        assert move.sent == pytest.approx(2 * 3 / 4 * 8 * 4096 * 2)


def test_all_reduce_time_by_hand():
    device = system(4)
    rows = place(parallelize(lower(DENSE, decode(8, 1000)), Plan(tp=4), device), device)
    one = next(row for row in simulate(rows, device).rows if row.kind == "all_reduce")
    assert one.unit == "near"
    assert one.seconds == pytest.approx(32 * (6 * 3e-6 + 2 * 3 / 4 * 8 * 4096 * 2 / 450e9))


def test_a_group_wider_than_a_node_reduces_in_three_steps():
    # 16 devices, nodes of 8: scatter inside, ring of two nodes with an eighth of the bytes, gather inside
    parts = parallelize(lower(DENSE, decode(8, 1000)), Plan(tp=16), system(16))
    size = 8 * 4096 * 2
    steps = [(m.kind, m.hops, float(m.sent), m.span) for m in moves(parts) if m.name.startswith("dense.out.")]
    assert steps == [("reduce_scatter", 7, size * 7 / 8, 8), ("all_reduce", 2, size / 8, 16), ("all_gather", 7, size * 7 / 8, 8)]


def test_more_devices_than_kv_heads_copy_the_cache():
    eight = parallelize(lower(DENSE, decode(1, 1000)), Plan(tp=8), system(8))
    sixteen = parallelize(lower(DENSE, decode(1, 1000)), Plan(tp=16), system(16))

    def cache(ops: list[Op]) -> float:
        return sum(float(op.resident.get("kv", 0.0)) for op in ops)

    assert cache(eight) == cache(sixteen) == 1001 * 2 * 128 * 2


def test_expert_parallelism_divides_experts_and_exchanges_tokens_between_replicas():
    device = system(8)
    ops = parallelize(lower(DEEPSEEK, decode(16, 1000)), Plan(dp=8, ep=8), device)
    part = next(op for op in ops if isinstance(op, Experts))
    assert part.experts == 32
    assert float(part.pairs) == pytest.approx(16 * 8 * 8 / 8)  # tokens of all replicas, top-8, an eighth of the experts
    there, back = (m for m in moves(ops) if m.kind == "all_to_all")
    assert there.sent == back.sent == pytest.approx(16 * 8 * 7168 * 2 * 7 / 8)


def test_expert_parallelism_inside_a_tensor_group_needs_no_dispatch():
    ops = parallelize(lower(MIXTRAL, decode(16, 1000)), Plan(tp=4, ep=4), system(4))
    assert {m.kind for m in moves(ops)} == {"all_reduce", "all_gather"}
    part = next(op for op in ops if isinstance(op, Experts))
    assert part.experts == 2
    assert part.inner == 14336


def test_pipeline_takes_as_long_as_one_device_plus_the_sends():
    one, two = system(1), system(2)
    alone = simulate(place(parallelize(lower(DENSE, decode(4, 1000)), Plan(), one), one), one)
    piped = simulate(place(parallelize(lower(DENSE, decode(4, 1000)), Plan(pp=2), two), two), two)
    send = 3e-6 + 4 * 4096 * 2 / 450e9
    assert piped.latency_s == pytest.approx(alone.latency_s + send)
    assert piped.sum("op", by="kind")["ffn"] == pytest.approx(alone.sum("op", by="kind")["ffn"])


def test_microbatches_overlap_in_the_pipeline():
    device = system(2)
    rows = place(parallelize(lower(DENSE, decode(4, 1000)), Plan(pp=2, microbatches=4), device), device)
    trace = simulate(rows, device)
    slowest = max(trace.sum("seconds", by="stage").values()) / 4
    # GPipe: (microbatches + stages - 1) times the slowest stage, sends included in it
    assert trace.latency_s <= 5 * slowest * 1.02
    assert trace.latency_s == pytest.approx(float(estimate(rows, device).latency_s), rel=1e-9)


def test_stages_share_layers_evenly_and_weights_fit_where_one_device_is_too_small():
    with pytest.raises(CapacityError, match="hbm"):
        run(MIXTRAL, system(1), phase="decode", batch=1, prompt=100)
    assert run(MIXTRAL, system(2), phase="decode", batch=1, prompt=100, parallel="pp=2").latency_s > 0


def test_data_parallel_replicas_split_the_batch():
    one = run(DENSE, system(1), phase="decode", batch=4, prompt=1000)
    two = run(DENSE, system(2), phase="decode", batch=8, prompt=1000, parallel="dp=2")
    assert two.latency_s == pytest.approx(one.latency_s)
    assert two.tokens_per_s == pytest.approx(2 * one.tokens_per_s)
    assert two.energy_j == pytest.approx(2 * one.energy_j)


def test_default_plan_stays_inside_a_node():
    assert default_plan(system(4)) == Plan(tp=4)
    assert default_plan(system(16)) == Plan(tp=8, pp=2)
    assert default_plan(system(1)) == Plan()


@pytest.mark.parametrize("text", ["tp=3", "tp=0", "tp", "tp=4,xx=2", "tp=4,ep=3", "dp=2,tp=4", "tp=-1", "pp=4,ep=9"])
def test_plans_that_are_refused(text):
    device = system(4)
    with pytest.raises(InputError, match="parallel"):
        parallelize(lower(MIXTRAL, decode(4, 10)), read_plan(text, device, 8), device)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(InputError, match="32 attention heads"):
        parallelize(lower(DENSE, prefill(1, 10)), Plan(tp=6), system(6))


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(InputError, match="batch: 3"):
        run(DENSE, system(2), phase="decode", batch=3, prompt=10, parallel="dp=2")


def test_no_link_reaches():
    far = system(4).model_copy(update={"links": {"near": Link(bandwidth=1e9, latency=0.0, reach=2, memory="hbm")}})
    with pytest.raises(InputError, match="4 devices are not joined"):
        run(DENSE, far, phase="decode", parallel="tp=4")


def test_a_collective_waits_for_the_most_loaded_rank_and_nothing_is_counted_twice():
    device = system(4)
    skewed = Routing("zipf", 1.2)
    whole = simulate(place(parallelize(lower(MIXTRAL, decode(16, 1000), routing=skewed), Plan(tp=4), device), device), device)
    dealt = simulate(
        place(parallelize(lower(MIXTRAL, decode(16, 1000), routing=skewed), Plan(tp=4, ep=4), device), device), device
    )
    assert dealt.sum("op", by="kind")["experts"] == pytest.approx(whole.sum("op", by="kind")["experts"])
    assert dealt.sum("bytes", by="operand")["weights"] == pytest.approx(whole.sum("bytes", by="operand")["weights"])
    ranks = [row for row in dealt.rows if row.kind == "experts"]
    assert len(ranks) == 4
    after = next(row for row in dealt.rows if row.name.endswith("experts.all_reduce"))
    assert after.start_s == max(row.end_s for row in ranks)
    assert dealt.sum("seconds", by="kind")["experts"] == pytest.approx(sum(row.seconds for row in ranks) / 4)
    assert all(0 <= value <= 1 for value in dealt.utilisation().values())


def test_tokens_reach_every_device_that_has_a_part_of_their_expert():
    device = system(4)

    def sent(ep: int) -> float:
        ops = parallelize(lower(MIXTRAL, decode(16, 100)), Plan(dp=4, ep=ep), device)
        return float(next(m for m in moves(ops) if m.name.endswith("dispatch")).sent)

    assert sent(4) == pytest.approx(16 * 2 * 4096 * 2 * 3 / 4)  # tokens, top-2, fp16, three of four devices are elsewhere
    assert sent(2) == pytest.approx(2 * sent(4))  # each expert is on two devices


def test_all_to_all_across_nodes_uses_both_links():
    ops = parallelize(lower(DEEPSEEK, decode(4, 100)), Plan(dp=16, ep=16), system(16))
    near, far = (m for m in moves(ops) if ".dispatch" in m.name)
    payload = 4 * 8 * 7168 * 2
    assert (near.span, float(near.sent)) == (8, pytest.approx(payload * 7 / 16))
    assert (far.span, float(far.sent)) == (16, pytest.approx(payload * 8 / 16))
    experts = next(op for op in ops if isinstance(op, Experts))
    assert set(experts.after) == {near.name, far.name}


def test_embedding_is_divided_by_columns_and_gathered():
    ops = parallelize(lower(DENSE, prefill(1, 64)), Plan(tp=8), system(8))
    lookup = next(op for op in ops if op.kind == "embedding")
    assert lookup.bytes["activations"] == 64 * 4096 / 8 * 2
    assert lookup.resident["weights"] == 32000 * 4096 / 8 * 2


def test_more_devices_than_kv_heads_copy_their_projection_too():
    ops = parallelize(lower(DENSE, decode(1, 10)), Plan(tp=16), system(16))  # 8 KV heads: two devices have the same one
    qkv = next(op for op in ops if op.kind == "qkv")
    assert qkv.n == 4096 / 16 + 2 * 128
    one = next(op for op in parallelize(lower(DENSE, decode(1, 10)), Plan(tp=8), system(8)) if op.kind == "qkv")
    assert one.n == 4096 / 8 + 2 * 128


def test_collectives_draw_energy_of_the_memories_at_both_ends():
    device = system(4)
    trace = simulate(place(parallelize(lower(DENSE, decode(4, 10)), Plan(tp=4), device), device), device)
    row = next(row for row in trace.rows if row.kind == "all_reduce")
    assert row.joules["hbm"] == pytest.approx(row.bytes["hbm"] * float(device.memories["hbm"].energy))


def test_collectives_between_neighbours_are_the_measured_ones_and_far_ones_the_links():
    fits = next(
        one for one in load_device("h100").kernels["collective"] if one.stacks == ("any",) and "all_reduce" in one.formats
    )
    chip = chip_of(load_device("h100"), "bf16")
    for arch, method in (("8x-h100", "link collective"), ("8x-h100-ideal", "link")):
        trace = run("llama-3.1-8b", arch, phase="decode", batch=16, parallel="tp=8")
        row = next(row for row in trace.rows if row.kind == "all_reduce")
        assert row.method == method
        if method == "link collective":
            one = collective(name="all_reduce", bytes=16 * 4096 * 2.0, devices=8.0, chip=chip, p=fits.parameters)
            assert row.seconds / row.repeat == pytest.approx(one, rel=1e-9)
    far = run("llama-3.1-70b", "16x-h100", phase="decode", batch=16, parallel="tp=16")
    methods = {row.name.rsplit(".", 1)[-1]: row.method for row in far.rows if row.moves and ".out." in row.name}
    assert methods == {"reduce_scatter": "link collective", "all_reduce": "link", "all_gather": "link collective"}


def test_a_stack_picks_its_kernels_and_an_unknown_one_is_refused():
    latency = {s: run("llama-3.1-8b", "h200", phase="decode", batch=32, stack=s).latency_s for s in (None, "vllm", "sglang")}
    assert len(set(latency.values())) == 3
    same = [run("llama-3.1-8b", "h200-ideal", phase="decode", stack=stack).latency_s for stack in (None, "vllm")]
    assert same[0] == same[1]  # a roofline has no software
    with pytest.raises(InputError, match="sglang"):
        run("llama-3.1-8b", "h200", phase="decode", stack="decode")
