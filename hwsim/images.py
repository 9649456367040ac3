"""A convolutional network on one device, end to end: lower, rewrite as the policy does, place, simulate."""

from __future__ import annotations

from dataclasses import replace

from hwsim.device import Device
from hwsim.engine import simulate
from hwsim.errors import InputError
from hwsim.formats import bits
from hwsim.lowering.convnet import ConvNet, lower_convnet
from hwsim.op import Array
from hwsim.placement import Policy, Row, place, read_policy
from hwsim.placement.policy import rewriting
from hwsim.trace import IMAGES, Trace


def image_rows(
    net: ConvNet, device: Device, policy: str | Policy | None = None, images: Array = 1, weights: str | None = None,
    activations: str | None = None,
) -> list[Row]:  # fmt: skip
    """The rows of one pass over `images` images; formats default to int8, the policy to the device's."""
    if device.count > 1:
        raise InputError(f"{device.name}: {device.count} devices; accepted for {net.name}, a convolutional network: one")
    for name in filter(None, (weights, activations)):
        bits(name)
    policy = policy or device.policy
    ops = lower_convnet(net, images, weights or "int8", activations or "int8")
    return place(rewriting(policy, device)(ops), device, read_policy(policy) if isinstance(policy, str) else policy)


def run_images(
    net: ConvNet, device: Device, policy: str | Policy | None = None, images: int = 1, weights: str | None = None,
    activations: str | None = None,
) -> Trace:  # fmt: skip
    """Simulate one pass; `tokens` of the trace are images, and it is marked with the most bytes of maps alive at once.

    CapacityError when it does not fit.
    """
    trace = simulate(image_rows(net, device, policy, images, weights, activations), device)
    peak = max(row.alive for row in trace.rows)
    rows = tuple(replace(row, phase=IMAGES) for row in trace.rows)
    return replace(trace, rows=rows, tokens=float(images), marks={"peak_activation_bytes": peak})
