"""What every device file must keep. Found by folder listing, so a new device arrives with its tests written."""

from __future__ import annotations

from collections import Counter

import pytest

from hwsim.catalogue import load_convnet, load_device, names, root
from hwsim.device import Device
from hwsim.engine import estimate, simulate
from hwsim.files import read_mapping
from hwsim.images import image_rows
from hwsim.job import Context, Job
from hwsim.lowering.batch import decode, prefill
from hwsim.lowering.model import Attention, FeedForward, Layer, Model
from hwsim.op import Elementwise, Gemm
from hwsim.placement import fastest, place

SMALL = Model("small", 256, 1000, ((Layer(Attention(4, 2, 64), FeedForward(512)), 3),))
ARCH = names("arch")
SMALLER = {"microcontroller": "resnet-8"}  # cost -> what runs instead, where a transformer does not fit


@pytest.fixture(params=ARCH)
def device(request) -> Device:
    return load_device(request.param)


def test_says_what_it_is(device):
    assert device.description
    assert device.name in ARCH


def test_every_number_has_a_source(device):
    assert device.provenance
    assert [path for path, source in device.provenance.items() if not source.strip()] == []
    assert set(device.written) == set(device.provenance)


def test_units_do_matrix_and_vector_work(device):
    assert {math for unit in device.units.values() for math in unit.does} == {"matmul", "vector"}


def test_one_op_alone_is_the_roofline(device):
    format = "int8" if device.compression else "fp16"
    gemm = Gemm(name="gemm", kind="ffn", m=64.0, n=1024.0, k=1024.0, weights=format, activations=format, stream=format)
    add = Elementwise(name="add", kind="add", tokens=64.0, read=8192.0, written=4096.0, work=4096.0, stream="fp16")
    for op in (gemm, add):
        (row,) = place([op], device, fastest())
        unit = device.units[row.unit]
        memory = device.memories[unit.memory]
        rate = min(unit.port or memory.bandwidth, memory.bandwidth) * memory.efficiency
        peak = unit.peak[unit.precision_for(op.precision)] * unit.efficiency
        by_hand = unit.overhead + max(op.ops / peak, sum(op.bytes.values()) / rate)
        if unit.cost == "roofline":
            assert simulate([row], device).latency_s == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("count", [1, 2])
def test_a_small_network_runs_and_both_roads_agree(device, count):
    if count > 1 and not device.wires:
        return
    system = device.model_copy(update={"count": count * device.count})
    smaller = {SMALLER[unit.cost] for unit in device.units.values() if unit.cost in SMALLER}
    passes = [image_rows(load_convnet(name), system) for name in smaller]
    for rows in passes or (Context(SMALL, system, Job()).rows(batch) for batch in (prefill(2, 64), decode(8, 64))):
        trace, closed = simulate(rows, system), estimate(rows, system)
        assert trace.latency_s >= float(closed.latency_s) * (1 - 1e-9)
        if not closed.contended:
            assert trace.latency_s == pytest.approx(float(closed.latency_s), rel=1e-9)
        assert trace.energy_j > 0


def test_aliases_name_one_device_each():
    aliases = Counter(
        str(alias).lower() for name in ARCH for alias in read_mapping(root("arch") / f"{name}.yaml").get("aliases", ())
    )
    assert [alias for alias, count in aliases.items() if count > 1] == []
    assert not set(aliases) & set(ARCH)
