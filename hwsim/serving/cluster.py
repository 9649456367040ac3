"""Replicas, the requests that reach them, and one clock: a heap of arrivals, ends of steps and ends of transfers.

An arrival goes to a replica by the router; one that works keeps its step and looks again when that ends. Events at one time are
taken in the order in which they were made, but an engine decides on its next step after all else that happens at that time. In a
closed loop `concurrency` requests are under way and one that ends is replaced at once. With disaggregation (Splitwise,
arXiv:2311.18677) prompts run on replicas of their own; then the cache of the prompt crosses a link, one transfer after another
for each sender, which holds its blocks until it has left, and decoding goes on elsewhere.

SimPy's processes are not used here: a plan of many steps that an arrival cuts is one heap entry, and times stay exact sums.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import InternalError
from hwsim.serving.replica import Replica
from hwsim.serving.requests import Floats, Requests
from hwsim.serving.routers import Router
from hwsim.serving.sequence import Sequence
from hwsim.serving.transfer import Transfer

Progress = Callable[[int], None]


@dataclass(frozen=True, eq=False)
class Pool:
    """Replicas that share a sort of work, and who chooses among them."""

    replicas: tuple[Replica, ...]
    router: Router


@dataclass(eq=False)
class Fates:
    """What became of each request: seconds of its first and last token and of its start, NaN where it never came to that."""

    requests: int
    started_s: Floats = field(init=False)
    first_s: Floats = field(init=False)
    finished_s: Floats = field(init=False)
    arrival_s: Floats = field(init=False)
    preemptions: NDArray[np.int64] = field(init=False)
    replica: NDArray[np.int64] = field(init=False)
    rejected: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("started_s", "first_s", "finished_s", "arrival_s"):
            setattr(self, name, np.full(self.requests, np.nan))
        self.preemptions, self.replica = np.zeros(self.requests, dtype=np.int64), np.full(self.requests, -1)

    @property
    def makespan_s(self) -> float:
        """Seconds from the first arrival to the last token; 0 when nothing was completed."""
        ended = self.finished_s[~np.isnan(self.finished_s)]
        return float(ended.max() - np.nanmin(self.arrival_s)) if len(ended) else 0.0


class Cluster:
    """Serves requests on `first`, and decodes on `second` where there is one; they take `ahead_s` to get to an engine."""

    def __init__(
        self, first: Pool, second: Pool | None = None, transfer: Transfer | None = None, ahead_s: float = 0.0
    ) -> None:  # fmt: skip
        self.first, self.second, self.transfer, self.ahead_s = first, second, transfer, ahead_s
        self.sent_joules: dict[str, float] = {}
        self.replicas = (*first.replicas, *(second.replicas if second else ()))
        self.number = {id(replica): index for index, replica in enumerate(self.replicas)}
        self.heap: list[tuple[float, bool, int, Callable[[float], None]]] = []
        self.deciding: set[int] = set()  # replicas that will plan at this time
        self.order = count()
        self.expected: dict[int, int] = {}  # replica -> the entry of the heap that ends its plan; others are void
        self.sent = {id(pool): 0 for pool in (first, second) if pool}
        self.link_free = dict.fromkeys(self.number, 0.0)

    def serve(self, requests: Requests, concurrency: int | None = None, progress: Progress | None = None) -> Fates:
        """Run until every request is completed or rejected. InternalError if one were lost."""
        self.requests, self.fates, self.progress = requests, Fates(len(requests)), progress
        self.arrivals = iter(range(len(requests)))
        self.closed = concurrency is not None
        self.next_arrival = math.inf
        for _ in range(min(concurrency or 1, len(requests))):
            self._next_arrives(0.0)
        while self.heap:
            now, _, _, happens = heapq.heappop(self.heap)
            happens(now)
        ended = np.count_nonzero(~np.isnan(self.fates.finished_s)) + len(self.fates.rejected)
        if ended != len(requests) or any(replica.load or replica.queue.used for replica in self.replicas):
            raise InternalError(f"{len(requests)} requests went in, {ended} came out")
        return self.fates

    def joules(self) -> dict[str, float]:
        """Joules per component of all steps and transfers; static energy left out."""
        total = dict(self.sent_joules)
        for steps in {id(replica.steps): replica.steps for replica in self.replicas}.values():
            for name, value in steps.joules().items():
                total[name] = total.get(name, 0.0) + value
        return total

    def _at(self, when: float, happens: Callable[[float], None], last: bool = False) -> int:
        number = next(self.order)
        heapq.heappush(self.heap, (when, last, number, happens))
        return number

    # ---- arrivals --------------------------------------------------------------------------------------------------------------

    def _next_arrives(self, now: float) -> None:
        """The next request, at its own time or, in a closed loop, now."""
        index = next(self.arrivals, None)
        self.next_arrival = math.inf
        if index is None:
            return
        self.fates.arrival_s[index] = now if self.closed else float(self.requests.arrival_s[index])
        when = float(self.fates.arrival_s[index]) + self.ahead_s
        if not self.closed:
            self.next_arrival = when
        self._at(when, lambda at: self._arrives(index, at))

    def _arrives(self, index: int, now: float) -> None:
        asked = self.requests
        sequence = Sequence(index, now, int(asked.prompt[index]), int(asked.output[index]), int(asked.cached[index]))
        sequence.stop = 1 if self.second else sequence.output
        if not self.closed:
            self._next_arrives(now)
        reason = self._refused(sequence)
        if reason:
            self.fates.rejected[index] = reason
            self._ended(now)
        else:
            self._submit(sequence, self.first, now)

    def _refused(self, sequence: Sequence) -> str:
        """Why a request can never run; "" for one that can."""
        for pool, tokens in (
            (self.first, sequence.prompt if self.second else sequence.final_tokens),
            (self.second, sequence.final_tokens),
        ):
            room = pool.replicas[0].queue.room if pool else None
            if room and room.needed(tokens) > room.longest:
                return f"needs more KV blocks than the {room.longest} of {room.size} tokens that an engine has for one"
        return ""

    def _submit(self, sequence: Sequence, pool: Pool, now: float) -> None:
        replica = pool.replicas[pool.router(pool.replicas, self.sent[id(pool)])]
        self.sent[id(pool)] += 1
        replica.submit(sequence)
        if replica.planned is None:
            self._decides(replica, now)
        else:
            sooner = replica.cut(now)
            if sooner is not None:
                self._ends(replica, sooner)

    # ---- steps -----------------------------------------------------------------------------------------------------------------

    def _decides(self, replica: Replica, now: float) -> None:
        """An idle engine looks for work when all that happens now has happened."""
        if id(replica) not in self.deciding:
            self.deciding.add(id(replica))
            self._at(now, lambda at: self._plan(replica, at), last=True)

    def _plan(self, replica: Replica, now: float) -> None:
        self.deciding.discard(id(replica))
        end = replica.plan(now, self.next_arrival)
        if end is not None:
            self._ends(replica, end)

    def _ends(self, replica: Replica, when: float) -> None:
        number = self._at(when, lambda at: self._stepped(replica, number, at))
        self.expected[id(replica)] = number

    def _stepped(self, replica: Replica, number: int, now: float) -> None:
        if self.expected.get(id(replica)) != number:
            return  # the plan was cut
        for sequence in replica.finish():
            if sequence.generated >= sequence.output:
                replica.queue.release(sequence)
                self._completed(sequence, replica)
            else:
                self._hand_over(sequence, replica, now)
        self._decides(replica, now)

    def _completed(self, sequence: Sequence, replica: Replica) -> None:
        fates, index = self.fates, sequence.index
        fates.started_s[index], fates.first_s[index], fates.finished_s[index] = (
            sequence.started_s,
            sequence.first_s,
            sequence.last_s,
        )
        fates.preemptions[index], fates.replica[index] = sequence.preemptions, self.number[id(replica)]
        self._ended(sequence.last_s)

    def _ended(self, now: float) -> None:
        """One request less under way."""
        if self.progress:
            self.progress(1)
        if self.closed:
            self._next_arrives(now)

    def _hand_over(self, sequence: Sequence, sender: Replica, now: float) -> None:
        """Send the prompt's cache to where decoding goes on, when the sender's link is free."""
        if self.second is None or self.transfer is None:
            raise InternalError("a sequence stopped early and nobody decodes it")
        arrived = max(now, self.link_free[id(sender)]) + self.transfer.seconds(sequence.prompt)
        for name, joules in self.transfer.joules(sequence.prompt).items():
            self.sent_joules[name] = self.sent_joules.get(name, 0.0) + joules
        self.link_free[id(sender)] = arrived
        self._at(arrived, lambda at: self._handed_over(sequence, sender, at))

    def _handed_over(self, sequence: Sequence, sender: Replica, now: float) -> None:
        sender.queue.release(sequence)
        sequence.stop = sequence.output
        if self.second:
            self._submit(sequence, self.second, now)
        if sender.planned is None:  # it may have waited for these blocks
            self._decides(sender, now)
