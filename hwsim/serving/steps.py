"""Seconds and joules of serving steps: one estimate of a whole pass, taken apart so that a step costs microseconds.

A step is one pass over chunks of prompts and decoding sequences. Its ops are of three kinds:

- ops of all tokens (linear layers, experts, norms, collectives): priced for 256 numbers of tokens in one call, and kept;
- the head, which sees sequences instead of tokens: read from the same tables;
- ops of prefilling or of decoding sequences (attention): priced for the step, or for n steps in a row as one array.

They are scheduled by the recurrence of engine/estimate.py, so a step takes what `estimate` says of the whole pass, to rounding
(tested for every device). n steps in a row grow every context by one token each, and cost one call. What the host adds is
hwsim/serving/host.py.

With a seed an MoE network's experts are drawn for every step from a stream of their own, one draw for the layers of a kind; then
nothing can be kept, and the whole pass is estimated, again for n steps in one call.

Data-parallel ranks share a step's sequences evenly; pipeline stages do a step one after another (no microbatches). Left out:
imbalance between data-parallel ranks, contention for a memory that two units draw on at once (as in `estimate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwsim.cost import drawn, price
from hwsim.device import Device
from hwsim.engine import estimate
from hwsim.engine.record import copies
from hwsim.engine.tasks import Task, tasks
from hwsim.job import Context
from hwsim.lowering.batch import Batch, Extent, Sequences, extent
from hwsim.lowering.transformer import lower, phase_of, resized
from hwsim.op import Array, Op, larger
from hwsim.placement import Row, parallelize, place
from hwsim.placement.policy import ALL, Part, able
from hwsim.serving.host import Host

Floats = NDArray[np.float64]
BLOCK = 256  # numbers of tokens that are priced together
SPEND = 16_384  # steps whose energy is worked out together
HEAD = "head"


@dataclass(frozen=True, eq=False)
class Step:
    """What one step does: (new tokens, tokens before) of each chunk of a prompt, and the tokens before each decoding one."""

    chunks: Sequence[tuple[int, int]]
    contexts: Floats

    @cached_property
    def tokens(self) -> int:
        """New tokens of the pass."""
        return sum(new for new, _ in self.chunks) + len(self.contexts)

    @property
    def sequences(self) -> int:
        """Sequences in the pass."""
        return len(self.chunks) + len(self.contexts)

    @property
    def phases(self) -> tuple[str, ...]:
        """Which sorts of attention it has."""
        return ("prefill",) * bool(self.chunks) + ("decode",) * bool(len(self.contexts))


class Steps:
    """Prices of the steps of one engine, and the energy of those that were run."""

    def __init__(self, context: Context, host: Host) -> None:
        self.context, self.host, self.device = context, host, context.device
        self.tables: dict[tuple[tuple[str, ...], int], _Table] = {}
        self.ran: list[_Run] = []
        self.waiting = 0  # steps in `ran`
        self.spent: dict[str, float] = {}

    def seconds(self, step: Step, n: int = 1, first: int = 0) -> Floats:
        """Seconds of `n` steps in a row that start as `step`; only decoding sequences when n > 1.

        `first` is the number of the first one, by which experts are drawn.
        """
        on_gpu = self._drawn(step, n, first) if self.context.routing.seed is not None else self._tabled(step, n)
        if step.chunks and self.host.launch:
            on_gpu = larger(on_gpu, float(self.host.launch) * self._table(step.phases, step.tokens)[0].launches)
        return np.broadcast_to(on_gpu + self.host.seconds(step.sequences), (n,))

    def ran_for(self, step: Step, n: int, first: int = 0) -> None:
        """Count the energy of the first `n` steps that start as `step`."""
        if self.context.routing.seed is not None:
            whole = estimate(self._rows(step, n, first), self.device)
            self._add({name: float(np.sum(np.broadcast_to(joules, (n,)))) for name, joules in whole.joules().items()})
            return
        seen = {window: self._extents(step, n, window) for window in self._windows}
        self.ran.append(_Run(step.phases, step.tokens, step.sequences, n, seen))
        self.waiting += n
        if self.waiting > SPEND:
            self._spend()

    def joules(self) -> dict[str, float]:
        """Joules per component of all steps that ran, over all devices; static energy left out."""
        self._spend()
        return dict(self.spent)

    def _add(self, joules: dict[str, float]) -> None:
        for name, value in joules.items():
            self.spent[name] = self.spent.get(name, 0.0) + value

    # ---- by tables -------------------------------------------------------------------------------------------------------------

    def _tabled(self, step: Step, n: int) -> Array:
        table, at = self._table(step.phases, step.tokens)
        seconds: list[Array] = table.seconds[:, at].tolist()
        queues = table.queues
        for index, op in table.phased.items():
            seen = self._extents(step, n, int(getattr(op, "window", 0)))[phase_of(op)]
            seconds[index], queues[index] = self._alone(resized(op, seen))
        head, of = self._table(("decode",), step.sequences)
        return _latency(table.after, queues, seconds) + float(head.head[of])

    def _table(self, phases: tuple[str, ...], tokens: int) -> tuple[_Table, int]:
        """The table that holds this number of tokens, and where."""
        block, at = divmod(tokens - 1, BLOCK)
        key = (phases, block)
        if key not in self.tables:
            self.tables[key] = self._built(phases, np.arange(block * BLOCK + 1.0, (block + 1) * BLOCK + 1.0))
        return self.tables[key], at

    def _built(self, phases: tuple[str, ...], tokens: Floats) -> _Table:
        """Every op of a pass of so many tokens; those of one phase stand for themselves and are priced anew for every step."""
        part = tokens / (len(phases) * self.context.plan.dp)
        groups = {"prefill": Sequences(1.0, part, 0.0), "decode": Sequences(part, 1.0, 1.0)}
        context, routing = self.context, replace(self.context.routing, seed=None)  # drawn experts are never kept, launches are
        ops = lower(context.model, tuple(groups[phase] for phase in phases), context.precision, routing, context.job.mla)
        rows = place(parallelize(ops, context.plan, self.device), self.device, self._somewhere)
        return _Table(tasks(rows, self.device), self.device)

    def _somewhere(self, op: Op, device: Device) -> Mapping[str, Array | Part]:
        return {able(op, device)[0]: ALL} if phase_of(op) else self.context.policy(op, device)

    def _alone(self, op: Op) -> tuple[Array, str]:
        """Seconds of an op where the policy sends it, repetitions included, and its queue."""
        rows = place([op], self.device, self.context.policy)
        seconds = sum(price(row.op, row.unit, self.device, row.home).alone_s * (op.repeat * row.share) for row in rows)
        return seconds, rows[0].queue or rows[0].unit

    @cached_property
    def _windows(self) -> tuple[int, ...]:
        """Sliding windows of the network's layers, 0 for none."""
        return tuple(sorted({layer.attention.window or 0 for layer, _ in self.context.model.layers}))

    def _extents(self, step: Step, n: int, window: int) -> dict[str, Extent]:
        """What attention sees of each phase, for n steps; of one data-parallel rank."""
        part, found = 1.0 / self.context.plan.dp, {}
        if step.chunks:
            groups = tuple(Sequences(part, float(new), float(past)) for new, past in step.chunks)
            found["prefill"] = extent(groups, window or None)
        if len(step.contexts):
            read = part * _read(step.contexts, n, window)
            many = part * len(step.contexts)
            found["decode"] = Extent(many, many, read, read, read)
        return found

    # ---- energy ----------------------------------------------------------------------------------------------------------------

    def _spend(self) -> None:
        """Energy of the steps that wait for it, all of one sort in one broadcast."""
        for phases in sorted({run.phases for run in self.ran}):
            self._spend_on(phases, [run for run in self.ran if run.phases == phases])
        self.ran, self.waiting = [], 0

    def _spend_on(self, phases: tuple[str, ...], runs: list[_Run]) -> None:
        steps = np.array([run.steps for run in runs])
        for kind, totals, head in (
            (phases, [run.tokens for run in runs], False),
            (("decode",), [r.sequences for r in runs], True),
        ):
            for total in set(totals):
                times = float(steps[np.equal(totals, total)].sum())
                table, at = self._table(kind, total)
                self._add({name: float(joules[at]) * times for name, joules in table.joules(head).items()})
        table, _ = self._table(phases, runs[0].tokens)
        for op in table.phased.values():
            window = int(getattr(op, "window", 0))
            self._add(
                self._drawn_alone(resized(op, _joined([run.seen[window][phase_of(op)] for run in runs], steps)), table.many)
            )

    def _drawn_alone(self, op: Op, many: float) -> dict[str, float]:
        """Joules per component of an op over all its points, where the policy sends it."""
        total: dict[str, float] = {}
        for row in place([op], self.device, self.context.policy):
            cost = price(row.op, row.unit, self.device, row.home)
            for name, joules in drawn(cost, row.op, row.unit, self.device).items():
                total[name] = total.get(name, 0.0) + float(np.sum(joules * (op.repeat * row.share))) * many
        return total

    # ---- with experts drawn ----------------------------------------------------------------------------------------------------

    def _drawn(self, step: Step, n: int, first: int) -> Array:
        return estimate(self._rows(step, n, first), self.device).latency_s

    def _rows(self, step: Step, n: int, first: int) -> list[Row]:
        part = 1.0 / self.context.plan.dp
        grown = np.arange(n, dtype=float)
        batch: Batch = (
            *(Sequences(part, float(new), float(past)) for new, past in step.chunks),
            *(Sequences(part, 1.0, past + grown) for past in step.contexts.tolist()),
        )
        return self.context.rows(batch, replace(self.context.routing, draw=first, draws=n))


