"""Engines whose steps cost what a formula says, and schedulers that are watched: for tests that compute by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hwsim.serving.cache import Room
from hwsim.serving.cluster import Cluster, Fates, Pool
from hwsim.serving.queue import Queue
from hwsim.serving.replica import AHEAD, Replica
from hwsim.serving.requests import make_requests
from hwsim.serving.routers import ROUTERS
from hwsim.serving.schedulers import SCHEDULERS, Batch, Scheduler
from hwsim.serving.sequence import Sequence
from hwsim.serving.steps import Step


class Priced:
    """Seconds of a step by a formula of its new tokens, sequences and cached tokens; remembers what ran."""

    def __init__(self, price: Callable[[float, float, float], float] = lambda tokens, sequences, cached: 1.0) -> None:
        self.price, self.ran = price, []

    def seconds(self, step: Step, n: int = 1, first: int = 0) -> np.ndarray:
        old = sum(past for _, past in step.chunks) + float(step.contexts.sum())
        grown = [old + len(step.contexts) * later for later in range(n)]
        return np.array([self.price(step.tokens, step.sequences, cached) for cached in grown])

    def ran_for(self, step: Step, n: int, first: int = 0) -> None:
        self.ran.append((step.tokens * n, first, n))

    def joules(self) -> dict[str, float]:
        return {"tokens": float(sum(tokens for tokens, _, _ in self.ran))}


def watched(scheduler: Scheduler, seen: list[list[tuple[int, int]]], whole_prompts: bool = False) -> Scheduler:
    """A scheduler whose every decision must keep the limits of its engine; (request, new tokens) are noted in `seen`."""

    def decide(queue: Queue) -> Batch:
        batch = scheduler(queue)
        seen.append([(sequence.index, new) for sequence, new in batch])
        assert 0 <= queue.used <= queue.room.blocks
        assert sum(sequence.blocks for sequence in queue.running) <= queue.used  # others are on their way to a decoder
        assert sum(sequence.kept for sequence in queue.preempted) <= queue.room.blocks - queue.used
        assert len(queue.running) <= queue.max_seqs
        assert len({id(sequence) for sequence, _ in batch}) == len(batch)
        assert not {id(one) for one in queue.waiting} & {id(one) for one in queue.running}
        prompts = [new for sequence, new in batch if sequence.generated == 0 or new > 1]
        if whole_prompts:
            assert sum(prompts) <= queue.max_batched_tokens or len(prompts) == 1
        else:
            assert sum(new for _, new in batch) <= queue.max_batched_tokens
        for sequence, new in batch:
            assert sequence in queue.running
            assert 1 <= new <= sequence.left
            assert queue.room.needed(sequence.computed + new) <= sequence.blocks
        return batch

    return decide


def engines(
    many: int = 1, blocks: int = 1000, size: int = 1, max_seqs: int = 256, max_batched_tokens: int = 8192,
    scheduler: str = "chunked", ahead: int = AHEAD, steps: Priced | None = None, router: str = "round-robin",
    prefix_caching: bool = True, span: int = 0, seen: list[list[tuple[int, int]]] | None = None,
) -> Pool:  # fmt: skip
    """A pool of watched engines with caches of so many blocks."""
    steps, seen = steps or Priced(), [] if seen is None else seen
    decide = watched(SCHEDULERS[scheduler], seen, scheduler != "chunked")
    queues = [Queue(Room(blocks, size, span), max_seqs, max_batched_tokens, prefix_caching=prefix_caching) for _ in range(many)]
    return Pool(tuple(Replica(steps, queue, decide, ahead) for queue in queues), ROUTERS[router])


def serve(asked: list[tuple[float, int, int]], concurrency: int | None = None, **how: object) -> tuple[Fates, Cluster]:
    """Serve (arrival, prompt, output) on such engines."""
    cluster = Cluster(engines(**how))
    return cluster.serve(make_requests(*map(list, zip(*asked, strict=True))), concurrency), cluster


def waiting(queue: Queue, *lengths: tuple[int, int]) -> list[Sequence]:
    """Sequences of (prompt, output) that wait."""
    made = [Sequence(index, 0.0, prompt, output, stop=output) for index, (prompt, output) in enumerate(lengths)]
    queue.waiting.extend(made)
    return made
