"""Laws of networks of events over random networks, spikes and machines: two roads, roofs, monotone energy."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.catalogue import load_device
from hwsim.engine import simulate
from hwsim.lowering.spiking import Activity, Encoder, SpikingNetwork
from hwsim.spiking import estimate_spiking, spiking_rows

PARTS = st.floats(0, 1)


@st.composite
def networks(draw) -> tuple[SpikingNetwork, list[Activity]]:
    """One or two encoders, fixed or trained, spiking or not, and what fires in them."""
    encoders, spikes = [], []
    for index in range(draw(st.integers(1, 2))):
        inputs, neurons, steps = draw(st.integers(1, 600)), draw(st.integers(1, 600)), draw(st.integers(1, 300))
        encoders.append(Encoder(f"e{index}", inputs, neurons, steps, 0.9, 1.0, 1.0, 1.0, 0.1))
        spikes.append(Activity(*(draw(PARTS) * size for size in (inputs, neurons, neurons))))
    head, cell = draw(st.sampled_from(["readout", "projection"])), draw(st.sampled_from(["lif", "rnn"]))
    return SpikingNetwork("net", tuple(encoders), draw(st.integers(1, 300)), head, cell, draw(st.booleans())), spikes


@settings(max_examples=40, deadline=None)
@given(networks(), st.sampled_from(["rram-40nm-80", "digital-snn", "a100-peak"]), st.integers(1, 40), st.booleans())
def test_two_roads_agree_and_nothing_beats_its_roof(net, arch, many, train):
    network, spikes = net
    device = load_device(arch)
    trace = simulate(spiking_rows(network, device, spikes, float(many), train=train), device)
    closed = estimate_spiking(network, device, spikes, float(many), train=train)
    assert trace.latency_s == pytest.approx(float(closed.latency_s), rel=1e-9)
    assert trace.energy_j == pytest.approx(float(closed.energy_j), rel=1e-9)
    for row in trace.rows:
        if row.op and row.unit in device.units:
            unit = device.units[row.unit]
            seconds = row.seconds + 4 * math.ulp(row.end_s)  # a difference of two clock times
            assert row.op <= seconds * unit.peak[unit.precision_for(row.precision)] * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(networks(), st.floats(0, 1))
def test_fewer_spikes_never_cost_more(net, part):
    network, spikes = net
    device = load_device("rram-40nm-80")
    fewer = [Activity(part * one.inputs, part * one.neurons, part * one.counted) for one in spikes]
    ours, theirs = (estimate_spiking(network, device, one, 1.0) for one in (fewer, spikes))
    assert float(ours.energy_j) <= float(theirs.energy_j) * (1 + 1e-12)
    assert float(ours.latency_s) <= float(theirs.latency_s) * (1 + 1e-12)
