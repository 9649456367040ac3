"""One run of a network of events, end to end: streams -> reservoir -> spikes -> ops -> Trace.

The reservoir runs on synthetic streams (`functional/`), on the cells of the device where it has a crossbar and on the network's
own weights elsewhere; the spikes that it fires are what the ops are made from. Up to `SAMPLE` streams are run; larger batches
have their mean. Trained baselines have the spikes of an untrained reservoir, which matters only where silent rows are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from hwsim.device import Crossbar, Device
from hwsim.engine import Estimate, estimate, simulate
from hwsim.errors import InputError
from hwsim.functional.events import Modality, latents, streams
from hwsim.functional.reservoir import Response, Statistics, formed, ideal, respond
from hwsim.lowering.spiking import Activity, Encoder, SpikingNetwork, lower_spiking
from hwsim.op import Array
from hwsim.placement import Policy, Row, place, read_policy
from hwsim.placement.policy import rewriting
from hwsim.trace import Trace

SAMPLE, CLASSES, LATENT = 8, 10, 6


def crossbar_of(device: Device) -> Crossbar | None:
    """The cells of a device, None where it has none."""
    return next((unit.crossbar for _, unit in sorted(device.units.items()) if unit.crossbar is not None), None)


def activities(net: SpikingNetwork, device: Device, many: int, seed: int = 0) -> tuple[Activity, ...]:
    """Mean spikes of each encoder over `many` synthetic streams (at most SAMPLE), on the device's cells."""
    array = crossbar_of(device) if net.fixed else None
    statistics = Statistics.of(array) if array else None
    found = (_response(encoder, statistics, min(many, SAMPLE), seed) for encoder in net.encoders)
    return tuple(Activity(one.inputs, one.neurons, one.counted) for one in found)


@lru_cache(maxsize=64)
def _response(encoder: Encoder, statistics: Statistics | None, many: int, seed: int) -> Response:
    cells = ideal(encoder, seed) if statistics is None else formed(encoder, statistics, seed)
    modality = Modality(encoder.inputs, encoder.steps, encoder.density, seed=seed)
    labels = np.arange(many) % CLASSES
    return respond(streams(labels, latents(CLASSES, LATENT, seed), modality, seed), encoder, cells, seed)


def spiking_rows(
    net: SpikingNetwork, device: Device, activity: Sequence[Activity], many: Array, *, train: bool = False,
    policy: str | Policy | None = None,
) -> list[Row]:  # fmt: skip
    """The rows of `many` streams: ops as the policy rewrites and places them. InputError for several devices."""
    if device.count > 1:
        raise InputError(
            f"{device.name}: {device.count} devices; accepted for {net.name}: one (a device may have several macros)"
        )
    chosen = policy or device.policy
    ops = rewriting(chosen, device)(lower_spiking(net, activity, many, train=train))
    return place(ops, device, read_policy(chosen) if isinstance(chosen, str) else chosen)


def run_spiking(
    net: SpikingNetwork, device: Device, many: int, *, train: bool = False, seed: int = 0, policy: str | Policy | None = None
) -> Trace:
    """Simulate `many` streams of each modality, or a training batch of them. The trace's tokens are streams."""
    activity = activities(net, device, many, seed)
    trace = simulate(spiking_rows(net, device, activity, float(many), train=train, policy=policy), device)
    phase = "train" if train else "inference"
    return replace(
        trace, rows=tuple(replace(row, phase=phase) for row in trace.rows), tokens=float(many), notes=_notes(net, activity)
    )


def estimate_spiking(
    net: SpikingNetwork, device: Device, activity: Sequence[Activity], many: Array, *, train: bool = False,
    policy: str | Policy | None = None,
) -> Estimate:  # fmt: skip
    """The same in closed form; activity, streams and device numbers may be arrays."""
    return estimate(spiking_rows(net, device, activity, many, train=train, policy=policy), device)


def _notes(net: SpikingNetwork, activity: Sequence[Activity]) -> tuple[str, ...]:
    fired = ", ".join(
        f"{encoder.name} {100 * spikes.inputs / encoder.inputs:.1f} % of inputs and "
        f"{100 * spikes.counted / encoder.neurons:.1f} % of neurons"
        for encoder, spikes in zip(net.encoders, activity, strict=True)
    )
    return ("streams are synthetic; tokens of this run are streams", f"spikes in a step: {fired}")
