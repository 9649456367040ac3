"""One pass of a known network over linked devices, as measured tables of servers ask for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hwsim.device import Device
from hwsim.job import Job, estimated
from hwsim.lowering.batch import Batch
from hwsim.lowering.model import Model


def pass_seconds(model: Model, device: Device, tp: int, batch: Batch, job: Job) -> NDArray[np.float64]:
    """Seconds of one pass on `tp` devices, an array over those of `batch`; NaN where it does not fit.

    InputError for a network that cannot be divided so.
    """
    server = device.model_copy(update={"count": tp})
    return np.asarray(estimated(model, server, batch, replace(job, parallel=f"tp={tp}")).latency_s, dtype=float)
