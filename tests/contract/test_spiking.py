"""What every network of events in models/ and every device with a crossbar must keep. Found by folder listing."""

from __future__ import annotations

import pytest

from hwsim.catalogue import load_device, load_model, names, root
from hwsim.device import Device
from hwsim.engine import simulate
from hwsim.errors import CapacityError, PlacementError
from hwsim.files import read_mapping
from hwsim.lowering.spiking import Activity, SpikingNetwork, lower_spiking
from hwsim.spiking import crossbar_of, estimate_spiking, spiking_rows

NETS = [name for name in names("models") if isinstance(load_model(name), SpikingNetwork)]
ARCH = names("arch")
CROSSBARS = [name for name in ARCH if crossbar_of(load_device(name))]


@pytest.fixture(params=NETS)
def net(request) -> SpikingNetwork:
    return load_model(request.param)


def spikes(net: SpikingNetwork, part: float = 0.05) -> list[Activity]:
    return [Activity(part * one.inputs, part * one.neurons, part * one.neurons) for one in net.encoders]


def test_there_are_some():
    assert len(NETS) >= 10
    assert len(CROSSBARS) >= 3


@pytest.mark.parametrize("name", NETS)
def test_says_what_it_is_and_where_its_shapes_come_from(name):
    raw = read_mapping(root("models") / f"{name}.yaml")
    assert raw["name"] == name
    assert raw["description"].strip()
    assert raw["source"].strip()
    assert any("assumed" in note for note in raw["notes"])  # the density of its inputs


def test_resident_weights_are_all_weights_once(net):
    ops = lower_spiking(net, spikes(net), 3.0)
    held = sum(float(op.resident.get("weights", 0.0)) * op.repeat for op in ops) / 2  # fp16
    assert held == pytest.approx(net.parameters - len(net.encoders) * net.outputs)  # biases are not modelled as an op


def test_dense_operations_are_two_per_mac(net):
    ops = lower_spiking(net, spikes(net), 3.0)
    assert sum(float(op.ops) * op.repeat for op in ops if op.kind == "synapses") == pytest.approx(2 * 3 * net.macs)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("arch", ["a100-peak", "digital-snn", "h100", "rram-40nm-80"])
def test_runs_and_both_roads_agree(net, arch, train):
    device = load_device(arch)
    activity = spikes(net)
    try:
        rows = spiking_rows(net, device, activity, 4.0, train=train)
        trace = simulate(rows, device)
    except CapacityError:
        assert "rram" in arch  # trained encoders of thousands of neurons do not fit its digital memory
        return
    closed = estimate_spiking(net, device, activity, 4.0, train=train)
    assert trace.latency_s == pytest.approx(float(closed.latency_s), rel=1e-9)
    assert trace.energy_j == pytest.approx(float(closed.energy_j), rel=1e-9)


@pytest.mark.parametrize("name", CROSSBARS)
def test_capacity_is_the_cells_of_its_macros(name):
    device = load_device(name)
    array = crossbar_of(device)
    assert device.memories["array"].capacity == array.macros * array.rows * array.columns / 8


@pytest.mark.parametrize("name", CROSSBARS)
def test_nothing_beats_the_crossbar_roof(name):
    device = load_device(name)
    net = load_model("lsm-nmnist")
    for row in simulate(spiking_rows(net, device, spikes(net, 1.0), 2.0), device).rows:
        if row.unit == "crossbar":
            assert row.op / row.seconds <= device.units["crossbar"].peak["analog"] * (1 + 1e-9)


@pytest.mark.parametrize("name", CROSSBARS)
def test_a_crossbar_takes_nothing_else(name):
    from hwsim.cost import price
    from hwsim.op import Gemm

    device: Device = load_device(name)
    gemm = Gemm(name="gemm", kind="ffn", m=1.0, n=8.0, k=8.0)
    with pytest.raises(PlacementError, match="fixed weights of spiking layers"):
        price(gemm, "crossbar", device, {"weights": "array", "activations": "sram", "kv": "sram"})
