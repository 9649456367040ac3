"""Seconds and joules of serving steps: one estimate of a whole pass, taken apart so that a step costs microseconds.

A step is one pass over chunks of prompts and decoding sequences. Its ops are of three kinds:

- ops of all tokens (linear layers, experts, norms, collectives): priced for 256 numbers of tokens in one call, and kept;
- the head, which sees sequences instead of tokens: read from the same tables;
- ops of one phase (attention): of prompts priced for the step; of decodes, which see only how many sequences read how many
  cached tokens, for 1,024 numbers of these in one call, and kept.

They are scheduled by the recurrence of engine/estimate.py, so a step takes what `estimate` says of the whole pass, to rounding
(tested for every device). n steps in a row grow every context by one token each, and cost one call. What the host adds is
hwsim/host.py.

With a seed an MoE network's experts are drawn for every step from a stream of their own, one draw for the layers of a kind; then
nothing can be kept, and the whole pass is estimated, again for n steps in one call.

Data-parallel ranks: decodes are spread evenly, prompts dealt in turn, and all wait for the rank with most prompt tokens; experts
that are dealt over ranks see the tokens of all, and the exchange before and after them takes as long as where all ranks have as
many: software gathers the prompt of one rank rather than send each token to every expert's device. Pipeline stages do a step one
after another (no microbatches). Left out: contention for a memory that two units draw on at once (as in `estimate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwsim.cost import energy, price
from hwsim.device import Device
from hwsim.engine import Estimate, estimate
from hwsim.engine.record import copies
from hwsim.engine.tasks import Task, tasks
from hwsim.host import Host, launches
from hwsim.job import Context
from hwsim.lowering.batch import Batch, Extent, Sequences, extent
from hwsim.lowering.transformer import phase_of, resized
from hwsim.op import Array, Experts, Op, larger
from hwsim.placement import Row, place
from hwsim.placement.policy import ALL, Part, able

Floats = NDArray[np.float64]
BLOCK = 256  # numbers of tokens that are priced together
READ = 1024  # numbers of cached tokens, for a number of sequences, whose reading is priced together
KEPT = 4096  # of these blocks, 32 MB
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
        return _new(self.chunks) + len(self.contexts)

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
        self.read: dict[tuple[str, int, int], _Priced] = {}
        self.ran: list[_Run] = []
        self.waiting = 0  # steps in `ran`
        self.spent: dict[str, float] = {}
        self.priced: tuple[Step, int, Estimate] | None = None  # with experts drawn: the step, how many of it, and their pass

    def seconds(self, step: Step, n: int = 1, first: int = 0) -> Floats:
        """Seconds of `n` steps in a row that start as `step`; only decoding sequences when n > 1.

        `first` is the number of the first one, by which experts are drawn.
        """
        on_gpu = self._sampled(step, n, first) if self.context.routing.seed is not None else self._tabled(step, n)
        kernels = self._table(step.phases, step.tokens)[0].launches if self.host.launch else 0
        sequences = self._busiest(step).sequences / self.context.plan.dp
        return np.broadcast_to(self.host.seconds(on_gpu, kernels, sequences, bool(step.chunks)), (n,))

    def ran_for(self, step: Step, n: int, first: int = 0) -> None:
        """Count the energy of the first `n` steps that start as `step`."""
        if self.context.routing.seed is not None:
            planned, whole = self._mean_pass(step, n, first)
            shares = {name: np.broadcast_to(joules, (planned,))[:n] for name, joules in whole.joules().items()}
            self._add({name: float(np.sum(joules)) for name, joules in shares.items()})
            return
        part = 1.0 / self.context.plan.dp
        prompts = {window: _prefilling(step.chunks, window, part) for window in self._windows} if step.chunks else {}
        read = {window: _read(step.contexts, n, window) for window in self._windows} if len(step.contexts) else {}
        self.ran.append(_Run(step.phases, step.tokens, step.sequences, n, len(step.contexts), prompts, read))
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
        busiest = self._busiest(step)
        table, at = self._table(step.phases, busiest.tokens)
        own = {index: self._phased(op, step, busiest, n) for index, op in table.phased.items()}
        if busiest.tokens != step.tokens and self.context.plan.ep > 1:
            own |= self._met(table, step)
        head, of = self._table(("decode",), busiest.sequences)
        return table.latency(at, own) + float(head.head[of])

    def _busiest(self, step: Step) -> _Rank:
        """The data-parallel rank that others wait for: prompts are dealt in turn, decodes evenly."""
        ranks, decoding = self.context.plan.dp, len(step.contexts)
        if ranks == 1 or not step.chunks:
            return _Rank(step.chunks, step.tokens, step.sequences)
        chunks = max((step.chunks[rank::ranks] for rank in range(ranks)), key=_new)
        return _Rank(chunks, ranks * _new(chunks) + decoding, ranks * len(chunks) + decoding)

    def _met(self, table: _Table, step: Step) -> dict[int, _Priced]:
        """Experts that are dealt over data-parallel ranks, and what is exchanged for them, see the tokens of all ranks."""
        mean, at = self._table(step.phases, step.tokens)
        seconds = {task.row.op.name: float(mean.seconds[index, at]) for index, task in mean.shared.items()}
        return {index: _Priced(seconds.get(task.row.op.name, 0.0), task.queue) for index, task in table.shared.items()}

    def _phased(self, op: Op, step: Step, busiest: _Rank, n: int) -> _Priced:
        """An op of one phase for n steps: of decodes by what they read, which is a whole number and so can be kept."""
        window = int(getattr(op, "window", 0))
        if phase_of(op) == "prefill":
            return self._alone(resized(op, _prefilling(busiest.chunks, window, 1.0)))
        read = _read(step.contexts, n, window)
        return self._kept(op, len(step.contexts), read.astype(np.int64))

    def _kept(self, op: Op, sequences: int, read: NDArray[np.int64]) -> _Priced:
        """Seconds of a decoding op that reads so many cached tokens, out of blocks of READ such numbers."""
        first, last = int(read[0]) // READ, int(read[-1]) // READ
        blocks = [self._read_block(op, sequences, block) for block in range(first, last + 1)]
        seconds = np.concatenate([block.seconds for block in blocks]) if last > first else blocks[0].seconds
        return _Priced(np.asarray(seconds)[read - first * READ], blocks[0].queue)

    def _read_block(self, op: Op, sequences: int, block: int) -> _Priced:
        key = (op.name, sequences, block)
        if key not in self.read:
            if len(self.read) >= KEPT:
                self.read.clear()
            read = np.maximum(np.arange(block * READ, (block + 1) * READ, dtype=float), sequences)
            priced = self._alone(resized(op, self._decoding(sequences, read)))
            self.read[key] = _Priced(np.broadcast_to(priced.seconds, (READ,)), priced.queue)
        return self.read[key]

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
        ops = context.lowered(tuple(groups[phase] for phase in phases), routing)
        return _Table(tasks(context.placed(ops, self._somewhere), self.device), self.device)

    def _somewhere(self, op: Op, device: Device) -> Mapping[str, Array | Part]:
        return {able(op, device)[0]: ALL} if phase_of(op) else self.context.policy(op, device)

    def _alone(self, op: Op) -> _Priced:
        """Seconds of an op where the policy sends it, repetitions included, and its queue."""
        rows = place([op], self.device, self.context.policy)
        seconds: Array = 0.0
        for row in rows:
            seconds = seconds + price(row.op, row.unit, self.device, row.home).alone_s * (op.repeat * row.share)
        return _Priced(seconds, rows[0].queue or rows[0].unit)

    @cached_property
    def _windows(self) -> tuple[int, ...]:
        """Sliding windows of the network's layers, 0 for none."""
        return tuple(sorted({layer.attention.window or 0 for layer, _ in self.context.model.layers}))

    def _decoding(self, sequences: Array, read: Floats) -> Extent:
        """What attention sees of so many decoding sequences that read so many tokens, of one data-parallel rank."""
        part = 1.0 / self.context.plan.dp
        return Extent(part * sequences, part * sequences, part * read, part * read, part * read)

    # ---- energy ----------------------------------------------------------------------------------------------------------------

    def _spend(self) -> None:
        """Energy of the steps that wait for it, all of one sort in one broadcast."""
        for phases in sorted({run.phases for run in self.ran}):
            self._spend_on(phases, [run for run in self.ran if run.phases == phases])
        self.ran, self.waiting = [], 0

    def _spend_on(self, phases: tuple[str, ...], runs: list[_Run]) -> None:
        for run in runs:
            self._spend_tabled(phases, run.tokens, run.steps, head=False)
            self._spend_tabled(("decode",), run.sequences, run.steps, head=True)
        table, _ = self._table(phases, runs[0].tokens)
        for op in table.phased.values():
            self._add(self._energy_alone(resized(op, self._seen(op, runs)), table.many))

    def _spend_tabled(self, phases: tuple[str, ...], total: int, steps: int, head: bool) -> None:
        table, at = self._table(phases, total)
        self._add({name: values[at] * steps for name, values in table.joules(head).items()})

    def _seen(self, op: Op, runs: list[_Run]) -> Extent:
        """What an op of one phase saw in all runs, a point for each step."""
        window = int(getattr(op, "window", 0))
        if phase_of(op) == "prefill":
            seen = [run.prompts[window] for run in runs]
            return Extent(*(np.array([getattr(one, name) for one in seen]) for name in Extent.__dataclass_fields__))
        sequences = np.repeat([float(run.decoding) for run in runs], [run.steps for run in runs])
        return self._decoding(sequences, np.concatenate([run.read[window] for run in runs]))

    def _energy_alone(self, op: Op, many: float) -> dict[str, float]:
        """Joules per component of an op over all its points, where the policy sends it."""
        total: dict[str, float] = {}
        for row in place([op], self.device, self.context.policy):
            cost = price(row.op, row.unit, self.device, row.home)
            for name, joules in energy(cost, row.op, row.unit, self.device).items():
                total[name] = total.get(name, 0.0) + float(np.sum(joules * (op.repeat * row.share))) * many
        return total

    # ---- with experts drawn ----------------------------------------------------------------------------------------------------

    def _sampled(self, step: Step, n: int, first: int) -> Array:
        whole = estimate(self._rows(step, n, first), self.device)
        self.priced = (step, n, whole) if self.context.plan.dp == 1 else None
        return whole.latency_s

    def _mean_pass(self, step: Step, n: int, first: int) -> tuple[int, Estimate]:
        """A pass of the mean data-parallel rank and of how many steps it is: at least n, those that were just priced."""
        if self.priced is not None and self.priced[0] is step and self.priced[1] >= n:
            return self.priced[1:]
        return n, estimate(self._rows_of(step.chunks, 1.0 / self.context.plan.dp, step, n, first), self.device)

    def _rows(self, step: Step, n: int, first: int) -> list[Row]:
        """All ops as the busiest data-parallel rank sees them; those that are shared by all ranks with the mean of these."""
        plan = self.context.plan
        mean = self._rows_of(step.chunks, 1.0 / plan.dp, step, n, first)
        if plan.dp == 1 or not step.chunks:
            return mean
        alone = self._rows_of(self._busiest(step).chunks, 1.0, step, n, first)
        shared = {row.op.name: row for row in mean if _shared(row.op)} if plan.ep > 1 else {}
        return [shared.get(row.op.name, row) for row in alone]

    def _rows_of(self, chunks: Sequence[tuple[int, int]], part: float, step: Step, n: int, first: int) -> list[Row]:
        """All ops of `part` of these chunks beside a rank's decodes of a step, for n steps."""
        grown = np.arange(n, dtype=float)
        decodes = tuple(Sequences(1.0 / self.context.plan.dp, 1.0, past + grown) for past in step.contexts.tolist())
        return self.context.rows((*_groups(chunks, part), *decodes), replace(self.context.routing, draw=first, draws=n))