@dataclass(frozen=True, eq=False)
class _Run:
    """`steps` steps in a row, as their energy needs them."""

    phases: tuple[str, ...]
    tokens: int
    sequences: int
    steps: int
    seen: dict[int, dict[str, Extent]]


class _Table:
    """The ops of a pass, priced for BLOCK numbers of tokens: the head apart, ops of one phase to be priced for each step."""

    def __init__(self, every: list[Task], device: Device) -> None:
        self.device, self.many = device, copies(every, device)
        self.body = [task for task in every if not _of_head(task)]
        self.last = [task for task in every if _of_head(task)]  # in series
        self.phased = {index: task.row.op for index, task in enumerate(self.body) if phase_of(task.row.op)}
        self.seconds = _by_tokens([task.cost.alone_s * task.scale for task in self.body])
        self.head = _by_tokens([task.cost.alone_s * task.scale for task in self.last]).sum(axis=0)
        self.after = [task.after for task in self.body]
        self.queues: list[object] = [task.queue for task in self.body]
        self.launches = sum(task.row.op.launches * task.row.op.repeat for task in every if not task.row.op.rank)
        self.known: dict[bool, dict[str, Floats]] = {}

    def joules(self, head: bool) -> dict[str, Floats]:
        """Joules per component of the head, or of all other ops that are not of one phase, over all devices."""
        if head not in self.known:
            every = self.last if head else [task for i, task in enumerate(self.body) if i not in self.phased]
            self.known[head] = self._summed(every)
        return self.known[head]

    def _summed(self, every: list[Task]) -> dict[str, Floats]:
        total: dict[str, Floats] = {}
        for task in every:
            many = task.scale * task.row.op.stands_for * self.many
            for name, joules in drawn(task.cost, task.row.op, task.row.unit, self.device).items():
                total[name] = total.get(name, 0.0) + np.broadcast_to(joules * many, (BLOCK,))
        return total


