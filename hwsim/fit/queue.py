"""What a list of kernels takes on a GPU when an eager host puts them in a queue.

    time = max(sum of count x launch, sum of count x (seconds of the kernel - launch))                                      [s]

A kernel that is timed by itself shows its launch. In a long queue the host runs ahead, and launches hide behind the kernels that
still run, unless these are so short that the host takes the time. Left out: a queue that runs dry in one part of a network only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from hwsim.cost.chips import chip_of
from hwsim.device import Device
from hwsim.kernels.sets import choose
from hwsim.kernels.sets import kernel as function
from hwsim.op import Array

_AT_ONCE = {"launch": 0.0, "host": 0.0}


@dataclass(frozen=True, eq=False)
class Kernel:
    """A call of a kernel family with its arguments, `count` times in fp32; stack and format name the set of parameters."""

    family: str
    stack: str
    format: str
    arguments: Mapping[str, Array]
    count: Array = 1.0


def seconds(kernels: Iterable[Kernel], device: Device) -> Array | None:
    """Seconds of all kernels on one GPU, None where the device has no model for one of them."""
    both = [_launch_and_busy(kernel, device) for kernel in kernels]
    known = [one for one in both if one is not None]
    if len(known) < len(both):
        return None
    return np.maximum(sum(launch for launch, _ in known), sum(busy for _, busy in known))


def _launch_and_busy(kernel: Kernel, device: Device) -> tuple[Array, Array] | None:
    """Seconds of the host and of the GPU."""
    chip = chip_of(device, "fp32")
    chosen = choose(device.kernels.get(kernel.family, ()), kernel.stack, kernel.format)
    if chosen is None or chip is None:
        return None
    busy = function(kernel.family)(**kernel.arguments, chip=chip, p={**chosen.parameters, **_AT_ONCE})
    return kernel.count * chosen.parameters["launch"], kernel.count * busy
