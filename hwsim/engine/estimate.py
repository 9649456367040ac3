"""The closed road: rows -> arrays. The same prices as the events, scheduled by a max-plus recurrence that broadcasts.

    start(row) = max(end of the rows it waits for, end of the row before it on its unit, when its buffers have room)
    end(row)   = start + scale x alone

Exact where no two rows draw on one memory at once (then `simulate` agrees to 1e-9); otherwise a lower bound, since sharing a
memory can only delay. Credits are taken and given in program order. A point that does not fit is NaN, with a reason.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwsim.cost import energy
from hwsim.device import Device
from hwsim.engine.record import copies
from hwsim.engine.tasks import Task, tasks
from hwsim.errors import InputError
from hwsim.op import Array, larger
from hwsim.placement.capacity import check_capacity, fits
from hwsim.placement.rows import Row

FITS, TOO_LARGE = 0, 1
_Key = tuple[tuple[int, int], str]


@dataclass(frozen=True, eq=False)
class Estimate:
    """Latency and energy per point, per row its seconds, start and end. `reason` is 0, or 1 where the point does not fit."""

    tasks: list[Task]
    device: Device
    starts: list[Array]
    ends: list[Array]
    latency_s: Array
    reason: Array

    @cached_property
    def energy_j(self) -> Array:
        """Joules of all devices, static energy included; worked out when asked for, since most sweeps want the time only."""
        return sum(self.joules().values()) + self.device.static_power * self.latency_s * self.device.count

    @property
    def seconds(self) -> dict[str, Array]:
        """Seconds of each op, repetitions included."""
        totals: dict[str, Array] = {}
        for task, start, end in zip(self.tasks, self.starts, self.ends, strict=True):
            totals[task.row.op.name] = totals.get(task.row.op.name, 0.0) + (end - start)
        return totals

    def joules(self, kinds: Collection[str] = ()) -> dict[str, Array]:
        """Joules per component (memory, unit or link) over all devices, of ops of some `kinds` or all; static energy left out."""
        totals: dict[str, Array] = {}
        many = copies(self.tasks, self.device)
        for task in self.tasks:
            if not kinds or task.row.op.kind in kinds:
                for component, joules in energy(task.cost, task.row.op, task.row.unit, self.device).items():
                    spent = joules * task.scale * task.row.op.stands_for * many
                    totals[component] = totals.get(component, 0.0) + spent
        return totals

    @property
    def contended(self) -> bool:
        """True when two rows draw on one memory of one device at once: then events take longer than this estimate."""
        busy: dict[tuple[tuple[int, int], str], Array] = {}
        for task, start, end in zip(self.tasks, self.starts, self.ends, strict=True):
            for memory in task.cost.traffic:
                key = (task.device, memory)
                if np.any(start < busy.get(key, 0.0)):
                    return True
                busy[key] = larger(busy.get(key, 0.0), end)
        return False


def estimate(rows: Sequence[Row], device: Device) -> Estimate:
    """Price `rows` in closed form; dimensions and device numbers may be arrays that broadcast against each other.

    Scalar runs raise CapacityError when they do not fit; array runs give NaN there.
    """
    every = tasks(rows, device)
    starts, ends = _schedule(every, device)
    latency: Array = 0.0
    for end in ends:
        latency = larger(latency, end)
    fit = fits(rows, device)
    if np.ndim(latency) == 0 and fit.ndim == 0:
        if not fit:
            check_capacity(rows, device)
        return Estimate(every, device, starts, ends, latency, FITS)
    latency, ok = np.broadcast_arrays(latency, fit)
    return Estimate(every, device, starts, ends, np.where(ok, latency, np.nan), np.where(ok, FITS, TOO_LARGE))


def _schedule(every: list[Task], device: Device) -> tuple[list[Array], list[Array]]:
    free: dict[_Key, Array] = {}
    starts: list[Array] = []
    ends: list[Array] = []
    credits = _Credits(device)
    for task in every:
        start = free.get(task.queue, 0.0)
        for i in task.after:
            start = larger(start, ends[i])
        if task.row.takes:
            start = larger(start, credits.available(task))
        end = start + task.cost.alone_s * task.scale
        if task.row.gives:
            credits.give(task, end)
        starts.append(start)
        ends.append(end)
        free[task.queue] = end
    return starts, ends


class _Credits:
    """Room in bounded buffers over time, taken and given back in program order."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.taken: dict[_Key, float] = {}
        self.given: dict[_Key, list[tuple[float, Array]]] = {}

    def available(self, task: Task) -> Array:
        """When everything `task` takes has been given back by rows before it."""
        when: Array = 0.0
        for name, amount in task.row.takes.items():
            key = (task.device, name)
            self.taken[key] = self.taken.get(key, 0.0) + amount
            when = larger(when, self._when_returned(key, self.taken[key] - float(self.device.buffers[name].capacity), task))
        return when

    def _when_returned(self, key: _Key, missing: float, task: Task) -> Array:
        when: Array = 0.0
        for amount, at in self.given.get(key, []):
            if missing <= 0:
                break
            when, missing = larger(when, at), missing - amount
        if missing > 0:
            raise InputError(f"{self.device.name}: {task.row.op.name} never starts: no row before it gives back room in {key[1]}")
        return when

    def give(self, task: Task, at: Array) -> None:
        for name, amount in task.row.gives.items():
            self.given.setdefault((task.device, name), []).append((amount, at))