def _of_head(task: Task) -> bool:
    return task.row.op.block.partition("@")[0] == HEAD


def _by_tokens(values: list[Array]) -> Floats:
    return np.array([np.broadcast_to(value, (BLOCK,)) for value in values]).reshape(len(values), BLOCK)


def _latency(after: list[list[int]], queues: list[object], seconds: list[Array]) -> Array:
    """End of the last op: each starts when its queue is free and what it waits for has ended (see engine/estimate.py)."""
    free: dict[object, Array] = {}
    ends: list[Array] = []
    for waits, queue, length in zip(after, queues, seconds, strict=True):
        start = free.get(queue, 0.0)
        for index in waits:
            start = larger(start, ends[index])
        end = start + length
        ends.append(end)
        free[queue] = end
    latest: Array = 0.0
    for end in ends:
        latest = larger(latest, end)
    return latest


def _read(contexts: Floats, n: int, window: int) -> Floats:
    """Cached tokens that all sequences read in each of n steps, the new token included."""
    if not window:
        return float(contexts.sum()) + len(contexts) * np.arange(1.0, n + 1.0)
    grown = contexts[:, None] + np.arange(1.0, n + 1.0)
    return np.asarray(np.minimum(grown, window).sum(axis=0))


def _joined(extents: list[Extent], steps: NDArray[np.int_]) -> Extent:
    """The extents of all runs, a point for each step."""
    joined = {}
    for name in Extent.__dataclass_fields__:
        values = [np.broadcast_to(getattr(one, name), (n,)) for one, n in zip(extents, steps.tolist(), strict=True)]
        joined[name] = np.concatenate(values)
    return Extent(**joined)