class _Rank(NamedTuple):
    """Chunks of a data-parallel rank; tokens and sequences of a pass whose mean rank has as many as this one."""

    chunks: Sequence[tuple[int, int]]
    tokens: int
    sequences: int


@dataclass(frozen=True, eq=False)
class _Priced:
    """Seconds of an op, and the queue that it takes them in."""

    seconds: Array
    queue: object


@dataclass(frozen=True, eq=False)
class _Run:
    """`steps` steps in a row, as their energy needs them: by window, what prompts see and what decodes read in each."""

    phases: tuple[str, ...]
    tokens: int
    sequences: int
    steps: int
    decoding: int
    prompts: Mapping[int, Extent]
    read: Mapping[int, Floats]


class _Table:
    """The ops of a pass, priced for BLOCK numbers of tokens: the head apart, ops of one phase to be priced for each step."""

    def __init__(self, every: list[Task], device: Device) -> None:
        self.device, self.many = device, copies(every, device)
        self.body = [task for task in every if not _of_head(task)]
        self.last = [task for task in every if _of_head(task)]  # in series
        self.phased = {index: task.row.op for index, task in enumerate(self.body) if phase_of(task.row.op)}
        self.shared = {index: task for index, task in enumerate(self.body) if _shared(task.row.op)}
        self.seconds = _by_tokens([task.cost.alone_s * task.scale for task in self.body])
        self.head = _by_tokens([task.cost.alone_s * task.scale for task in self.last]).sum(axis=0)
        self.after = [task.after for task in self.body]
        self.queues: list[object] = [task.queue for task in self.body]
        self.launches = launches(task.row.op for task in every)
        self.known: dict[bool, dict[str, list[float]]] = {}

    @cached_property
    def in_series(self) -> bool:
        """Whether every op waits for the one before it, as long as ops of one phase side by side share a queue."""
        return all(
            index - 1 in waits or {index - 1, index} <= self.phased.keys() or self._same_queue(index)
            for index, waits in enumerate(self.after) if index
        )  # fmt: skip

    def _same_queue(self, index: int) -> bool:
        return not {index - 1, index} & self.phased.keys() and self.queues[index] == self.queues[index - 1]

    @cached_property
    def others(self) -> list[float]:
        """Seconds of all ops that are not of one phase, one after another, by number of tokens."""
        total: list[float] = np.delete(self.seconds, list(self.phased), axis=0).sum(axis=0).tolist()
        return total

    def latency(self, at: int, own: Mapping[int, _Priced]) -> Array:
        """End of the last op of the body, given those of one phase and any others whose price is not the table's."""
        if self.in_series and own.keys() == self.phased.keys() and len({one.queue for one in own.values()}) == 1:
            total: Array = self.others[at]
            for one in own.values():
                total = total + one.seconds
            return total
        seconds: list[Array] = self.seconds[:, at].tolist()
        queues = list(self.queues)
        for index, one in own.items():
            seconds[index], queues[index] = one.seconds, one.queue
        return _latency(self.after, queues, seconds)

    def joules(self, head: bool) -> dict[str, list[float]]:
        """Joules per component of the head, or of all other ops that are not of one phase, over all devices."""
        if head not in self.known:
            every = self.last if head else [task for i, task in enumerate(self.body) if i not in self.phased]
            self.known[head] = {name: values.tolist() for name, values in self._summed(every).items()}
        return self.known[head]

    def _summed(self, every: list[Task]) -> dict[str, Floats]:
        total: dict[str, Floats] = {}
        for task in every:
            many = task.scale * task.row.op.stands_for * self.many
            for name, joules in energy(task.cost, task.row.op, task.row.unit, self.device).items():
                total[name] = total.get(name, 0.0) + np.broadcast_to(joules * many, (BLOCK,))
        return total


def _of_head(task: Task) -> bool:
    return task.row.op.block.partition("@")[0] == HEAD


def _shared(op: Op) -> bool:
    """Whether an op of one data-parallel rank sees the tokens of all: experts, and the exchange before and after them."""
    return isinstance(op, Experts) or op.kind == "all_to_all"


def _new(chunks: Sequence[tuple[int, int]]) -> int:
    return sum(new for new, _ in chunks)


def _groups(chunks: Sequence[tuple[int, int]], part: float) -> Batch:
    return tuple(Sequences(part, float(new), float(past)) for new, past in chunks)


def _prefilling(chunks: Sequence[tuple[int, int]], window: int, part: float) -> Extent:
    """What attention sees of prompts, or of a part of each."""
    return extent(_groups(chunks, part), window or None)


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
