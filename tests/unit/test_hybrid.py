"""Networks in a host's memory that a GPU computes: what a layer waits for, by hand on a machine of round numbers."""

from __future__ import annotations

import pytest

from hwsim.device import Device
from hwsim.engine import estimate, simulate
from hwsim.errors import CapacityError, InputError
from hwsim.job import Job, run
from hwsim.lowering.batch import decode, mixed
from hwsim.lowering.model import Attention, FeedForward, Layer, Model, Precision
from hwsim.lowering.transformer import lower
from hwsim.placement import place, read_policy
from hwsim.placement.capacity import held

MODEL = Model(
    "small", 1024, 1000, ((Layer(Attention(8, 8, 128), FeedForward(4096, gated=False)), 4),), precision=Precision(*["fp16"] * 7)
)
LAYER = (4 * 1024 * 1024 + 2 * 1024 * 4096) * 2.0  # bytes of weights


def machine(link: float = 10e9, cpu: float = 50e9, room: float = 1e9) -> Device:
    return Device(
        name="hybrid",
        memories={"vram": {"capacity": room, "bandwidth": 1e12}, "host": {"capacity": 10e9, "bandwidth": 100e9}},
        homes={"kv": "host"},
        units={
            "gpu": {"does": ["matmul", "vector"], "peak": {"fp16": 1e14}, "memory": "vram", "ports": {"host": link}},
            "cpu": {"does": ["matmul", "vector"], "peak": {"fp16": 1e12}, "memory": "host", "port": cpu},
        },
        links={"pcie": {"reads": "host", "memory": "vram", "bandwidth": link, "latency": 0.0}},
    )


def rows(policy: str, device: Device, batch=None):
    return place(lower(MODEL, batch or decode(16, 512)), device, read_policy(policy))


def seconds(trace, **wanted: str) -> float:
    return sum(row.seconds for row in trace.rows if all(getattr(row, name) == value for name, value in wanted.items()))


def test_all_weights_cross_the_link_and_stay_in_the_host():
    trace = simulate(rows("hybrid.flexgen", machine()), machine())
    every = 4 * LAYER + 2 * 1000 * 1024 * 2
    assert seconds(trace, kind="paging") == pytest.approx(every / 10e9)
    kept = held(rows("hybrid.flexgen", machine()), machine())
    assert sum(kept["host"].values()) == pytest.approx(every + 4 * 16 * 513 * 2 * 1024 * 2)
    assert "vram" not in kept


def test_a_layer_takes_the_longest_of_link_gpu_and_cpu():
    for device, slowest in ((machine(link=1e9), "pcie"), (machine(link=1e12, cpu=1e9), "cpu")):
        trace = simulate(rows("hybrid.moe_lens", device), device)
        layers = max(row.end_s for row in trace.rows if row.block == "dense") - min(
            row.start_s for row in trace.rows if row.block == "dense"
        )
        assert layers == pytest.approx(seconds(trace, block="dense", unit=slowest), rel=1e-9)


def test_one_after_the_other_is_the_sum():
    apart, together = (simulate(rows(f"hybrid.{name}", machine()), machine()) for name in ("flexgen", "moe_lens"))
    assert apart.latency_s == pytest.approx(seconds(apart, unit="pcie") + seconds(apart, unit="gpu"), rel=1e-9)
    assert together.latency_s < apart.latency_s


def test_attention_runs_where_it_is_told_to():
    def unit(policy: str) -> set[str]:
        return {row.unit for row in rows(policy, machine()) if row.op.kind == "attention.decode"}

    assert unit("hybrid.moe_lens") == {"cpu"}
    assert unit("hybrid.moe_lens:attention=gpu") == {"gpu"}
    assert unit("hybrid.flexgen") == {"gpu"}
    prompts = rows("hybrid.moe_lens", machine(), mixed([(64, 0, 4), (1, 512, 16)]))
    assert {row.unit for row in prompts if row.op.kind == "attention.prefill"} == {"gpu"}


def test_closed_form_is_a_bound_and_exact_where_nothing_is_shared():
    for policy in ("hybrid.flexgen", "hybrid.moe_lens"):
        every = rows(policy, machine())
        closed, events = estimate(every, machine()), simulate(every, machine())
        assert events.latency_s >= float(closed.latency_s) * (1 - 1e-9)
        if not closed.contended:
            assert events.latency_s == pytest.approx(float(closed.latency_s), rel=1e-9)
    assert simulate(every, machine(), fold=False).latency_s == pytest.approx(events.latency_s, rel=1e-9)


def test_what_cannot_be_done_is_said():
    with pytest.raises(CapacityError, match="memory vram"):
        simulate(rows("hybrid.moe_lens", machine(room=1e6)), machine(room=1e6))
    with pytest.raises(InputError, match="no link that reads a host's memory"):
        run(MODEL, "h100", Job(phase="decode", policy="hybrid.moe_lens"))
    with pytest.raises(InputError, match="accepted: cpu, gpu"):
        read_policy("hybrid.moe_lens:attention=tpu")
