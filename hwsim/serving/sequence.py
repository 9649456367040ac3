"""A request on its way through an engine: how much of it is computed, generated and kept in the cache."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens of request `index`. `known` tokens (prompt and generated ones) minus `computed` ones are what is `left` to process.

    A step that computes all known tokens yields one more. A decoding sequence has one token left, a prompt many. Preemption
    drops what is computed; then generated tokens are recomputed like a prompt.
    """

    index: int
    arrival_s: float
    prompt: int
    output: int
    cached: int = 0
    stop: int = 0  # tokens after which it leaves this engine: the output, or 1 where others decode
    computed: int = 0
    generated: int = 0
    blocks: int = 0
    kept: int = 0  # blocks given back at a preemption whose content is still there
    started_s: float = -1.0
    first_s: float = -1.0
    last_s: float = -1.0
    preemptions: int = 0

    @property
    def left(self) -> int:
        """Tokens to process before the next one comes out."""
        return self.prompt + self.generated - self.computed

    @property
    def final_tokens(self) -> int:
        """Tokens in the cache at the end: the last one that is generated is never read."""
        return self.prompt + self.output - 1
