"""The event road: rows -> Trace on SimPy. Units are in-order queues, memories are shared fairly, links are units like any other.

One process per unit takes its rows in order. A row waits for its `after` rows and for credits of the buffers it takes, spends its
fixed time, then computes and moves its bytes at once; it ends when both are done. Fixed time holds the unit but no memory. A row
with a program plays it instead (engine/streams.py).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Any

import simpy

from hwsim.device import Device
from hwsim.engine.bandwidth import SharedBandwidth
from hwsim.engine.record import finished
from hwsim.engine.streams import play
from hwsim.engine.tasks import Task, tasks, unfold
from hwsim.errors import InputError
from hwsim.placement.capacity import check_capacity
from hwsim.placement.rows import Row
from hwsim.trace import Trace

_Key = tuple[tuple[int, int], str]


def simulate(rows: Sequence[Row], device: Device, fold: bool = True) -> Trace:
    """Run `rows` on one device of each stage and return what happened. `fold=False` runs every repetition on its own.

    Raises CapacityError when the rows' weights, KV cache and activations do not fit, InputError when rows wait for one another
    or for buffer room that never comes.
    """
    check_capacity(rows, device)
    every = tasks(rows, device) if fold else unfold(tasks(rows, device))
    run = Events(every, device)
    run.env.run()
    if len(run.ends) < len(every):
        stuck = next(task.row.op.name for index, task in enumerate(every) if index not in run.ends)
        raise InputError(f"{device.name}: {stuck} never starts: rows wait for one another or for room in a buffer")
    return finished(every, run.starts, run.ends, device, run.served())


class Events:
    """One simulation: the environment, its memories and buffers, and when every task started and ended."""

    def __init__(self, every: list[Task], device: Device) -> None:
        self.env = simpy.Environment()
        self.device = device
        self.starts: dict[int, float] = {}
        self.ends: dict[int, float] = {}
        self._memories: dict[_Key, SharedBandwidth] = {}
        self._buffers: dict[_Key, simpy.Container] = {}
        self._rates = {name: float(memory.rate) for name, memory in device.memories.items()}
        queues: dict[_Key, list[tuple[int, Task]]] = {}
        for index, task in enumerate(every):
            queues.setdefault(task.queue, []).append((index, task))
            for name, limit in task.cost.limit.items() if task.row.unit in device.units else ():
                # a kernel model may reach more than the mean efficiency of the memory
                self._rates[name] = max(self._rates[name], float(limit))
        # only tasks that another queue waits for need an event; within a queue, order is enough
        awaited = {i for task in every for i in task.after if every[i].queue != task.queue}
        self._done = {i: self.env.event() for i in sorted(awaited)}
        for queue in queues.values():
            self.env.process(self._unit(queue))

    def _unit(self, queue: list[tuple[int, Task]]) -> Generator[simpy.Event]:
        env, done = self.env, self._done
        for index, task in queue:
            for i in task.after:
                if i in done and not done[i].processed:
                    yield done[i]
            if task.row.takes:
                yield from self._take(task)
            self.starts[index] = env.now
            cost, scale = task.cost, float(task.scale)
            if cost.program:
                yield from play(env, cost.program, scale)
                self._account(task)
                self._end(index, task)
                continue
            if cost.fixed_s:
                yield env.timeout(float(cost.fixed_s) * scale)
            flows = [self._memory(task, memory).transfer(float(moved) * scale, float(cost.limit[memory]))
                     for memory, moved in cost.traffic.items() if moved]  # fmt: skip
            if cost.busy_s:
                yield env.timeout(float(cost.busy_s) * scale)
            for flow in flows:
                if not flow.processed:
                    yield flow
            self._end(index, task)

    def _account(self, task: Task) -> None:
        """The bytes of a program, which its own ports carried."""
        for name, moved in task.cost.traffic.items():
            self._memory(task, name).served += float(moved * task.scale)

    def _end(self, index: int, task: Task) -> None:
        self.ends[index] = self.env.now
        for name, amount in task.row.gives.items():
            self._buffer(task, name).put(amount)
        if index in self._done:
            self._done[index].succeed()

    def _take(self, task: Task) -> Generator[Any]:
        for name, amount in task.row.takes.items():
            if amount:
                yield self._buffer(task, name).get(amount)

    def _memory(self, task: Task, name: str) -> SharedBandwidth:
        key = (task.device, name)
        if key not in self._memories:
            self._memories[key] = SharedBandwidth(self.env, self._rates[name])
        return self._memories[key]

    def _buffer(self, task: Task, name: str) -> simpy.Container:
        key = (task.device, name)
        if key not in self._buffers:
            room = float(self.device.buffers[name].capacity)
            self._buffers[key] = simpy.Container(self.env, init=room, capacity=room)
        return self._buffers[key]

    def served(self) -> dict[str, float]:
        """Bytes that each memory served, over all simulated devices."""
        totals: dict[str, list[float]] = {}
        for (_, name), memory in self._memories.items():
            totals.setdefault(name, []).append(memory.served)
        return {name: math.fsum(parts) for name, parts in totals.items()}
