"""The KV cache in blocks of tokens (PagedAttention, arXiv:2309.06180): how many there are, who holds how many.

    blocks = min over memories of (fraction x capacity - weights - activations - what the software keeps) / bytes of a block

per device; every rank of a tensor-parallel group holds its part of every block. Activations are those of the largest step. The
bytes of a token are those of all layers that keep it for good; layers with a sliding window keep no more than that per sequence,
which is set aside for `max_seqs` sequences; a network of such layers alone needs blocks for a window at most.
"""

from __future__ import annotations

from dataclasses import dataclass

from hwsim.errors import CapacityError
from hwsim.job import Context
from hwsim.lowering.batch import Batch, Sequences
from hwsim.placement.capacity import footprint
from hwsim.quantity import show


@dataclass(frozen=True)
class Room:
    """`blocks` of `size` tokens; a sequence never needs more than `span` tokens of it, 0 for no such bound.

    Data-parallel `ranks` hold equal parts of them and a sequence lives on one; their parts are taken as one pool otherwise.
    """

    blocks: int
    size: int
    span: int = 0
    ranks: int = 1

    def needed(self, tokens: int) -> int:
        """Blocks that hold so many tokens of one sequence."""
        kept = min(tokens, self.span) if self.span else tokens
        return -(-kept // self.size)

    @property
    def longest(self) -> int:
        """Blocks that a single sequence can have."""
        return self.blocks // self.ranks

    @property
    def tokens(self) -> int:
        """Tokens that fit."""
        return self.blocks * self.size


def room(context: Context, size: int, max_seqs: int, largest_step: int, fraction: float, reserved: float) -> Room:
    """Blocks for the cache of one engine. CapacityError when weights and activations leave none."""
    windows = [layer.attention.window or 0 for layer, _ in context.model.layers]
    span = max(windows) if all(windows) else 0
    per_token = _by_memory(context, (Sequences(1.0, 1.0, 0.0),), "kv", full_only=not span)
    if not any(per_token.values()):
        raise CapacityError(f"{context.model.name} keeps no KV cache; accepted: a network that generates tokens")
    largest = (Sequences(1.0, float(max(largest_step - max_seqs, 2)), 0.0), Sequences(float(max_seqs), 1.0, 0.0))
    used = _by_memory(context, largest, "weights", "activations")
    aside = {} if span else _windowed(context, max_seqs)
    found = []
    for stage, memory in sorted(per_token.keys() | used.keys()):
        need = per_token.get((stage, memory), 0.0) * size  # of a block; 0 where only weights live
        have = float(context.device.memories[memory].capacity) * fraction - reserved
        free = have - used.get((stage, memory), 0.0) - aside.get((stage, memory), 0.0)
        if free < need:
            block = f", a block of {size} tokens {show(need, 'B')}" if free > 0 else ""
            raise CapacityError(
                f"{context.device.name}: memory {memory} has {show(have, 'B')} for serving, weights and activations take "
                f"{show(have - free, 'B')}{block}; accepted: narrower formats, more devices, a higher --kv-fraction, "
                f"smaller --max-batched-tokens, --max-seqs or --block"
            )
        if need:
            found.append(int(free // need))
    return Room(min(found), size, span, context.plan.dp)


def _windowed(context: Context, max_seqs: int) -> dict[tuple[int, str], float]:
    """Bytes that layers with a sliding window keep for all sequences."""
    longest = max((layer.attention.window or 0 for layer, _ in context.model.layers), default=0)
    if not longest:
        return {}
    batch = (Sequences(float(max_seqs), 1.0, longest - 1.0),)
    every, full = (_by_memory(context, batch, "kv", full_only=only) for only in (False, True))
    return {key: every[key] - full.get(key, 0.0) for key in every}


def _by_memory(context: Context, batch: Batch, *operands: str, full_only: bool = False) -> dict[tuple[int, str], float]:
    """Bytes of some operands by (stage, memory) on one device; of layers without a sliding window only, if asked."""
    part = 1.0 / context.plan.dp
    rows = context.rows(tuple(Sequences(group.count * part, group.new, group.past) for group in batch))
    if full_only:
        rows = [row for row in rows if not getattr(row.op, "window", 0)]
    held = footprint(rows, context.device)
    return {key: sum(float(parts.get(operand, 0.0)) for operand in operands) for key, parts in held.items()}
