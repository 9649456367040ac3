"""Networks in CPU memory that a GPU computes, layer by layer: MoE-Lens (arXiv:2504.09345), MoE-Lightning (2411.11217), FlexGen.

All weights stay in the host's memory and come over a link (PCIe) for every pass. The KV cache lives where the device's file says,
and decode attention runs on the unit beside it, the CPU, unless `attention=gpu`. The ways differ in what overlaps:

    moe_lens, moe_lightning     the weights of the next layer come while one computes, and attention of one group of sequences
                                runs on the CPU while the GPU multiplies those of another (VSLPipe, CGOPipe): a layer takes the
                                longest of link, GPU and CPU, and the link and the CPU share the host's memory
    flexgen                     the cost model of its repository: weights first, then everything else

What the first two differ in, mixing prompts with decoding and how many sequences fit, is for the job to say. Left out: transfers
of activations (a few percent of the weights), the first layer of a pass, whose weights nothing hides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.op import Array, AttentionOp, Load, Op
from hwsim.placement.policy import ALL, Part, Policy, able, fastest

PAGED = "paging"


def moe_lens(attention: str = "cpu") -> Policy:
    """Weights, GPU and CPU side by side."""
    return Hybrid(_on_cpu(attention), overlap=True)


def moe_lightning(attention: str = "cpu") -> Policy:
    """The same overlap (CGOPipe)."""
    return Hybrid(_on_cpu(attention), overlap=True)


def flexgen(attention: str = "gpu") -> Policy:
    """One after the other; FlexGen(c) is `attention=cpu`."""
    return Hybrid(_on_cpu(attention), overlap=False)


def _on_cpu(where: str) -> bool:
    if where not in ("cpu", "gpu"):
        raise InputError(f"policy hybrid: attention={where[:40]}; accepted: cpu, gpu")
    return where == "cpu"


@dataclass(frozen=True)
class Hybrid:
    """Where attention runs, and whether link, GPU and CPU work at once."""

    attention_on_cpu: bool
    overlap: bool

    def __call__(self, op: Op, device: Device) -> Mapping[str, Array | Part]:
        """Loads over the link, decode attention on the CPU, all else on the fastest unit of the GPU."""
        way = host_way(device)
        if isinstance(op, Load):
            return {way: ALL}
        beside = [name for name in able(op, device) if device.units[name].memory == device.links[way].reads]
        if beside and op.kind == "attention.decode" and self.attention_on_cpu:
            return {beside[0]: ALL}
        others = {name: unit for name, unit in device.units.items() if name not in beside}
        return fastest()(op, device.model_copy(update={"units": others})) if beside else fastest()(op, device)

    def rewritten(self, ops: Iterable[Op], device: Device) -> list[Op]:
        """Every block with the load of its weights before it or beside it."""
        host_way(device)
        result: list[Op] = []
        ahead: tuple[str, ...] = ()
        for _, group in groupby(ops, key=lambda op: op.block):
            block = self._paged(list(group), ahead)
            ahead = (block[0].name,) if self.overlap and block[0].repeat == 1 else ()
            result += block
        return result

    def _paged(self, block: list[Op], ahead: tuple[str, ...]) -> list[Op]:
        first = replace(block[0], after=(*block[0].after, *ahead))
        held = sum((op.resident.get("weights", 0.0) for op in block), 0.0)
        load = Load(
            name=f"{first.block}.page", kind=PAGED, after=first.after, moved=held, held=held, block=first.block,
            repeat=first.repeat, stage=first.stage, rank=first.rank, microbatch=first.microbatch,
            buffers=2.0 if self.overlap else 1.0,
        )  # fmt: skip
        block = [replace(op, stays=0.0) for op in (first, *block[1:])]
        if not self.overlap:
            return [load, replace(block[0], after=(*block[0].after, load.name)), *block[1:]]
        return [load, *self._beside(block)]

    def _beside(self, block: list[Op]) -> list[Op]:
        """Decode attention from the start of the block on, of the other group of sequences, so that nothing waits for it."""
        apart = {
            op.name for op in block if isinstance(op, AttentionOp) and op.kind == "attention.decode" and self.attention_on_cpu
        }
        before = {op.name: op.after for op in block}
        return [
            replace(op, after=block[0].after)
            if op.name in apart
            else replace(op, after=tuple(name for one in op.after for name in (before[one] if one in apart else (one,))))
            for op in block
        ]


def host_way(device: Device) -> str:
    """The link from the host's memory. InputError for a device without."""
    found = sorted(name for name, link in device.links.items() if link.reads and not link.queue and link.reads != link.memory)
    if not found:
        raise InputError(f"policy hybrid: {device.name} has no link that reads a host's memory; accepted: a device with one")
    return found[0]
