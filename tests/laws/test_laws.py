"""The ten laws of hwsim/README.md, over random ops, devices and graphs."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from collections import Counter

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.catalogue import load_device, root
from hwsim.device import Device
from hwsim.engine import estimate, simulate
from hwsim.errors import CapacityError
from hwsim.placement.rows import Row
from hwsim.trace import STATIC, Trace
from tests.laws.random_runs import buffered_runs, devices, runs

settings.register_profile("laws", deadline=None, max_examples=150)
settings.load_profile("laws")


def close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-15)


@given(runs())
def test_law_1_nothing_is_faster_than_its_roof(run: tuple[list[Row], Device]):
    rows, device = run
    trace = simulate(rows, device)
    for row, done in zip(rows, trace.rows, strict=False):
        unit, op = device.units[row.unit], row.op
        memory = device.memories[unit.memory]
        rate = min(unit.port or math.inf, memory.bandwidth) * memory.efficiency
        compute = op.ops * op.repeat / (unit.peak["bf16"] * unit.efficiency)
        moved = sum(op.bytes.values()) * op.repeat / rate
        assert done.seconds >= max(compute, moved, unit.overhead * op.repeat) * (1 - 1e-9) - 4 * math.ulp(done.end_s)


@given(runs())
def test_law_2_bytes_served_are_bytes_asked(run: tuple[list[Row], Device]):
    rows, device = run
    asked: Counter[str] = Counter()
    for row in rows:
        asked[device.units[row.unit].memory] += sum(row.op.bytes.values()) * row.op.repeat
    served = simulate(rows, device).sum("bytes", by="memory")
    assert served.keys() == asked.keys()
    assert all(close(served[memory], asked[memory]) for memory in asked)


@given(runs())
def test_law_3_energy_of_the_whole_is_the_sum_of_its_parts(run: tuple[list[Row], Device]):
    rows, device = run
    trace = simulate(rows, device)
    by_hand = 0.0
    for row in rows:
        unit = device.units[row.unit]
        by_hand += row.op.repeat * row.op.ops * unit.energy["bf16"]
        by_hand += row.op.repeat * sum(row.op.bytes.values()) * device.memories[unit.memory].energy
    whole = by_hand + device.static_power * trace.latency_s
    for by in ("component", "unit", "kind", "block"):
        assert close(sum(trace.sum("joules", by=by).values()), whole)
    assert close(trace.energy_j, whole)
    closed = estimate(rows, device)
    assert close(float(closed.energy_j), by_hand + device.static_power * float(closed.latency_s))


@given(runs(), st.floats(0.1, 0.99))
def test_law_4_what_does_not_fit_is_refused_with_the_memory_and_the_excess(run: tuple[list[Row], Device], part: float):
    rows, device = run
    held: Counter[str] = Counter()
    space: dict[str, float] = {}
    for row in rows:
        memory = device.units[row.unit].memory
        held[memory] += sum(row.op.resident.values()) * row.op.repeat
        space[memory] = max(space.get(memory, 0.0), row.op.bytes["activations"])
    full = max(space, key=lambda memory: held[memory] + space[memory])
    need = held[full] + space[full]
    fits = device.with_values({f"memories.{full}.capacity": need})
    simulate(rows, fits)
    for road in (simulate, estimate):
        with pytest.raises(CapacityError, match=rf"memory {full} .* too much"):
            road(rows, device.with_values({f"memories.{full}.capacity": need * part}))


@given(runs(own_memories=True))
def test_law_5_two_roads_agree_where_nothing_is_contended(run: tuple[list[Row], Device]):
    rows, device = run
    trace, closed = simulate(rows, device), estimate(rows, device)
    assert close(trace.latency_s, float(closed.latency_s))
    done = [row for row in trace.rows if row.name != STATIC]
    assert all(
        close(row.start_s, start) and close(row.end_s, end)
        for row, start, end in zip(done, closed.starts, closed.ends, strict=True)
    )


@given(runs())
def test_law_5b_contention_only_delays(run: tuple[list[Row], Device]):
    rows, device = run
    assert simulate(rows, device).latency_s >= float(estimate(rows, device).latency_s) * (1 - 1e-9)


@given(buffered_runs())
def test_law_5c_two_roads_agree_on_credits(run: tuple[list[Row], Device]):
    rows, device = run
    assert close(simulate(rows, device).latency_s, float(estimate(rows, device).latency_s))


@given(runs())
def test_law_6_folded_is_unfolded(run: tuple[list[Row], Device]):
    rows, device = run
    folded, unfolded = simulate(rows, device), simulate(rows, device, fold=False)
    assert close(folded.latency_s, unfolded.latency_s)
    assert close(folded.energy_j, unfolded.energy_j)
    assert starts(folded.unfolded()) == pytest.approx(starts(unfolded), rel=1e-9, abs=1e-15)


def starts(trace: Trace) -> dict[str, float]:
    return {row.name: row.start_s for row in trace.rows if row.name != STATIC}


@given(runs(units=1), st.sampled_from(["memories.{m}.bandwidth", "units.u0.port", "units.u0.peak.bf16", "units.u0.efficiency"]))
def test_law_7_one_unit_alone_is_never_slower_on_better_hardware(run: tuple[list[Row], Device], path: str):
    rows, device = run
    path = path.format(m=device.units["u0"].memory)
    old = device.units["u0"].port if path.endswith("port") else number(device, path)
    if old is None:
        return
    better = device.with_values({path: min(old * 2, 1.0) if path.endswith("efficiency") else old * 2})
    assert simulate(rows, better).latency_s <= simulate(rows, device).latency_s * (1 + 1e-12)


def number(device: Device, path: str) -> float:
    node: object = device
    for step in path.split("."):
        node = node[step] if isinstance(node, dict) else getattr(node, step)
    assert isinstance(node, float)
    return node


@given(runs())
def test_law_8_same_input_same_trace(run: tuple[list[Row], Device]):
    rows, device = run
    assert simulate(rows, device) == simulate(rows, device)


def test_law_8_same_seed_same_bytes_across_processes():
    command = [
        sys.executable,
        "-m",
        "hwsim.cli",
        "run",
        "mixtral-8x7b",
        "4x-h100",
        "--phase",
        "decode",
        "--batch",
        "8",
        "--json",
        "--seed",
    ]

    def output(seed: int, hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return subprocess.run([*command, str(seed)], env=environment, capture_output=True, text=True, check=True).stdout

    assert output(7, "1") == output(7, "2")
    assert output(7, "1") != output(8, "1")


@given(st.sampled_from(sorted(path.stem for path in root("arch").glob("*.yaml"))), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_law_9_order_of_yaml_keys_does_not_matter(tmp_path_factory, name: str, chance: random.Random):
    file = tmp_path_factory.mktemp("shuffled") / f"{name}.yaml"
    text = (root("arch") / f"{name}.yaml").read_text()
    file.write_text(yaml.safe_dump(shuffled(yaml.safe_load(text), chance), sort_keys=False))
    one, other = load_device(name), load_device(str(file))
    assert one.model_dump() == other.model_dump()


def shuffled(node: object, chance: random.Random) -> object:
    if not isinstance(node, dict):
        return node
    keys = sorted(node)
    chance.shuffle(keys)
    return {key: shuffled(node[key], chance) for key in keys}


@given(devices(units=1), st.floats(1e9, 1e13), st.sampled_from([("B", 0), ("kB", 3), ("MB", 6), ("GB", 9), ("TB", 12)]))
def test_law_10_units_of_input_do_not_matter(device: Device, rate: float, unit: tuple[str, int]):
    name, power = unit
    memory = device.units["u0"].memory
    written = device.with_values({f"memories.{memory}.bandwidth": f"{rate / 10**power!r} {name}/s"})
    assert number(written, f"memories.{memory}.bandwidth") == pytest.approx(rate, rel=1e-12)
    in_bits = device.with_values({f"memories.{memory}.bandwidth": f"{rate * 8 / 1e9!r} Gb/s"})
    assert number(in_bits, f"memories.{memory}.bandwidth") == pytest.approx(rate, rel=1e-12)
