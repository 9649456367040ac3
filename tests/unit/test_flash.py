"""Networks larger than memory: what is read, kept and managed on a machine of round numbers, and both roads."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.activity import Neurons, expected
from hwsim.catalogue import load_device, load_model
from hwsim.device import Device
from hwsim.engine import estimate, simulate
from hwsim.errors import CapacityError, InputError
from hwsim.job import Context, Job, run
from hwsim.lowering.batch import decode, prefill
from hwsim.lowering.model import Attention, FeedForward, Layer, MixtureOfExperts, Model, Precision
from hwsim.lowering.moe import read_routing
from hwsim.lowering.transformer import lower
from hwsim.op import Load
from hwsim.placement import place, read_policy
from hwsim.placement.capacity import held

NEURONS = Neurons(window=5, cached=0.25, new=0.02, rank=8)
FFN = FeedForward(4096, gated=False, neurons=NEURONS)
SIXTEEN = Precision(*["fp16"] * 7)
MODEL = Model("small", 1024, 1000, ((Layer(Attention(8, 8, 128), FFN), 4),), precision=SIXTEEN)
MATRIX = 1024 * 4096 * 2.0  # bytes of the up or down projection of a layer
BLOCK = 2 * MATRIX + 4 * 1024 * 1024 * 2.0  # and those of a layer with its attention


def machine(**changes: object) -> Device:
    drive = {"depth": 32, "stream": 1e12}
    data = {
        "name": "laptop",
        "memories": {
            "dram": {"capacity": 1e9, "bandwidth": 100e9},
            "flash": {"capacity": 4e9, "bandwidth": 2e9},
        },
        "units": {"cpu": {"does": ["matmul", "vector"], "peak": {"fp16": 1e12}, "memory": "dram", "port": 10e9}},
        "links": {
            "ssd": {"reads": "flash", "memory": "dram", "bandwidth": 2e9, "latency": 160e-6, "queue": drive},
            "copy": {"reads": "dram", "memory": "dram", "bandwidth": 5e9, "latency": 0.0},
        },
    }
    return Device(**data).with_values(changes)


def rows(policy: str, batch=None, device: Device | None = None):
    device = device or machine()
    return place(lower(MODEL, batch or decode(1, 64)), device, read_policy(policy))


def loads(policy: str, kind: str = "flash", batch=None) -> list[Load]:
    return [row.op for row in rows(policy, batch) if isinstance(row.op, Load) and row.op.kind == kind]


def seconds(policy: str, kind: str) -> float:
    trace = simulate(rows(policy), machine())
    return sum(row.seconds for row in trace.rows if row.kind == kind)


def test_naive_reads_every_weight_that_is_touched_and_keeps_none():
    in_all = 4 * BLOCK + 1000 * 1024 * 2 + 1024 * 2  # four layers, the LM head, one row of the embedding
    assert sum(op.moved * op.repeat for op in loads("flash.naive")) == pytest.approx(in_all)
    assert seconds("flash.naive", "flash") == pytest.approx(in_all / 2e9)
    kept = held(rows("flash.naive"), machine())
    assert sum(kept["flash"].values()) == pytest.approx(4 * BLOCK + 2 * 1000 * 1024 * 2)  # two tables: not tied
    assert set(kept["dram"]) == {"kv"}


def test_hybrid_reads_the_rest():
    assert seconds("flash.hybrid:resident=0.75", "flash") == pytest.approx(0.25 * seconds("flash.naive", "flash"))
    assert sum(held(rows("flash.hybrid:resident=0.75"), machine())["dram"].values()) == pytest.approx(
        0.75 * (4 * BLOCK + 2 * 1000 * 1024 * 2) + 4 * 65 * 2 * 1024 * 2
    )


def test_the_drive_may_hold_another_format():
    assert seconds("flash.naive:stored=int8", "flash") == pytest.approx(0.5 * seconds("flash.naive", "flash"))


def test_each_technique_alone():
    every = expected(NEURONS, 4)
    (sparse,) = (op for op in loads("flash.sparse") if op.moved)
    assert sparse.moved == pytest.approx(float(every.used) * 2 * MATRIX)
    assert sparse.chunk == 1024 * 2  # one column or row
    (windowed,) = (op for op in loads("flash.windowed:k=4") if op.moved)
    assert windowed.moved == pytest.approx(0.02 * 2 * MATRIX)
    (bundled,) = (op for op in loads("flash.bundled:k=4") if op.moved)
    assert (bundled.moved, bundled.chunk) == (pytest.approx(windowed.moved), 2 * windowed.chunk)
    # half the requests, each waiting 160 us in a queue of 32: half the time but for what bytes take
    assert seconds("flash.windowed:k=4", "flash") / seconds("flash.bundled:k=4", "flash") == pytest.approx(2, rel=0.1)
    (managed,) = loads("flash.windowed:k=4", "cache")
    assert managed.moved == pytest.approx(2 * 0.02 * 2 * MATRIX)  # as many rows written over as appended
    (whole,) = loads("flash.windowed:k=4,matrix=no", "cache")
    assert whole.moved == pytest.approx(0.25 * 2 * MATRIX)


def test_compute_is_over_all_neurons_in_the_cache():
    up, down = (row.op for row in rows("flash.windowed:k=4") if row.op.kind == "ffn")
    assert (up.n, down.k) == (pytest.approx(0.25 * 4096), pytest.approx(0.25 * 4096))
    kept = held(rows("flash.windowed:k=4"), machine())["dram"]
    assert kept["ffn"] == pytest.approx(4 * 0.25 * 2 * MATRIX)
    assert kept["predictor"] == pytest.approx(4 * 8 * (1024 + 4096) * 2)


def test_a_small_cache_shortens_the_window():
    (small,) = (op for op in loads("flash.windowed:k=4,cache=0.2") if op.moved)
    assert small.moved > 0.02 * 2 * MATRIX
    up = next(row.op for row in rows("flash.windowed:k=4,cache=0.2") if row.op.kind == "ffn")
    assert up.n == pytest.approx(0.2 * 4096)


def test_many_missing_neurons_are_read_in_one_piece():
    (whole,) = (op for op in loads("flash.windowed:k=4", batch=prefill(1, 500)) if op.moved)
    assert (whole.moved, whole.chunk) == (2 * MATRIX, 0.0)


def test_overlap_hides_the_shorter_of_the_two():
    apart, together = (simulate(rows(p), machine()).latency_s for p in ("flash.naive", "flash.naive:overlap=yes"))
    reads = seconds("flash.naive", "flash")
    assert together == pytest.approx(max(reads, apart - reads), rel=0.05)
    assert together < apart


@pytest.mark.parametrize("policy", ["naive", "hybrid", "sparse", "windowed:k=3", "bundled:k=2.5", "bundled:k=4,cache=0.2"])
def test_both_roads_agree(policy):
    every = rows(f"flash.{policy}")
    assert simulate(every, machine()).latency_s == pytest.approx(float(estimate(every, machine()).latency_s), rel=1e-9)
    assert simulate(every, machine(), fold=False).latency_s == pytest.approx(simulate(every, machine()).latency_s, rel=1e-9)


def test_drawn_neurons_step_by_step_and_at_once_and_their_mean_is_the_closed_road():
    policy = "flash.bundled:k=4"
    closed = run(MODEL, machine(), Job(phase="generate", prompt=16, output=200, policy=policy))
    many = run(MODEL, machine(), Job(phase="generate", prompt=16, output=200, policy=policy, seed=5))
    assert many.latency_s == pytest.approx(closed.latency_s, rel=0.01)
    assert many.latency_s != closed.latency_s
    context = Context(MODEL, machine(), Job(policy=policy, seed=5))
    few = np.arange(16, 21)
    assert context._steps(few).latency_s == pytest.approx(context._step_by_step(few.tolist()).latency_s, rel=1e-9)


def test_a_speculative_pass_checks_several_tokens_and_keeps_some():
    one = run(MODEL, machine(), Job(phase="decode", prompt=64, policy="flash.speculative:accepted=2,draft=3,k=4"))
    pass_of_four = run(MODEL, machine(), Job(phase="mixed", sequences=[(4, 64)], policy="flash.bundled:k=4"))
    assert one.latency_s == pytest.approx(pass_of_four.latency_s, rel=1e-9)
    assert (one.tokens, one.marks["tpot_s"]) == (2, pytest.approx(one.latency_s / 2))
    whole = run(MODEL, machine(), Job(prompt=64, output=9, policy="flash.speculative:accepted=2,draft=3,k=4"))
    assert whole.marks["tpot_s"] * 8 + whole.marks["ttft_s"] == pytest.approx(whole.latency_s)  # four passes


def test_experts_that_are_not_kept_are_read_when_they_are_hit():
    moe = Model("moe", 256, 1000, ((Layer(Attention(4, 4, 64), MixtureOfExperts(8, 2, FeedForward(512))), 3),), precision=SIXTEEN)
    each = 3 * 256 * 512 * 2.0

    def read(policy: str, routing: str = "uniform") -> float:
        ops = lower(moe, decode(1, 16), routing=read_routing(routing))
        return sum(row.op.moved for row in place(ops, machine(), read_policy(policy)) if isinstance(row.op, Load))

    assert read("flash.experts:resident=0.75") == pytest.approx(2 / 8 * 2 * each)  # two of eight, each hit by a quarter of tokens
    assert read("flash.experts:resident=1") == 0
    assert read("flash.experts:resident=0.5", "zipf:s=1") < read("flash.experts:resident=0.5")


def test_what_does_not_fit_on_the_drive_is_refused():
    with pytest.raises(CapacityError, match="memory flash holds 50 MB"):
        simulate(rows("flash.naive"), machine(**{"memories.flash.capacity": "50 MB"}))
    with pytest.raises(CapacityError, match="memory dram"):
        run(MODEL, machine(**{"memories.dram.capacity": "50 MB"}), Job(phase="decode", prompt=64))
    assert run(MODEL, machine(**{"memories.dram.capacity": "57 MB"}), Job(phase="decode", prompt=64, policy="flash.windowed:k=4"))


def test_what_cannot_be_done_is_said():
    dense = Model("dense", 1024, 1000, ((Layer(Attention(8, 8, 128), FeedForward(4096)), 4),))
    with pytest.raises(InputError, match="nothing is known of the network's neurons"):
        run(dense, machine(), Job(phase="decode", policy="flash.sparse"))
    with pytest.raises(InputError, match="accepted: a device with one"):
        run(MODEL, "h100", Job(phase="decode", policy="flash.naive"))
    for wrong in ("flash.windowed:bundled=maybe", "flash.hybrid:resident=2", "flash.naive:stored=fp17"):
        with pytest.raises(InputError):
            run(MODEL, machine(), Job(phase="decode", policy=wrong))


def test_a_cache_of_less_than_a_token_uses_is_refused():
    with pytest.raises(InputError, match=r"cache=0\.01; accepted for this network: 0\.112"):
        run("opt-6.7b", "m1-max", Job(phase="decode", policy="flash.windowed:k=4,cache=0.01"))


def test_reading_ahead_takes_a_second_buffer():
    """A layer that is read while the one before it is used: twice the bytes of a layer beside what stays."""
    held = {}
    for option in ("", ":overlap=yes"):
        rows = Context(load_model("opt-6.7b"), load_device("m1-max"), Job(policy=f"flash.naive{option}")).rows(decode(1, 100))
        held[option] = max(float(row.op.workspace) for row in rows if isinstance(row.op, Load))
    assert held[":overlap=yes"] == 2 * held[""]
