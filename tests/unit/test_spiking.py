"""Crossbars and networks of events by hand: reads, conversions and joules of a step, operations of a backward pass, capacity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwsim.catalogue import load_device, load_model, load_transformer
from hwsim.cost import price
from hwsim.errors import CapacityError, InputError
from hwsim.job import run
from hwsim.lowering.spiking import Activity, Encoder, SpikingNetwork, lower_spiking
from hwsim.op import Synapses
from hwsim.placement.spiking import event_driven, in_cells
from hwsim.spiking import activities, estimate_spiking, spiking_rows

DEVICE = load_device("rram-40nm")

HOME = {"weights": "array", "activations": "sram", "kv": "sram"}
SMALL = SpikingNetwork("small", (Encoder("one", 6, 4, 5, 0.9, 1.0, 1.0, 1.0, 0.5),), outputs=3, head="readout")
SPIKES = [Activity(3.0, 1.0, 2.0)]


def step(**changes) -> Synapses:
    given = {"m": 1.0, "n": 200.0, "k": 456.0, "active": 20.0, "gated": True, "fixed": True, "weights": "analog"}
    return Synapses(name="step", kind="synapses", activations="int1", **given | changes)


def priced(op: Synapses, **numbers):
    device = load_device("rram-40nm").with_values({f"units.crossbar.crossbar.{name}": value for name, value in numbers.items()})
    return price(op, "crossbar", device, HOME)


def test_one_read_and_four_conversions_of_each_converter():
    assert priced(step()).busy_s == pytest.approx(50e-9 + 4 * 10e-9)  # 200 columns on 64 converters
    assert priced(step(n=64.0)).busy_s == pytest.approx(50e-9 + 10e-9)
    assert priced(step(), reads=2.0).busy_s == pytest.approx(2 * 90e-9)
    assert priced(step(m=7.0)).busy_s == pytest.approx(7 * 90e-9)


def test_spikes_drive_energy_and_not_time():
    few, many = priced(step(active=10.0)), priced(step(active=40.0))
    assert few.busy_s == many.busy_s
    pair = 2 * 60e-6 * 0.2**2 * 50e-9  # both cells conduct
    assert few.joules["cells"] == pytest.approx(10 * 200 * pair)
    assert many.joules["cells"] == pytest.approx(4 * few.joules["cells"])
    assert few.joules["drivers"] == pytest.approx(10 * 0.5e-12)
    assert few.joules["converters"] == many.joules["converters"] == pytest.approx(200 * 2e-12)


def test_ungated_rows_are_all_driven():
    assert priced(step(gated=False)).joules["drivers"] == pytest.approx(456 * 0.5e-12)


def test_a_layer_wider_than_a_macro_takes_rounds():
    wide = step(n=2048.0, k=2240.0)  # 5 macros down, 8 across
    assert priced(wide).busy_s == pytest.approx(40 * 90e-9)
    assert priced(wide, macros=80.0).busy_s == pytest.approx(90e-9)
    assert priced(wide).joules["drivers"] == pytest.approx(20 * 8 * 0.5e-12)
    assert priced(wide).joules["converters"] == pytest.approx(2048 * 2e-12)


def test_digital_sums_convert_every_macro():
    device = load_device("rram-40nm")
    unit = device.units["crossbar"]
    array = unit.crossbar.model_copy(update={"sums": "digital"})
    device = device.model_copy(update={"units": {**device.units, "crossbar": unit.model_copy(update={"crossbar": array})}})
    wide = step(n=2048.0, k=2240.0)
    assert price(wide, "crossbar", device, HOME).joules["converters"] == pytest.approx(5 * 2048 * 2e-12)


def test_costs_broadcast_over_spikes_and_device_numbers():
    active = np.array([1.0, 10.0, 100.0])
    each = [priced(step(active=one)).joules["cells"] for one in active]
    assert priced(step(active=active)).joules["cells"] == pytest.approx(each)
    times = np.array([10e-9, 50e-9])
    assert priced(step(), read_time=times).busy_s == pytest.approx(times + 40e-9)


def test_a_peak_that_follows_its_numbers():
    device = load_device("rram-40nm")
    assert device.units["crossbar"].peak["analog"] == pytest.approx(2 * 512 * 256 / 90e-9)
    faster = device.with_values({"units.crossbar.crossbar.read_time": "10 ns"})
    assert faster.units["crossbar"].peak["analog"] == pytest.approx(2 * 512 * 256 / 50e-9)


def test_event_driven_operations_are_spikes_times_neurons():
    (synapses, neuron, count, readout) = lower_spiking(SMALL, SPIKES, 2.0)
    assert synapses.ops == 2 * 2 * 10 * 4
    gated = event_driven([synapses, neuron, count, readout], DEVICE)
    assert gated[0].ops == 2 * 2 * 4 * (3 + 1)
    assert gated[2].ops == 2 * 2  # counters of the two neurons that fire, of two streams
    assert [op.repeat for op in gated] == [5, 5, 5, 1]
    assert in_cells([synapses], DEVICE)[0].bytes["weights"] == 0
    assert in_cells([synapses], DEVICE)[0].resident["weights"] * 5 == 10 * 4 * 2 / 8


def test_what_is_trained_stays_digital():
    (synapses, *_) = lower_spiking(replace(SMALL, fixed=False), SPIKES, 1.0)
    assert in_cells([synapses], DEVICE)[0].weights == "fp16"


def test_states_of_an_ordinary_recurrent_network_are_never_skipped():
    ops = lower_spiking(replace(SMALL, cell="rnn"), SPIKES, 1.0)
    assert [op.kind for op in ops] == ["synapses", "neuron", "head"]
    assert event_driven(ops, DEVICE)[0].ops == ops[0].ops == 2 * 10 * 4


def backward(net: SpikingNetwork, batch: float) -> float:
    ops = lower_spiking(net, SPIKES, batch, train=True)
    return sum(op.ops * op.repeat for op in ops if op.kind.startswith("backward"))


def test_backward_pass_of_a_fixed_reservoir_is_that_of_its_readout():
    assert backward(SMALL, 1.0) == 2 * 4 * 3 + 6 * 3  # gradient of 4 x 3 weights, softmax of 3 classes


def test_backward_pass_through_time():
    through_time = 5 * (2 * 10 * 4 + 2 * 4 * 4 + 5 * 4)  # weights, neurons before, surrogate
    assert backward(replace(SMALL, fixed=False), 1.0) == backward(SMALL, 1.0) + 2 * 4 * 3 + through_time


def test_a_contrastive_loss_grows_with_the_batch():
    net = replace(SMALL, head="projection")
    one, eight = backward(net, 1.0), backward(net, 8.0) / 8
    assert eight - one == pytest.approx(2 * 2 * 3 * 7)  # two products of 3 numbers with 7 more partners


def test_capacity_counts_cells():
    with pytest.raises(CapacityError, match=r"array holds 32.77 kB, needed per device 36 kB .*3.232 kB too much"):
        run("lsm-atv", "rram-40nm")
    assert run("lsm-atv", "rram-40nm", set={"memories.array.capacity": "36 kB"}).latency_s > 0


def test_energy_is_that_of_the_spikes_that_fired():
    device, net = load_device("rram-40nm"), load_model("lsm-nmnist")
    trace = run(net, device, batch=2, seed=3)
    (fired,) = activities(net, device, 2, 3)
    cells = trace.sum("joules", "component")["cells"]
    assert cells == pytest.approx(2 * 50 * (fired.inputs + fired.neurons) * 200 * 2 * 60e-6 * 0.04 * 50e-9)
    assert trace.tokens == 2
    assert trace.energy_j == pytest.approx(sum(trace.sum("joules", "component").values()))


def test_many_design_points_in_one_call():
    device, net = load_device("rram-40nm"), load_model("lsm-nmnist")
    volts = np.linspace(0.1, 0.3, 5)
    closed = estimate_spiking(net, device.with_values({"units.crossbar.crossbar.read_voltage": volts}), SPIKES, 1.0)
    each = [
        float(estimate_spiking(net, device.with_values({"units.crossbar.crossbar.read_voltage": v}), SPIKES, 1.0).energy_j)
        for v in volts.tolist()
    ]
    assert closed.energy_j == pytest.approx(each)


def test_same_seed_same_trace():
    once, again = (run("lsm-nmnist", "rram-40nm", seed=7).to_dict() for _ in range(2))
    assert once == again
    assert run("lsm-nmnist", "rram-40nm", seed=8).energy_j != once["energy_j"]


def test_device_numbers_of_the_cells_reach_the_reservoir():
    net = load_model("lsm-nmnist")
    narrow = load_device("rram-40nm").with_values({"units.crossbar.crossbar.spread": "0.5 uS"})
    assert activities(net, narrow, 4)[0].counted < 0.1 * activities(net, load_device("rram-40nm"), 4)[0].counted


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"kv": "fp8"}, "kv"), ({"weights": "int8"}, "weights"), ({"parallel": "tp=1"}, "parallel"), ({"host": "vllm"}, "host")],
)
def test_options_of_tokens_are_refused(changes, says):
    with pytest.raises(InputError, match=f"{says}: .*no tokens"):
        run("lsm-nmnist", "rram-40nm", **changes)


def test_several_devices_are_refused():
    with pytest.raises(InputError, match="2 devices; accepted for lsm-nmnist: one"):
        run("lsm-nmnist", "2x-h100")


def test_a_transformer_is_not_trained_and_events_are_not_served():
    with pytest.raises(InputError, match="phase: train"):
        run("gpt2", "h100", phase="train")
    with pytest.raises(InputError, match="without tokens; accepted: a transformer"):
        load_transformer("lsm-nmnist")


def test_only_fitting_rows_are_placed_on_the_crossbar():
    rows = spiking_rows(load_model("lsm-nmnist"), load_device("rram-40nm"), SPIKES, 1.0)
    assert [row.unit for row in rows] == ["crossbar", "digital", "digital", "digital"]
