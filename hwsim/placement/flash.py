"""Networks larger than memory: weights on a drive, and what of them a pass reads (LLM in a flash, arXiv:2312.11514).

    naive       nothing is kept, every weight that a pass touches is read
    hybrid      a part of every matrix is kept, the rest read
    sparse      all but the feed-forward networks is kept; a low-rank predictor says which neurons to read (section 3.1)
    windowed    the neurons of the last k tokens are kept as well, so that only those they did not use are read
    bundled     column i of the up and row i of the down projection lie side by side: one read where there were two (section 3.2)
    speculative bundled, on passes that check several guessed tokens (section 5.2)
    experts     all but routed experts is kept, and of those the most popular; what a pass hits of the others is read

Every technique can be switched on alone, by the options that these presets set. The kept neurons are rows of a matrix whose order
means nothing (section 3.3): a row that leaves is overwritten by the last one, a new one is appended; without that `matrix` all of
it is written anew. A cache that may hold at most the part `cache` of a layer's neurons shortens its window to what fits. Where so
many neurons are missing that reading all of them in one piece takes less, as in most prompts, all are read.

Compute, reads and management follow one another, as the paper adds them up. `overlap` reads for the next layer while one
computes, from the first layer on, as a decoding network does token after token; for a sparse one that takes a predictor that
sees a layer ahead. Several tokens in one pass (prompts, speculative drafts, other sequences) count as consecutive ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from hwsim.activity import Activity
from hwsim.cost.flash import throughput
from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.formats import nbytes
from hwsim.op import Array, Experts, Gemm, Load, Lookup, Op
from hwsim.placement.policy import ALL, Part, Policy, Speculation, fastest

READ, MANAGE, PREDICT = "flash", "cache", "predictor"  # kinds of the ops that are added


def naive(overlap: str = "no", stored: str = "") -> Policy:
    """Nothing is kept; `stored` is the format of weights on the drive where it is another."""
    return Offload(kept=0.0, overlap=_said("overlap", overlap), stored=stored)


def hybrid(resident: float = 0.5, overlap: str = "no", stored: str = "") -> Policy:
    """The part `resident` of every matrix is kept, the rest is read at every pass."""
    return Offload(kept=_part("resident", resident), overlap=_said("overlap", overlap), stored=stored)


def experts(resident: float = 0.5, overlap: str = "no") -> Policy:
    """The part `resident` of the routed experts is kept, the most popular ones, and everything else."""
    return Offload(kept=_part("resident", resident), routed=True, overlap=_said("overlap", overlap))


def sparse(bundled: str = "no", overlap: str = "no") -> Policy:
    """Attention and embeddings are kept, predicted neurons are read at every pass."""
    return Offload(sparse=True, bundled=_said("bundled", bundled), overlap=_said("overlap", overlap))


def windowed(k: float = 4, cache: float = 1.0, bundled: str = "no", matrix: str = "yes", overlap: str = "no") -> Policy:
    """The neurons of the last `k` tokens are kept as well, at most the part `cache` of a layer's."""
    return Offload(
        sparse=True, window=k, cache=_part("cache", cache), bundled=_said("bundled", bundled), matrix=_said("matrix", matrix),
        overlap=_said("overlap", overlap),
    )  # fmt: skip


def bundled(k: float = 4, cache: float = 1.0, matrix: str = "yes", overlap: str = "no") -> Policy:
    """All of the paper: predictor, window, bundles and the managed matrix."""
    return windowed(k, cache, "yes", matrix, overlap)


def speculative(accepted: float, draft: float = 4, k: float = 4, cache: float = 1.0, overlap: str = "no") -> Policy:
    """All of the paper, on passes that check `draft` tokens at once, of which with their successor `accepted` are kept.

    Guessing them is not in the time: the network that does is for the user to run.
    """
    if draft != int(draft) or not 1 <= accepted <= draft + 1:
        raise InputError(
            f"policy flash: accepted={accepted:g},draft={draft:g}; accepted: whole draft, accepted from 1 to draft + 1"
        )
    return Offload(
        sparse=True, window=k, cache=_part("cache", cache), bundled=True, overlap=_said("overlap", overlap),
        speculation=Speculation(int(draft), accepted),
    )  # fmt: skip


