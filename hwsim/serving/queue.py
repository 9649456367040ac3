"""What one engine has to do: sequences that wait, sequences that run, and the cache blocks they hold.

With prefix caching, as vLLM has it by default, blocks that are given back keep their content until they are needed. So a
preempted sequence finds again what nobody took: blocks are taken in the order in which they came free, and where one was
preempted none were free before. Its last blocks go first, so that what is left is a prefix. Without, it is computed anew.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hwsim.serving.cache import Room
from hwsim.serving.sequence import Sequence


@dataclass(eq=False)
class Queue:
    """State that a scheduler reads and changes. `running` is in order of admission; the youngest is last."""

    room: Room
    max_seqs: int
    max_batched_tokens: int
    waiting: deque[Sequence] = field(default_factory=deque)
    running: list[Sequence] = field(default_factory=list)
    used: int = 0
    prefix_caching: bool = True
    preempted: deque[Sequence] = field(default_factory=deque)  # those of whom the cache still has something, oldest first

    @property
    def chunk(self) -> int:
        """Most tokens of one sequence in a step: a prompt runs on one data-parallel rank."""
        return self.max_batched_tokens // self.room.ranks

    def computed(self, sequence: Sequence) -> int:
        """Tokens that need no computing when a waiting sequence starts: what it brought along, or what the cache still has."""
        found = max(sequence.cached, sequence.kept * self.room.size) if self.prefix_caching else 0
        return sequence.computed or min(found, sequence.prompt + sequence.generated - 1)

    def left(self, sequence: Sequence) -> int:
        """Tokens that a waiting sequence has to process."""
        return sequence.prompt + sequence.generated - self.computed(sequence)

    def take(self, sequence: Sequence, tokens: int) -> bool:
        """Give a sequence blocks for so many tokens; False, and nothing changes, where there are too few."""
        if tokens <= sequence.blocks * self.room.size:  # most often
            return True
        more = self.room.needed(tokens) - sequence.blocks
        if more > self.room.blocks - self.used:
            return False
        if more > 0:
            sequence.blocks += more
            self.used += more
            self._overwrite(more - sequence.kept)
        return True

    def _overwrite(self, blocks: int) -> None:
        """Take content from preempted sequences, who waits longest first."""
        while blocks > 0 and self.preempted:
            first = self.preempted[0]
            lost = min(first.kept, blocks)
            first.kept -= lost
            blocks -= lost
            if not first.kept:
                self.preempted.popleft()

    def admit(self, tokens: int) -> bool:
        """Let the first waiting sequence run with blocks for so many tokens; False where there are too few."""
        sequence = self.waiting[0]
        computed = self.computed(sequence)
        if not self.take(sequence, tokens):
            return False
        if sequence.kept:
            self.preempted.remove(sequence)
        sequence.computed, sequence.kept = computed, 0
        self.running.append(self.waiting.popleft())
        return True

    def preempt(self) -> Sequence:
        """Drop the youngest running sequence: it gives its blocks back, waits first in line and is computed anew."""
        sequence = self.running.pop()
        whole = sequence.computed // self.room.size
        sequence.kept = whole if whole <= sequence.blocks else 0  # else a sliding window has left the prefix behind
        self.release(sequence)
        if sequence.kept:
            self.preempted.append(sequence)
        sequence.computed = 0
        sequence.preemptions += 1
        self.waiting.appendleft(sequence)
        return sequence

    def release(self, sequence: Sequence) -> None:
        """Take back all blocks of a sequence."""
        self.used -= sequence.blocks
        sequence.blocks = 0

    def steps_with_room(self, most: int) -> int:
        """Further steps, at most `most`, for which every running sequence finds the block that its next token needs."""
        free, room = self.room.blocks - self.used, self.room
        held = [(sequence.computed, sequence.blocks) for sequence in self.running]

        def missing(steps: int) -> int:
            return sum(max(room.needed(computed + steps) - blocks, 0) for computed, blocks in held)

        if len(held) * (most // room.size + 1) <= free or missing(most) <= free:
            return most
        low, high = 0, most
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if missing(middle) <= free else (low, middle)
        return low
