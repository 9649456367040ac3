"""The event road of a program: every instruction unit is a process that issues its beats in order, with credits between units.

A beat waits for its share of the beats of the stream before it and, where the buffer between them is bounded, for room that the
stream after it gives back. `hwsim.cost.streams` says the same in closed form. Which bytes a beat moves was priced with it: each
instruction unit has ports and channels of its own, so that beats do not slow each other.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import simpy

from hwsim.cost.streams import Stage, Stream
from hwsim.errors import InternalError

MANY = 200_000  # beats of a stage that are played one by one; more take as long as the closed form says


def play(env: simpy.Environment, program: Sequence[Stage], scale: float) -> Generator[simpy.Event]:
    """Run the stages of a program one after another, everything in them `scale` x `times` slower (see engine/tasks.py)."""
    for stage in program:
        slower = scale * float(stage.times)
        if sum(float(stream.beats) for stream in stage.streams) > MANY:
            yield env.timeout(float(stage.seconds) * slower)
        elif slower:
            counts = [_Count(env) for _ in stage.streams]
            running = [env.process(_issue(env, stage.streams, index, counts, slower)) for index in range(len(counts))]
            yield from running
            yield env.timeout(float(stage.sync_s) * slower)


class _Count:
    """Beats that a stream has done; who waits for more is woken by the next one."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env, self.done, self._next = env, 0, env.event()

    def add(self) -> None:
        self.done += 1
        if self._next.callbacks:  # somebody waits
            self._next.succeed()
            self._next = self.env.event()

    def reach(self, number: int) -> Generator[simpy.Event]:
        while self.done < number:
            yield self._next


def _issue(
    env: simpy.Environment, streams: Sequence[Stream], index: int, counts: Sequence[_Count], scale: float
) -> Generator[simpy.Event]:
    """All beats of one stream."""
    stream, own = streams[index], counts[index]
    beats, seconds = _whole(stream.beats), float(stream.seconds) * scale
    share = _whole(streams[stream.after].beats / stream.beats) if stream.after >= 0 else 0
    takers = [(later, _whole(stream.beats / one.beats)) for later, one in enumerate(streams) if one.after == index]
    ahead = float(stream.ahead)
    if stream.lead_s:
        yield env.timeout(float(stream.lead_s) * scale)
    for beat in range(beats):
        if share and counts[stream.after].done < (beat + 1) * share:
            yield from counts[stream.after].reach((beat + 1) * share)
        if beat >= ahead:
            for later, each in takers:
                yield from counts[later].reach(int(beat - ahead) // each + 1)
        yield env.timeout(seconds)
        own.add()


def _whole(number: object) -> int:
    value = float(number)  # type: ignore[arg-type]
    if abs(value - round(value)) > 1e-9 * max(abs(value), 1.0):
        raise InternalError(f"a stream has {value} beats; programs are made of whole ones")
    return round(value)