def _said(name: str, word: str) -> bool:
    if word not in ("yes", "no"):
        raise InputError(f"policy flash: {name}={word[:40]}; accepted: yes, no")
    return word == "yes"


def _part(name: str, value: float) -> float:
    if value > 1:
        raise InputError(f"policy flash: {name}={value:g}; accepted: a part, above 0 and at most 1")
    return value


@dataclass(frozen=True)
class Offload:
    """Which weights a device keeps in memory and which it reads, how, and when."""

    kept: float = 1.0
    routed: bool = False
    sparse: bool = False
    window: float = 0.0
    cache: float = 1.0
    bundled: bool = False
    matrix: bool = True
    overlap: bool = False
    stored: str = ""
    speculation: Speculation | None = None

    def __call__(self, op: Op, device: Device) -> Mapping[str, Array | Part]:
        """A drive or a copy for loads, the fastest unit for all else."""
        return {_way(op, device): ALL} if isinstance(op, Load) else fastest()(op, device)

    def rewritten(self, ops: Iterable[Op], device: Device) -> list[Op]:
        """The ops with what has to be read before them, block by block."""
        ops = list(ops)
        if self.sparse and not any(op.neurons for op in ops):
            raise InputError("policy flash: nothing is known of the network's neurons; accepted: flash.naive, flash.hybrid")
        if self.routed and not any(isinstance(op, Experts) for op in ops):
            raise InputError("policy flash.experts: the network has no routed experts; accepted: flash.naive, flash.hybrid")
        _drive(device)
        result: list[Op] = []
        ahead: tuple[str, ...] = ()  # what the block before has read for this one
        for _, group in groupby(ops, key=lambda op: op.block):
            block = list(group)
            block[0] = replace(block[0], after=(*block[0].after, *ahead))
            block = self._sparse(block, device) if self.sparse else self._streamed(block)
            ahead = tuple(op.name for op in block if op.kind == READ) if self.overlap and block[0].repeat == 1 else ()
            result += block
        return result

    def _streamed(self, block: list[Op]) -> list[Op]:
        """The part of every weight that is not kept, read in one piece before anything of the block runs."""
        partly = [op for op in block if "weights" in op.bytes and (isinstance(op, Experts) or not self.routed)]
        moved = sum((self._on_drive(op) * self._missed(op) for op in partly), 0.0)
        first, *others = (replace(op, stays=op.stays * self.kept) if op in partly else op for op in block)
        chunk = partly[0].weight_bytes_per_expert if self.routed and partly and isinstance(partly[0], Experts) else 0.0
        read = self._read(first, first.after, moved, self._held(block), chunk)
        return [read, self._after(first, read), *others]

    def _missed(self, op: Op) -> Array:
        """Bytes of weights that a pass touches and that are not kept: of experts, the least popular are not."""
        if not (self.routed and isinstance(op, Experts)):
            return (1.0 - self.kept) * op.bytes["weights"]
        rest = np.clip(np.arange(1, op.experts + 1) - self.kept * op.experts, 0.0, 1.0)
        hit = -np.sort(-op.hit, axis=0)
        missed: Array = op.weight_bytes_per_expert * (hit * rest.reshape(-1, *[1] * (hit.ndim - 1))).sum(axis=0)
        return missed

    def _sparse(self, block: list[Op], device: Device) -> list[Op]:
        """Predict, read, manage, then compute over the neurons that are there."""
        start = next((i for i, op in enumerate(block) if op.neurons), None)
        if start is None:
            return [self._read(block[0], block[0].after, 0.0, self._held(block)), *block]
        before, ffn = block[:start], block[start:]
        activity = ffn[0].neurons
        assert activity is not None
        predicted = _predictor(ffn, activity.rank, (*ffn[0].after, *(op.name for op in before[-1:])))
        ready = (predicted[-1].name,) if predicted else ffn[0].after
        window = activity.shrunk(self.window, self.cache) if self.cache < 1 else self.window
        total = sum((op.resident.get("weights", 0.0) for op in ffn if op.neurons), 0.0)
        moved, chunk = self._asked(_vector(ffn[0]), activity.missing(window), total, device)
        read = self._read(ffn[0], block[0].after if self.overlap else ready, moved, self._held(block), chunk)
        managed = self._managed(read, self._rewritten(activity, window) * total, device)
        waits = ready if self.overlap else (*ready, (managed or [read])[-1].name)
        touched = activity.touched(window) if self.window else activity.used
        if self.cache < float(np.min(activity.used)):
            least = float(np.min(activity.used))
            raise InputError(
                f"policy flash: cache={self.cache:g}; accepted for this network: {least:.3f}, what a token uses, or more"
            )
        stays = activity.stays(window) if self.window else 0.0
        narrowed = [replace(op.narrowed(touched), stays=stays / touched) if op.neurons else op for op in ffn]
        narrowed[0] = replace(narrowed[0], after=(*narrowed[0].after, *waits))
        return [*before, *predicted, read, *managed, *narrowed]

    def _asked(self, vector: float, missing: Array, total: Array, device: Device) -> tuple[Array, Array]:
        """Bytes to read and of a request: the missing neurons one by one, or all neurons in one piece where that is quicker."""
        link = device.links[_drive(device)]
        chunk = vector * (2.0 if self.bundled else 1.0)
        if np.ndim(missing) == 0 and missing / throughput(link, chunk) > 1.0 / (link.bandwidth * link.efficiency):
            return total, 0.0
        return missing * total, chunk

    def _rewritten(self, activity: Activity, window: Array) -> Array:
        """Part of the neurons that is written in memory: those that leave and arrive, or all of a cache without order."""
        if not self.window:
            return activity.missing(0.0)
        return activity.expired(window) + activity.missing(window) if self.matrix else activity.touched(window)

    def _managed(self, read: Load, moved: Array, device: Device) -> list[Load]:
        """The copies in memory, where the device says how fast they are."""
        if _copies(device) is None:
            return []
        name = f"{read.block}.cache"
        return [replace(read, name=name, kind=MANAGE, after=(read.name,), moved=moved, chunk=0.0, held=0.0)]

    def _read(self, like: Op, after: tuple[str, ...], moved: Array, held: Array, chunk: Array = 0.0) -> Load:
        """What a block reads. With overlap it starts with the block, whose neighbours it serves."""
        return Load(
            name=f"{like.block}.read", kind=READ, after=after, moved=moved, chunk=chunk, held=held, block=like.block,
            repeat=like.repeat, stage=like.stage, rank=like.rank, microbatch=like.microbatch,
            buffers=2.0 if self.overlap else 1.0,
        )  # fmt: skip

    def _after(self, op: Op, read: Load) -> Op:
        return op if self.overlap else replace(op, after=(*op.after, read.name))

    def _held(self, block: Sequence[Op]) -> Array:
        """Bytes of the block's weights on the drive, which has all of them."""
        return sum((self._on_drive(op) * op.resident["weights"] for op in block if "weights" in op.resident), 0.0)

    def _on_drive(self, op: Op) -> float:
        """Bytes on the drive for each byte in memory."""
        format = op.weights if isinstance(op, Gemm | Lookup | Experts) else ""
        return nbytes(self.stored) / nbytes(format) if self.stored and format else 1.0


