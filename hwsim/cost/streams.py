"""Programs of instruction streams: what an in-order machine with several instruction units does for one op, in closed form.

A stage is a few streams that work side by side and a barrier after them. A stream is n equal instructions ("beats") of one unit;
beat i of a stream that is `after` another starts when that one has done its share i/n of its beats, and when its own beat i-1
has ended. With unlimited room between them the end of beat i is

    E(i) = seconds + max(E(i-1), E_before(i n_before / n))

whose solution is a maximum of straight lines in i: a line of slope r (seconds a beat) of the stream before becomes one of slope
max(r, seconds), shifted by `seconds` where it is slower and by r where it is faster. So a stage of any length is a few operations
on numbers or arrays. Double buffering (`ahead` of 2 or more beats) does not delay the later stream: a beat that it takes away
makes room before the next one but one is needed. Less than 2 is refused, and the event engine takes and gives the credits.

`times` executions of a stage follow one another, with the barrier between.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from hwsim.errors import InternalError
from hwsim.op import Array, larger

Line = tuple[Array, Array]  # (offset, slope): a beat i ends no earlier than offset + slope i


@dataclass(frozen=True, eq=False)
class Stream:
    """`beats` equal instructions of `seconds` each on the instruction unit `unit`.

    `after` is the position in its stage of the stream whose results it takes, -1 for none, and which has a multiple of its
    beats. `lead_s` comes before the first beat (operands that are loaded once), `ahead` is how many beats fit into the buffer in
    front of the stream that takes its results, infinite by default; `issued` is how many instructions all its beats are, and
    `traffic` their bytes per memory. Of the seconds of a beat the unit waits for `idle_s`.
    """

    unit: str
    seconds: Array
    beats: Array = 1.0
    after: int = -1
    lead_s: Array = 0.0
    ahead: Array = math.inf
    issued: Array = 1.0
    idle_s: Array = 0.0
    traffic: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if np.any(np.less(self.ahead, 2)):
            raise InternalError(f"{self.unit}: a buffer of {self.ahead} beats; accepted: two or more")

    @property
    def busy_s(self) -> Array:
        """Seconds in which the unit works."""
        return self.lead_s + self.beats * (self.seconds - self.idle_s)


@dataclass(frozen=True, eq=False)
class Stage:
    """Streams side by side, each after none or an earlier one, and a barrier of `sync_s` when all have ended.

    A bounded buffer has one stream that takes from it: a second, faster one could be held up by the first.
    """

    streams: Sequence[Stream]
    sync_s: Array = 0.0
    times: Array = 1.0

    def __post_init__(self) -> None:
        taken = [stream.after for stream in self.streams if stream.after >= 0]
        for index, stream in enumerate(self.streams):
            if taken.count(index) > 1 and np.any(np.isfinite(stream.ahead)):
                raise InternalError(f"{stream.unit}: {taken.count(index)} streams take from its buffer; accepted: one")

    @cached_property
    def seconds(self) -> Array:
        """Seconds of one execution."""
        latest: Array = 0.0
        for stream, lines in zip(self.streams, self._lines(), strict=True):
            latest = larger(latest, _at(lines, stream.beats))
        return latest + self.sync_s

    def _lines(self) -> list[list[Line]]:
        found: list[list[Line]] = []
        for stream in self.streams:
            own = [(stream.lead_s, stream.seconds)]
            if stream.after >= 0:
                each = self.streams[stream.after].beats / stream.beats
                own += [_followed(offset, slope * each, stream.seconds) for offset, slope in found[stream.after]]
            found.append(own)
        return found


def _followed(offset: Array, slope: Array, seconds: Array) -> Line:
    """The line of beats of `seconds` that follow a line of `slope` per such beat: the faster of the two slopes is added once."""
    slower = larger(slope, seconds)
    return offset + slope + seconds - slower, slower


def _at(lines: Sequence[Line], beats: Array) -> Array:
    latest: Array = 0.0
    for offset, slope in lines:
        latest = larger(latest, offset + slope * beats)
    return latest


def duration(program: Sequence[Stage]) -> Array:
    """Seconds of all stages, one after another."""
    total: Array = 0.0
    for stage in program:
        total = total + stage.times * stage.seconds
    return total


def moved(program: Sequence[Stage]) -> dict[str, Array]:
    """Bytes per memory of all stages."""
    total: dict[str, Array] = {}
    for stage in program:
        for stream in stage.streams:
            for memory, size in stream.traffic.items():
                total[memory] = total.get(memory, 0.0) + stage.times * size
    return total
