"""A drive with requests in flight (flash, SATA, a provisioned cloud disk): seconds for each request while all are busy.

A request of c bytes waits `latency` for its first byte, moves at `stream`, and keeps the drive busy for

    demand = command + c / bandwidth         alone = latency + c / stream

With `depth` requests always in flight that is a closed queueing network of one queue and a delay (Reiser and Lavenberg 1980;
the machine repairman's problem), whose throughput is known in closed form:

    requests/s = (1 - B(depth, alone / demand)) / demand    B: Erlang's loss formula

It rises as depth / (alone + demand) and ends at 1 / demand. A set of parameters stands for one drive behind one controller and
one direction. Left out: caches in front of a drive, throttling, garbage collection, how pages lie in flash, fairness.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwsim.kernels.chip import Chip, Parameter
from hwsim.op import Array

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("latency", "s", 100e-6, 0.01e-6, 20e-3, "wait of a request for its first byte"),
    Parameter("command", "s", 10e-6, 0.1e-6, 1e-3, "time that a request keeps the drive busy, besides its bytes"),
    Parameter("stream", "B/s", 0.5e9, 0.01e9, 10e9, "rate of one request alone"),
    Parameter("bandwidth", "B/s", 0.5e9, 0.01e9, 20e9, "rate of all requests together"),
)


def drive(*, chunk: Array, depth: Array, chip: Chip | None, p: Mapping[str, Array]) -> Array:
    """Seconds for each request of `chunk` bytes with `depth` of them in flight; the chip has no part in it."""
    demand = p["command"] + chunk / p["bandwidth"]
    alone = p["latency"] + chunk / p["stream"]
    return demand / (1.0 - lost(depth, alone / demand))


def lost(servers: Array, offered: Array) -> Array:
    """Erlang's loss formula for `offered` traffic, by its recurrence: 1 / B(n) = 1 + n / (offered x B(n - 1))."""
    inverse: Array = 1.0
    found: Array = np.zeros(np.broadcast_shapes(np.shape(servers), np.shape(offered)))
    wanted = set(np.unique(servers).tolist())
    with np.errstate(over="ignore"):
        for n in range(1, int(np.max(servers)) + 1):
            inverse = 1.0 + n / offered * inverse
            if n in wanted:
                found = np.where(np.equal(servers, n), 1.0 / inverse, found)
            if np.min(inverse) > 1e18:  # of deeper ones nothing is lost, to rounding
                break
    return found if np.ndim(found) else float(found)