def _vector(up: Op) -> float:
    """Bytes of one neuron in one matrix: a column of what goes up, a row of what comes down."""
    assert isinstance(up, Gemm)
    return float(up.k) * nbytes(up.weights)


def _predictor(ffn: Sequence[Op], rank: float, after: tuple[str, ...]) -> list[Op]:
    """Two low-rank products, hidden -> rank -> neurons, on what the attention gives (section 3.1)."""
    up, *_, down = (op for op in ffn if isinstance(op, Gemm) and op.neurons)
    if not rank:
        return []
    plain = replace(up, kind=PREDICT, neurons=None, split="none")
    first = replace(plain, name=f"{up.block}.predict.down", after=after, n=rank)
    return [first, replace(plain, name=f"{up.block}.predict.up", after=(first.name,), n=down.k, k=rank)]


def _drive(device: Device) -> str:
    """The way in with a queue. InputError for a device that has no drive."""
    found = sorted(name for name, link in device.links.items() if link.queue)
    if not found:
        raise InputError(f"policy flash: {device.name} has no drive (a link with a queue); accepted: a device with one")
    return found[0]


def _copies(device: Device) -> str | None:
    """The way from a memory into itself."""
    return next((name for name, link in sorted(device.links.items()) if link.reads == link.memory), None)


def _way(op: Op, device: Device) -> str:
    return (_copies(device) or _drive(device)) if op.kind == MANAGE else _drive(device)
