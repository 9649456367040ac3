"""One pass of a known network over linked devices, as measured tables of servers ask for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hwsim.device import Device
from hwsim.host import Host, launches, load_host
from hwsim.job import Job, estimated
from hwsim.lowering.batch import Batch, sequences
from hwsim.lowering.model import Model

_Found = TypeVar("_Found")


def count(name: str, text: str) -> int:
    """A whole number above 0, also out of a column of floats, which a gap makes of it."""
    if float(text) != round(float(text)) or float(text) < 1:
        raise ValueError(f"{name} {text[:40]}; accepted: a whole number above 0")
    return int(float(text))


def once(work: Callable[..., _Found]) -> Callable[..., _Found]:
    """`work` of a device (and more), done again only for another device: lines of one run share it."""
    last: list[tuple[Device, _Found]] = []

    def found(device: Device, *more: object) -> _Found:
        if not last or last[0][0] is not device:
            last[:] = [(device, work(device, *more))]
        return last[0][1]

    return found


def pass_seconds(model: Model, device: Device, tp: int, batch: Batch, job: Job) -> NDArray[np.float64]:
    """Seconds of one pass on `tp` devices, its host included, an array over those of `batch`; NaN where it does not fit.

    InputError for a network that cannot be divided so.
    """
    server = device.model_copy(update={"count": tp})
    whole = estimated(model, server, batch, replace(job, parallel=f"tp={tp}"))
    host = Host() if job.host is None else load_host(job.host)
    prompts = any(bool(np.any(np.asarray(group.new) > 1)) for group in batch)
    return np.asarray(host.seconds(whole.latency_s, launches(task.row.op for task in whole.tasks), sequences(batch), prompts))
