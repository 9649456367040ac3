"""Batching policies: what an engine does in its next step. A policy is a function of this file; adding one is writing one.

It gets the engine's state and returns (sequence, new tokens) of everything that runs; it admits from `waiting` (first come, first
served), takes cache blocks before it schedules, and preempts the youngest running sequence (by recompute) when blocks run out.

- chunked: running sequences first, then prompts, cut to what is left of `max_batched_tokens` (Sarathi-Serve, arXiv:2403.02310;
  vLLM's V1 engine). Admission needs the blocks of the chunk.
- mixed: whole prompts of newly admitted requests beside the decodes of all others; blocks for prompt and output are reserved, so
  that nothing is preempted (Orca, OSDI 2022; the stages of Duplex, arXiv:2409.01141, section II-C).
- prefill-first: a step of whole prompts whenever one can be admitted, otherwise one of decodes (vLLM's first engine).

Where prompts are whole, `max_batched_tokens` bounds those of a step together; a longer prompt runs without another one.
"""

from __future__ import annotations

from collections.abc import Callable

from hwsim.errors import InputError
from hwsim.serving.queue import Queue
from hwsim.serving.sequence import Sequence

Batch = list[tuple[Sequence, int]]
Scheduler = Callable[[Queue], Batch]


def chunked(queue: Queue) -> Batch:
    """Decodes and chunks of prompts together, up to `max_batched_tokens`."""
    batch, budget, preempted = _running(queue)
    chunk = queue.chunk
    while not preempted and queue.waiting and budget > 0 and len(queue.running) < queue.max_seqs:
        sequence = queue.waiting[0]
        new = min(queue.left(sequence), budget, chunk)
        if not queue.admit(queue.computed(sequence) + new):
            break
        batch.append((sequence, new))
        budget -= new
    return batch


def mixed(queue: Queue) -> Batch:
    """Decodes of all running sequences and whole prompts of those that can be admitted."""
    batch = [(sequence, sequence.left) for sequence in queue.running]
    budget = queue.max_batched_tokens
    while queue.waiting and len(queue.running) < queue.max_seqs:
        sequence = queue.waiting[0]
        new = queue.left(sequence)
        if (budget < new and budget < queue.max_batched_tokens) or not queue.admit(sequence.final_tokens):
            break
        batch.append((sequence, new))
        budget -= new
    return batch


def prefill_first(queue: Queue) -> Batch:
    """Whole prompts alone as long as any can be admitted, else decodes."""
    prompts: Batch = []
    budget = queue.max_batched_tokens
    while queue.waiting and len(queue.running) < queue.max_seqs:
        sequence = queue.waiting[0]
        new = queue.left(sequence)
        if (budget < new and prompts) or not queue.admit(queue.computed(sequence) + new):
            break
        prompts.append((sequence, new))
        budget -= new
    return prompts or _running(queue)[0]


def _running(queue: Queue) -> tuple[Batch, int, bool]:
    """What runs goes on, oldest first; the budget that is left, and whether anything was preempted for it."""
    batch: Batch = []
    budget, chunk, preempted = queue.max_batched_tokens, queue.chunk, False
    for sequence in queue.running:  # preemption takes from its end, so none that was scheduled
        left = sequence.left
        new = 1 if left == 1 and budget else min(left, budget, chunk)
        if new <= 0:  # no budget
            continue
        while not queue.take(sequence, sequence.computed + new):
            preempted = True
            if queue.preempt() is sequence:
                break
        else:
            batch.append((sequence, new))
            budget -= new
    return batch, budget, preempted


SCHEDULERS: dict[str, Scheduler] = {"chunked": chunked, "mixed": mixed, "prefill-first": prefill_first}


def read_scheduler(name: str) -> Scheduler:
    """A policy by name. InputError lists what there is."""
    if name not in SCHEDULERS:
        raise InputError(f"scheduler: {name[:40]!r}; accepted: {', '.join(SCHEDULERS)}")
    return SCHEDULERS[name]
