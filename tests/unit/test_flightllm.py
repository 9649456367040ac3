"""FlightLLM's cores by hand: instruction times by the rules of the shipped simulator, resources by section 5.3 of the paper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwsim.catalogue import load_device, load_model
from hwsim.cost import price
from hwsim.cost.resources import resources, sized
from hwsim.cost.streams import Stage, Stream
from hwsim.engine import estimate, simulate
from hwsim.errors import CapacityError, InputError, PlacementError
from hwsim.job import Context, Job, run
from hwsim.lowering.batch import decode, prefill
from hwsim.op import Elementwise, Gemm
from hwsim.placement.flightllm import fused
from hwsim.placement.policy import homes

RATE = 225e6 * 4 * 0.8  # cycles/s of all cores
MAIN, CHANNEL, CROSS = (879.609e9 / 32 * 4 * 0.8 * part for part in (8 * 0.7, 0.7, 0.35))


@pytest.fixture(scope="module")
def vhk158():
    return load_device("vhk158")


def gemm(**changes) -> Gemm:
    fields = {"name": "g", "kind": "ffn", "m": 1.0, "n": 512.0, "k": 4096.0, "weights": "int4", "activations": "int8"}
    return Gemm(**(fields | changes))


def cost(op, device):
    unit = "mpe" if op.math == "matmul" else "sfu"
    return price(op, unit, device, homes(device, unit))


def test_a_pipeline_by_hand():
    """Three loads of 2 s feed multiplications of 3 s, two thirds of which are hidden: 2 + 3 x 3 + 1 + a barrier of 0.5."""
    slow_second = Stage((Stream("ld", 2.0, 3.0), Stream("mv", 3.0, 3.0, after=0), Stream("misc", 1.0, 3.0, after=1)), sync_s=0.5)
    slow_first = Stage((Stream("ld", 4.0, 3.0, lead_s=1.0), Stream("mv", 3.0, 3.0, after=0)))
    assert slow_second.seconds == 12.5
    assert slow_first.seconds == 1 + 3 * 4 + 3


def test_a_stream_behind_several_beats_by_hand():
    """A softmax of 5 s behind every second of four products of 1 s: it starts at 2 and is the bottleneck."""
    assert Stage((Stream("mv", 1.0, 4.0), Stream("misc", 5.0, 2.0, after=0))).seconds == 2 + 2 * 5


def test_mv_of_one_group_of_columns(vhk158):
    """4,096 deep is two instructions; vector, first tile, two multiplications, store, one cycle of barrier."""
    tile = 512 * 2048 / 2 / MAIN
    multiply = 512 * 2048 / 1024 / RATE
    assert multiply > tile
    by_hand = 4096 / CROSS + tile + 2 * multiply + 512 / CHANNEL + 1 / RATE
    assert float(cost(gemm(), vhk158).alone_s) == pytest.approx(by_hand, rel=1e-5)


def test_mm_of_one_block_of_rows(vhk158):
    """128 rows x 4,096 x 512: rows, first weights, 32 groups of 16 columns of 2,048 cycles, last store, barrier."""
    by_hand = 128 * 4096 / MAIN + 16 * 4096 / 2 / CROSS + 32 * 2048 / RATE + 128 * 16 / MAIN + 1 / RATE
    assert float(cost(gemm(m=128.0), vhk158).alone_s) == pytest.approx(by_hand, rel=1e-5)
    assert cost(gemm(m=100.0), vhk158).lanes["mm"] == cost(gemm(m=128.0), vhk158).lanes["mm"]


def test_a_last_short_tile_leaves_a_load_uncovered(vhk158):
    """11,008 deep is 688 blocks in three tiles of 229 and one of 1, behind which the next 229 do not load."""
    waits = 229 * 16 * 16 / 2 / CROSS - 8 / RATE
    per_group = 688 * 8 / RATE + waits
    by_hand = 128 * 11008 / MAIN + 16 * 11008 / 3 / 2 / CROSS + 100 * per_group + 128 * 16 / MAIN + 1 / RATE
    assert float(cost(gemm(m=128.0, n=1600.0, k=11008.0), vhk158).alone_s) == pytest.approx(
        by_hand, rel=3e-4
    )  # tiles of 229.3 blocks


def test_few_rows_are_vectors_and_many_are_blocks(vhk158):
    seconds = [float(cost(gemm(m=float(m)), vhk158).alone_s) for m in (1, 2, 16, 29, 33, 64, 128)]
    assert seconds == sorted(seconds)
    assert seconds[4] == pytest.approx(seconds[6], rel=0.02)
    assert {*cost(gemm(m=29.0), vhk158).lanes} == {"ld", "mv", "misc", "st", "fetch"}
    assert {*cost(gemm(m=33.0), vhk158).lanes} == {"ld", "mm", "misc", "st", "fetch"}


def test_many_shapes_at_once_are_each_alone(vhk158):
    rows = np.array([1.0, 7.0, 31.0, 32.0, 128.0, 1000.0])
    together = cost(gemm(m=rows), vhk158).alone_s
    assert together == pytest.approx([float(cost(gemm(m=float(m)), vhk158).alone_s) for m in rows], rel=1e-12)


def test_pruned_weights_are_neither_loaded_nor_multiplied(vhk158):
    dense, sparse = cost(gemm(n=51200.0), vhk158), cost(gemm(n=51200.0, kept=(0.25,)), vhk158)
    assert sparse.lanes["mv"] == pytest.approx(dense.lanes["mv"] / 4)
    assert sparse.traffic["hbm"] == pytest.approx(dense.traffic["hbm"] / 4, rel=0.01)
    assert float(sparse.alone_s) == pytest.approx(float(dense.alone_s) / 4, rel=0.02)


def test_sparse_indices_are_traffic(vhk158):
    """4 bits for each weight that was kept, and a byte per 16 x 16 block."""
    indexed = vhk158.with_values({"units.mpe.organisation.index_bits": 4.0})
    extra = cost(gemm(kept=(0.5,)), indexed).traffic["hbm"] - cost(gemm(kept=(0.5,)), vhk158).traffic["hbm"]
    assert extra == pytest.approx(512 * 4096 * (0.5 * 0.5 + 1 / 256))
    assert cost(gemm(), indexed).traffic == cost(gemm(), vhk158).traffic


@pytest.mark.parametrize(
    ("weights", "bytes_each"), [("int2", 0.25), ("int3", 0.375), ("int3.5", 0.4375), ("int4", 0.5), ("int8", 1.0)]
)
def test_narrow_weights_are_loaded_as_stored_and_multiplied_as_int8(vhk158, weights, bytes_each):
    found = cost(gemm(n=51200.0, weights=weights), vhk158)
    assert found.traffic["hbm"] == pytest.approx(51200 * 4096 * bytes_each + 4096 + 51200)
    assert found.lanes["mv"] == pytest.approx(100 * 512 * 4096 / 1024 / RATE)


def test_contexts_are_rounded_up_to_instruction_files(vhk158):
    def latency(prompt: int) -> float:
        return run("llama-2-7b", vhk158, Job(phase="decode", prompt=prompt)).latency_s

    assert latency(497) == latency(512) < latency(513)


def test_fused_work_leaves_only_norms_and_keeps_order(vhk158):
    plain = Context(load_model("llama-2-7b"), vhk158, Job(policy="flightllm.off-chip")).rows(decode(1, 100))
    together = Context(load_model("llama-2-7b"), vhk158, Job()).rows(decode(1, 100))
    alone = [row.op.name for row in together if isinstance(row.op, Elementwise)]
    assert alone == ["dense.norm1", "dense.norm2", "head.norm"]
    after = {row.op.name: [one.name for one in row.op.epilogue] for row in together if isinstance(row.op, Gemm)}
    assert after["dense.qkv"] == ["dense.rope"]
    assert after["dense.ffn.up"] == ["dense.ffn.act"]
    assert after["dense.out"] == ["dense.add1"]
    names = {row.op.name for row in together}
    assert all(set(row.op.after) <= names for row in together)
    assert sum(len(row.op.epilogue) for row in together if isinstance(row.op, Gemm)) + len(together) == len(plain)


def test_what_follows_two_products_waits_for_both():
    first, second = gemm(name="a"), gemm(name="b")
    add = Elementwise(name="add", kind="add", after=("a", "b"), tokens=1.0, read=2.0, written=1.0, work=1.0, passes=1.0)
    last = gemm(name="c", after=("add",))
    ops = {op.name: op for op in fused([first, second, add, last])}
    assert {*ops} == {"a", "b", "c"}
    assert set(ops["b"].after) == {"a"}
    assert ops["c"].after == ("b",)


def test_memory_trips_between_ops_cost_time(vhk158):
    jobs = [Job(phase="decode", prompt=512, policy=policy) for policy in ("flightllm.on-chip", "flightllm.off-chip")]
    on, off = (run("llama-2-7b", vhk158, job) for job in jobs)
    assert on.latency_s < off.latency_s


def test_resources_of_the_published_cores():
    """2 x 16 x 2 x 64 products by two a DSP in three cores; 4 URAM for 32 bytes of 64 MPUs; buffers of 369 blocks."""
    found = resources(load_device("u280"))
    assert found == {"dsp": 2048 * 3, "uram": 4 * 64 * 3, "bram": 369 * 3, "channels": 30, "bandwidth": pytest.approx(432e9)}


def test_what_does_not_fit_the_part_is_refused():
    u280 = load_device("u280")
    with pytest.raises(CapacityError, match="takes 12288 dsp, the part has 9024"):
        sized(u280, {"mpu": 128})
    with pytest.raises(CapacityError, match="takes 36 channels, the part has 32"):
        sized(u280, {"mpu": 80, "p_m": 1})
    with pytest.raises(InputError, match=r"p_m: 1\.5; accepted: a whole number"):
        sized(u280, {"p_m": 1.5})
    with pytest.raises(InputError, match=r"units\.mpe\.peak\.int8.*accepted: 2 p_m mpu p_k p_n clock cores"):
        run("llama-2-7b", u280, Job(set={"units.mpe.organisation.mpu": "32"}))


def test_half_the_array_takes_twice_as_long():
    u280 = load_device("u280")
    whole, half = (run("llama-2-7b", sized(u280, {"mpu": mpu}), Job(phase="decode", prompt=512)).latency_s for mpu in (64, 32))
    assert 1.9 < half / whole < 2.05


def test_formats_that_the_engine_has_not_are_refused(vhk158):
    with pytest.raises(PlacementError, match="no unit can do"):
        run("llama-2-7b", vhk158, Job(weights="fp16"))


def test_a_network_beyond_the_memory_is_refused():
    with pytest.raises(CapacityError, match="memory hbm"):
        run("llama-2-13b", "u280", Job(weights="int8"))


def test_design_points_are_each_alone(vhk158):
    """Three bandwidths as one array, against a run of each."""
    bandwidths, model = np.array([400e9, 879.609e9, 2e12]), load_model("llama-2-7b")
    many = vhk158.with_values({"memories.hbm.bandwidth": bandwidths})
    found = estimate(Context(model, many, Job()).rows(decode(1, 512)), many).latency_s
    for value, seconds in zip(bandwidths, found, strict=True):
        assert seconds == pytest.approx(
            run(model, vhk158, Job(phase="decode", prompt=512, set={"memories.hbm.bandwidth": value})).latency_s
        )


def test_small_buffers_cut_tiles_and_too_small_ones_are_refused():
    """Two tiles of 512 columns x 16 in INT8 are 16 KiB; more than that runs, and both roads agree."""
    job = Job(phase="decode", prompt=300)
    for size in ("16 KiB", "100 kB", "1 MiB", "80 MiB"):
        device = load_device("vhk158").with_values({"buffers.a.capacity": size})
        rows = Context(load_model("llama-2-7b"), device, job).rows(decode(1, 300))
        assert simulate(rows, device).latency_s == pytest.approx(float(estimate(rows, device).latency_s), rel=1e-9)
    with pytest.raises(InputError, match=r"buffers\.a\.capacity: 16383 B; accepted: 16384 B, two tiles, or more"):
        run("llama-2-7b", "vhk158", replace(job, set={"buffers.a.capacity": "16383 B"}))


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_nothing_beats_the_memory_whatever_its_bandwidth(phase):
    for bandwidth in (1e9, 10e9, 100e9):
        trace = run("llama-2-7b", "vhk158", Job(phase=phase, prompt=256, set={"memories.hbm.bandwidth": bandwidth}))
        assert trace.sum("bytes", by="memory")["hbm"] <= 0.7 * bandwidth * trace.latency_s


def test_instructions_come_from_ddr():
    """7 words for each of 40 loads (8 channels x 4 tiles, a vector, ...) are what a slow DDR makes everybody wait for."""
    slow = load_device("vhk158").with_values({"memories.ddr.bandwidth": "1 MB/s"})
    found = cost(gemm(n=1024.0), slow)
    words = (4 * 8 + 1) * 7 + 4 * 4 + 1 * 3 + 1  # loads of four tiles and of the vector, multiplications, a store, a barrier
    assert found.traffic["ddr"] == words * 4
    assert float(found.alone_s) == pytest.approx(words * 4 / 1e6, rel=0.02)


@pytest.mark.parametrize(("path", "value"), [("mm_columns", "0"), ("mv_blocks", "0.3"), ("p_k", "1.5"), ("macs_per_dsp", "0")])
def test_sizes_are_whole_numbers(path, value):
    with pytest.raises(InputError, match=f"organisation.{path}.*accepted: a whole number"):
        run("gpt2", "vhk158", Job(set={f"units.mpe.organisation.{path}": value}))


def test_prompts_and_decodes_of_one_array_are_each_alone(vhk158):
    context = Context(load_model("llama-2-7b"), vhk158, Job())
    found = estimate(context.rows(prefill(1, np.array([1.0, 128.0]))), vhk158).latency_s
    alone = [float(estimate(context.rows(prefill(1, prompt)), vhk158).latency_s) for prompt in (1.0, 128.0)]
    assert found == pytest.approx(alone, rel=1e-9)


def test_experts_fill_blocks_of_rows_as_tokens_are_spread(vhk158):
    """512 tokens to 8 experts two each are 128 a piece in the mean: half the experts need a second block; balanced none."""
    blocks = {}
    for routing in ("uniform", "balanced"):
        trace = run("mixtral-8x7b", vhk158, Job(phase="prefill", prompt=512, routing=routing))
        blocks[routing] = sum(row.lanes["mm"] for row in trace.rows if row.kind == "experts")
    assert blocks["uniform"] == pytest.approx(1.48 * blocks["balanced"], rel=0.02)


def test_sparsity_can_be_switched_off(vhk158):
    def latency(phase: str, policy: str) -> float:
        return run("llama-2-7b", vhk158, Job(phase=phase, prompt=1024, policy=policy)).latency_s

    for phase, option in (("prefill", "attention=dense"), ("decode", "weights=dense"), ("prefill", "weights=dense")):
        assert latency(phase, f"flightllm.on-chip:{option}") > latency(phase, "flightllm.on-chip")
    with pytest.raises(InputError, match="weights=none; accepted: dense, pruned"):
        latency("decode", "flightllm.on-chip:weights=none")


def test_the_mapping_is_for_its_own_machine():
    with pytest.raises(InputError, match="h100: no matmul unit with cost csd_chain"):
        run("llama-2-7b", "h100", Job(policy="flightllm.on-chip"))
