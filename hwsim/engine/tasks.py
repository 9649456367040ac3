"""Rows, priced and in order: what both roads run. Names become indices, folded blocks get their barriers.

A folded block stands for `repeat` executions with a barrier before, between and after them. Everything in it takes `repeat` times
as long, and fair sharing does not care how long a second is, so one scaled execution takes exactly as long as `repeat` real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hwsim.cost import Cost, price
from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.op import Array
from hwsim.placement.rows import Row


@dataclass(slots=True, eq=False)
class Task:
    """One row with its cost, how often it runs, and the indices of the tasks it waits for."""

    row: Row
    cost: Cost
    scale: Array
    after: list[int]
    segment: int

    @property
    def device(self) -> tuple[int, int]:
        """Stage and rank: each is one simulated device with its own units, memories and buffers."""
        return (self.row.op.stage, self.row.op.rank)

    @property
    def queue(self) -> tuple[tuple[int, int], str]:
        """Device and queue, which is a unit unless the row says otherwise: the rows of one queue run in order."""
        return (self.device, self.row.queue or self.row.unit)


def tasks(rows: Sequence[Row], device: Device) -> list[Task]:
    """Price every row and resolve what it waits for. InputError for a name that no row before it has."""
    named: dict[str, list[int]] = {}
    result: list[Task] = []
    for index, row in enumerate(rows):
        cost = price(row.op, row.unit, device, row.home)
        result.append(Task(row, cost, row.op.repeat * row.share, _waits(row, named), 0))
        named.setdefault(row.op.name, []).append(index)
    _barriers(result)
    return result


def _waits(row: Row, named: dict[str, list[int]]) -> list[int]:
    try:
        return [index for name in row.op.after for index in named[name]]
    except KeyError as error:
        raise InputError(f"op {row.op.name} waits for {error}, which is not before it in the list") from error


def _barriers(every: list[Task]) -> None:
    """Number the segments of each stage and make folded ones start after, and end before, everything around them."""
    segments = _segments(every)
    last_of_stage: dict[int, int] = {}
    for number, segment in enumerate(segments):
        stage = every[segment[0]].row.op.stage
        before = last_of_stage.get(stage)
        if _folded(every, segment) or before is not None:
            _fence(every, segments, number, before)
        last_of_stage[stage] = number


def _segments(every: list[Task]) -> list[list[int]]:
    """Runs of one folded block, or of anything unfolded, within one stage."""
    segments: list[list[int]] = []
    current: dict[int, tuple[object, list[int]]] = {}
    for index, task in enumerate(every):
        op = task.row.op
        key = (op.block, op.repeat) if op.repeat > 1 else None
        if op.stage not in current or current[op.stage][0] != key:
            segments.append([])
            current[op.stage] = (key, segments[-1])
        current[op.stage][1].append(index)
    for number, segment in enumerate(segments):
        for index in segment:
            every[index].segment = number
    return segments


def _folded(every: list[Task], segment: list[int]) -> bool:
    return every[segment[0]].row.op.repeat > 1


def _fence(every: list[Task], segments: list[list[int]], number: int, before: int | None) -> None:
    """First tasks of a segment wait for all that ends the one before; a folded segment's for all it needs from outside."""
    segment = segments[number]
    waits = set(_sinks(every, segments[before])) if before is not None else set()
    if _folded(every, segment):
        waits |= {i for index in segment for i in every[index].after if every[i].segment != number}
    waits |= {
        i for w in tuple(waits) if _folded(every, segments[every[w].segment]) for i in _sinks(every, segments[every[w].segment])
    }
    for index in segment:
        task = every[index]
        if all(every[i].segment != number for i in task.after):
            task.after = sorted(waits.union(task.after))


def _sinks(every: list[Task], segment: list[int]) -> list[int]:
    """Tasks of a segment that no other task of it waits for."""
    awaited = {i for index in segment for i in every[index].after}
    return [index for index in segment if index not in awaited]


def unfold(every: list[Task]) -> list[Task]:
    """Every repetition of folded segments as tasks of its own; the first ones of a repetition wait for all of the one before."""
    segments: dict[int, list[int]] = {}
    for index, task in enumerate(every):
        segments.setdefault(task.segment, []).append(index)
    result: list[Task] = []
    last: dict[int, int] = {}  # index of a task -> index of its last repetition
    for number, segment in segments.items():
        inside: dict[int, int] = {}
        for turn in range(every[segment[0]].row.op.repeat):
            before = [inside[i] for i in _sinks(every, segment)] if turn else []
            inside = {index: len(result) + position for position, index in enumerate(segment)}
            result += [_repetition(every[index], turn, inside, before, len(segments) * turn + number) for index in segment]
        last |= inside
    for task in result:
        task.after = [i if i >= 0 else last[~i] for i in task.after]
    return result


def _repetition(task: Task, turn: int, inside: dict[int, int], before: list[int], segment: int) -> Task:
    """Repetition `turn` of a task. Waits outside the segment are kept as ~index until every task has its new place."""
    op = task.row.op
    own = [inside[i] for i in task.after if i in inside]
    outside = [~i for i in task.after if i not in inside] if turn == 0 else []
    name = f"{op.name}#{turn}" if op.repeat > 1 else op.name
    row = replace(task.row, op=replace(op, name=name, repeat=1))
    return Task(row, task.cost, task.row.share, own + outside + ([] if own else before), segment)
