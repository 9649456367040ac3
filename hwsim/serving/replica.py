"""One engine over time: it plans a step, or as many equal ones as it can foresee, and commits what really ran.

While only decodes run, the next steps have the same sequences, each a token longer, until one finishes, blocks run out or a
request arrives. So they are priced in one call (`Steps.seconds`) and their ends are a running sum. An arrival cuts the plan after
the step it falls into: what is later was only priced, never done. A plan of one step at a time takes the same prices and the
same sums, so both give the same times exactly (tested).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwsim.errors import InternalError
from hwsim.serving.log import Log
from hwsim.serving.queue import Queue
from hwsim.serving.schedulers import Batch, Scheduler
from hwsim.serving.sequence import Sequence
from hwsim.serving.steps import Floats, Step, Steps

AHEAD = 1024  # steps that are priced at once, at most


@dataclass(eq=False)
class _Plan:
    """A batch and the times at which its steps end."""

    batch: Batch
    step: Step
    start: float
    ends: Floats


class Replica:
    """An engine: `plan` what comes next, `cut` it when something arrives, `finish` it."""

    def __init__(self, steps: Steps, queue: Queue, scheduler: Scheduler, ahead: int = AHEAD) -> None:
        self.steps, self.queue, self.scheduler, self.ahead = steps, queue, scheduler, ahead
        self.log = Log()
        self.planned: _Plan | None = None
        self.done = 0  # steps so far
        self.pace = 0.0  # seconds of the last step

    @property
    def load(self) -> int:
        """Requests that wait or run."""
        return len(self.queue.waiting) + len(self.queue.running)

    def submit(self, sequence: Sequence) -> None:
        """Put a sequence last in line."""
        self.queue.waiting.append(sequence)

    def plan(self, now: float, until: float) -> float | None:
        """Decide what runs from `now` on; when it ends, None where there is nothing to do. `until`: what is likely to cut it."""
        queue, waiting = self.queue, len(self.queue.waiting)
        batch = self.scheduler(queue)
        if not batch:
            if self.load and not queue.used:  # else blocks come back when a transfer ends
                raise InternalError(f"{self.load} requests wait and none can run")
            self.planned = None
            return None
        for sequence, _ in batch:
            if sequence.started_s < 0:
                sequence.started_s = now
        step = _step(batch)
        # after a step that let someone in, or out, the scheduler may find that it can do so again
        settled = len(queue.waiting) in (0, waiting) and len(batch) == len(queue.running)
        decodes = settled and all(new == sequence.left == 1 for sequence, new in batch)
        n = self._foreseen(now, until) if decodes else 1
        seconds = self.steps.seconds(step, n, self.done)
        ends = np.cumsum(np.concatenate(([now], seconds)))[1:]
        self.pace = float(seconds[-1])
        self.planned = _Plan(batch, step, now, ends)
        return float(ends[-1])

    def _foreseen(self, now: float, until: float) -> int:
        """Steps until a sequence is done or blocks run out, and no more than are likely to run before `until`."""
        most = min(self.ahead, *(sequence.stop - sequence.generated for sequence in self.queue.running))
        if not self.queue.waiting and self.pace and until - now < most * self.pace:
            most = max(1, min(most, int((until - now) / self.pace * 1.1) + 2))
        return self.queue.steps_with_room(most)

    def cut(self, now: float) -> float | None:
        """Keep of the plan what has begun before `now`, when a sequence was submitted; when that ends, None for no change."""
        plan = self.planned
        if plan is None or len(plan.ends) == 1 or len(self.queue.waiting) > 1:  # behind one that cannot run it cannot either
            return None
        kept = int(np.searchsorted(plan.ends, now, side="left")) + 1
        if kept >= len(plan.ends):
            return None
        plan.ends = plan.ends[:kept]
        return float(plan.ends[-1])

    def finish(self) -> list[Sequence]:
        """Do what was planned; the sequences that leave the engine, their blocks still taken."""
        plan = self.planned
        if plan is None:
            raise InternalError("an engine finished a step that it never began")
        self.planned = None
        steps = len(plan.ends)
        self.steps.ran_for(plan.step, steps, self.done)
        self.done += steps
        self._advance(plan)
        self.log.steps(plan.start, plan.ends, plan.step, self.queue)
        left = [sequence for sequence, _ in plan.batch if sequence.generated >= sequence.stop]
        if left:
            leaving = set(map(id, left))
            self.queue.running = [sequence for sequence in self.queue.running if id(sequence) not in leaving]
        return left

    def _advance(self, plan: _Plan) -> None:
        """Every sequence of the batch: tokens computed, and one generated for each step that had all its tokens."""
        steps, first, last = len(plan.ends), float(plan.ends[0]), float(plan.ends[-1])
        steady = 0
        for sequence, new in plan.batch:
            sequence.computed += new + steps - 1
            if sequence.left > 1 - steps:  # a prompt with chunks to come
                continue
            sequence.generated += steps
            if steps > 1:
                self.queue.take(sequence, sequence.computed)
            if sequence.first_s < 0:
                sequence.first_s = first
            elif sequence.last_s == plan.start:
                steady += 1
            else:
                self.log.gap(first - sequence.last_s)
            sequence.last_s = last
        self.log.gaps(plan.start, plan.ends, steady, len(plan.step.contexts))


def _step(batch: Batch) -> Step:
    """A batch as prices see it: a chunk of one token is a decode."""
    chunks = [(new, sequence.computed) for sequence, new in batch if new > 1]
    contexts = np.array([sequence.computed for sequence, new in batch if new == 1], dtype=float)
    return Step(chunks, contexts)
