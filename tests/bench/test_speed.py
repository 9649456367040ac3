"""How fast: `make bench`. Figures to reach are in hwsim/README.md; a timed assertion would only test the machine."""

from __future__ import annotations

import numpy as np
import pytest
import simpy

from hwsim.catalogue import load_device, load_model
from hwsim.cost import tiling
from hwsim.engine import estimate, simulate
from hwsim.engine.simulate import Events
from hwsim.engine.tasks import tasks, unfold
from hwsim.job import run
from hwsim.lowering.batch import decode, prefill
from hwsim.lowering.transformer import lower
from hwsim.placement import place

POINTS = 100_000


@pytest.fixture(scope="module")
def model():
    return load_model("llama-3.1-8b")


@pytest.fixture(scope="module")
def device():
    return load_device("h100")


def test_whole_model_estimate(benchmark, model, device):
    """Prefill and one decode step, lowered, placed and priced."""

    def both():
        return [estimate(place(lower(model, batch), device), device).latency_s for batch in (prefill(8, 2048), decode(8, 2048))]

    assert all(np.isfinite(benchmark(both)))


def test_1024_decode_steps_in_one_call(benchmark, model, device):
    contexts = np.arange(2048.0, 3072.0)
    latency = benchmark(lambda: estimate(place(lower(model, decode(8, contexts)), device), device).latency_s)
    assert latency.shape == (1024,)


def test_100000_design_points_in_one_call(benchmark, model, device):
    """Bandwidth and peak are arrays; divide by the time for points a second."""
    points = device.with_values(
        {"memories.hbm.bandwidth": np.linspace(1e12, 8e12, POINTS), "units.tensor.peak.bf16": np.geomspace(1e14, 5e15, POINTS)}
    )
    latency = benchmark(lambda: estimate(place(lower(model, decode(8, 2048)), points), points).latency_s)
    assert latency.shape == (POINTS,)


def test_four_networks_on_six_arrays(benchmark):
    """MixPE's table, every layer searched anew; to reach: 10 s."""
    designs = [load_device(f"mixpe-{name}") for name in ("w4a8", "w4a16", "int8", "fp16", "bitfusion", "ant")]
    networks = {"vit-base": "prefill", "vit-huge": "prefill", "opt-6.7b": "decode", "llama-2-13b": "decode"}

    def table() -> list[float]:
        tiling._best.cache_clear()
        return [
            run(name, device, phase=phase, batch=64, prompt=1, quirks="as-published").latency_s
            for name, phase in networks.items()
            for device in designs
        ]

    assert len(benchmark(table)) == 24


def test_event_engine(benchmark, model, device):
    """All 32 layers unfolded: 355 rows, two to three holds each. Compare with `test_raw_simpy`."""
    every = unfold(tasks(place(lower(model, decode(8, 2048)), device), device))

    def events() -> int:
        run = Events(every, device)
        run.env.run()
        return len(run.ends)

    assert benchmark(events) == len(every)
    benchmark.extra_info["rows"] = len(every)


def test_raw_simpy(benchmark):
    """355 request-hold-release cycles of plain SimPy, one hold each."""

    def cycles() -> float:
        env = simpy.Environment()
        unit = simpy.Resource(env)

        def worker():
            for _ in range(355):
                with unit.request() as turn:
                    yield turn
                    yield env.timeout(1.0)

        env.process(worker())
        env.run()
        return float(env.now)

    assert benchmark(cycles) == 355


def test_whole_simulation(benchmark, model, device):
    """One decode step from model to trace, events and records included."""
    rows = place(lower(model, decode(8, 2048)), device)
    assert benchmark(lambda: simulate(rows, device).latency_s) > 0
