"""Several devices: tensor, expert, pipeline and data parallelism as a rewrite op list -> op list of one representative device.

Devices of one tensor-parallel (tp) group do the same at the same time, so one of them stands for all; the trace multiplies by
their number. Devices are numbered with tp innermost, then dp, then pp, so a tp group is neighbours (span tp) and an
expert-parallel group covers tp x dp of them.

- tensor: "columns", "heads" and "experts" are divided by tp; after a division by "rows" the partial sums are all-reduced. The
  embedding is gathered over its columns, the logits over the vocabulary.
  A shared expert's partial sums are added to those of the experts, and reduced with them.
- expert (ep > 1): experts are dealt over ep devices, each of them simulated where their loads differ (a collective waits for the
  last); what is left of tp x dp divides each expert. With dp > 1 tokens travel there and back by all-to-all, to every device that
  has a part of their expert, otherwise every device already has them.
- pipeline: layers are divided into pp stages of equal length, with a send between stages and `microbatches` in flight.
- data: every replica has its own part of the batch (see `run`), so only ep connects replicas.

Ring collectives, S bytes over n devices: all-reduce 2(n-1) hops and 2(n-1)/n S per device, all-gather and reduce-scatter
n-1 hops and (n-1)/n S, all-to-all one hop and (n-1)/n S (a switch; messages leave together), send one hop and S.
A group that is wider than its nearest link all-reduces in three steps: reduce-scatter inside, ring across, all-gather inside; its
all-to-all uses both links at once, each for the devices that it reaches. Wider all-gathers go over the far link alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.formats import nbytes
from hwsim.op import Array, AttentionOp, Experts, Move, Op

MAX_IN_FLIGHT = 1024  # stages x microbatches that are simulated one by one

Collective = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send"]


@dataclass(frozen=True)
class Plan:
    """How many devices share what. tp x dp x pp devices; ep of the tp x dp hold different experts."""

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    microbatches: int = 1

    @property
    def devices(self) -> int:
        """Devices that the plan uses."""
        return self.tp * self.pp * self.dp

    def check(self, device: Device) -> None:
        """InputError unless the plan uses exactly the devices there are."""
        if self.devices != device.count:
            raise InputError(f"parallel: tp x pp x dp = {self.devices}, but {device.name} has {device.count} device(s)")
        if self.pp * self.microbatches > MAX_IN_FLIGHT:
            raise InputError(f"parallel: pp x microbatches = {self.pp * self.microbatches}; accepted: at most {MAX_IN_FLIGHT}")
        if (self.tp * self.dp) % self.ep:
            raise InputError(f"parallel: ep={self.ep}; accepted: a divisor of tp x dp = {self.tp * self.dp}")


def default_plan(device: Device) -> Plan:
    """Tensor parallelism inside the nearest link's reach, pipeline stages across."""
    tp = _node(device)
    return Plan(tp=tp, pp=device.count // tp)


def expert_plan(device: Device, experts: int) -> Plan:
    """Experts dealt over as many devices as there are experts for; all else tensor parallel inside a node, data across."""
    tp = _node(device)
    ep = next(n for n in range(min(device.count, max(experts, 1)), 0, -1) if device.count % n == 0)
    return Plan(tp=tp, dp=device.count // tp, ep=ep)


def expert_tensor_plan(device: Device, experts: int) -> Plan:
    """Experts divided like all else inside a node, and dealt over nodes."""
    tp = _node(device)
    nodes = device.count // tp
    return Plan(tp=tp, dp=nodes, ep=nodes if nodes <= experts else 1)


def _node(device: Device) -> int:
    """Devices that the nearest link joins, if they divide the system evenly."""
    reach = min((link.reach for link in device.wires.values()), default=1)
    return next(n for n in range(min(device.count, reach), 0, -1) if device.count % n == 0)


def read_plan(text: str, device: Device, experts: int) -> Plan:
    """Read "tp=4,ep=4", where what is not named is 1, or a plan by name: auto (tp and pp), ep or et (see above)."""
    named = {
        "auto": default_plan(device), "ep": expert_plan(device, experts), "et": expert_tensor_plan(device, experts),
    }  # fmt: skip
    if text in named:
        return named[text]
    values: dict[str, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(tp|pp|dp|ep|microbatches)\s*=\s*([1-9]\d{0,5})\s*", part)
        if match is None or match[1] in values:
            raise InputError(
                f"parallel: {part[:40]!r}; accepted: auto, ep, et, or tp=, pp=, dp=, ep=, microbatches= with positive numbers"
            )
        values[match[1]] = int(match[2])
    return Plan(**values)


def parallelize(ops: Sequence[Op], plan: Plan, device: Device) -> list[Op]:
    """The ops of one device of each pipeline stage, collectives included. `ops` is one microbatch of one replica."""
    plan.check(device)
    ends: dict[str, tuple[str, ...]] = {}  # whoever waited for an op now waits for the collectives after it
    sharded: list[Op] = []
    for op in ops:
        waits = tuple(end for name in op.after for end in ends.get(name, (name,)))
        steps = _sharded(op if waits == op.after else replace(op, after=waits), plan, device)
        awaited = {name for step in steps for name in step.after}
        ends[op.name] = tuple(step.name for step in steps if step.name not in awaited)
        sharded += steps
    return list(_pipelined(sharded, plan)) if plan.pp > 1 or plan.microbatches > 1 else sharded


def _sharded(op: Op, plan: Plan, device: Device) -> list[Op]:
    """One op's part on one device and the collectives it needs."""
    if isinstance(op, Experts):
        return _experts(op, plan, device)
    _divisible(op, plan.tp)
    part = op.shard(plan.tp)
    if plan.tp > 1 and op.split == "rows" and not (getattr(op, "joined", False) and _reduced(plan)):
        return _followed(part, "all_reduce", op.output_bytes, plan.tp, device)
    if plan.tp > 1 and op.split == "gathered":
        return _followed(part, "all_gather", op.output_bytes, plan.tp, device)
    return [part]


def _reduced(plan: Plan) -> bool:
    """Whether experts end in an all-reduce over the tensor-parallel group, which a shared expert's sums can ride in."""
    return plan.ep == 1 or plan.dp == 1


def _experts(op: Experts, plan: Plan, device: Device) -> list[Op]:
    """Experts over ep devices; the rest of tp x dp divides each of them."""
    if plan.ep > op.experts:
        raise InputError(f"parallel: ep={plan.ep}; accepted: at most the {op.experts} experts of {op.name}")
    if plan.ep == 1:
        part = op.shard(plan.tp)
        return [part, *_collective(op, [part], "all_reduce", op.output_bytes, plan.tp, device)] if plan.tp > 1 else [part]
    everyone = replace(op, tokens=op.tokens * plan.dp, chosen=op.chosen * plan.dp if op.counted else op.chosen)
    parts = [part.shard(plan.tp * plan.dp // plan.ep) for part in everyone.dealt(plan.ep)]
    if plan.dp == 1:
        return [*parts, *_collective(op, parts, "all_reduce", op.output_bytes, plan.tp, device)]
    return _dispatched(op, parts, plan, device)


def _dispatched(op: Experts, parts: Sequence[Op], plan: Plan, device: Device) -> list[Op]:
    """All-to-all to the experts and back: each tp device sends its slice of the replica's tokens, top-k copies of each.

    Where an expert is divided over several devices, each of them needs the token, and sends back its part of the sum.
    """
    group = plan.tp * plan.dp
    sent = op.pairs / plan.tp * op.hidden * nbytes(op.stream) * (group // plan.ep)
    there = _exchange(op, "dispatch", sent, group, op.after, device)
    work = [replace(part, after=_names(there)) for part in parts]
    back = _exchange(op, "combine", sent, group, _names(work), device)
    if plan.tp == 1:
        return [*there, *work, *back]
    return [*there, *work, *back, _move(op, "gather", "all_gather", op.output_bytes, plan.tp, plan.tp, _names(back))]


def _exchange(op: Op, suffix: str, payload: Array, ranks: int, after: tuple[str, ...], device: Device) -> list[Op]:
    """An all-to-all over `ranks` neighbours; what stays within the nearest link's reach goes there, the rest beside it."""
    inner = _reach(device, ranks)
    if ranks <= inner:
        return [_move(op, suffix, "all_to_all", payload, ranks, ranks, after)]
    near = _move(op, f"{suffix}.near", "all_to_all", payload, ranks, inner, after)
    far = _move(op, suffix, "all_to_all", payload, ranks, ranks, after)
    return [
        replace(near, message=payload * inner / ranks, sent=payload * (inner - 1) / ranks),
        replace(far, sent=payload * (ranks - inner) / ranks),
    ]


def _reach(device: Device, ranks: int) -> int:
    """Devices that the nearest link joins; everyone where there are no links."""
    return min((link.reach for link in device.wires.values()), default=ranks)


def _followed(part: Op, kind: Collective, payload: Array, ranks: int, device: Device) -> list[Op]:
    """`part`, then a collective over `ranks` neighbours."""
    return [part, *_collective(part, [part], kind, payload, ranks, device)]


def _collective(op: Op, parts: Sequence[Op], kind: Collective, payload: Array, ranks: int, device: Device) -> list[Op]:
    """A collective of `op`'s result once all `parts` of it are done; hierarchical when wider than the nearest link."""
    inner, after = _reach(device, ranks), (*_names(parts), *getattr(op, "joins", ()))
    if kind != "all_reduce" or ranks <= inner or ranks % inner:
        return [_move(op, kind, kind, payload, ranks, ranks, after)]
    scatter = _move(op, "reduce_scatter", "reduce_scatter", payload, inner, inner, after)
    across = _move(op, "all_reduce", "all_reduce", payload / inner, ranks // inner, ranks, (scatter.name,))
    return [scatter, across, _move(op, "all_gather", "all_gather", payload, inner, inner, (across.name,))]


def _names(parts: Sequence[Op]) -> tuple[str, ...]:
    return tuple(part.name for part in parts)


def _move(op: Op, suffix: str, kind: Collective, payload: Array, ranks: int, span: int, after: tuple[str, ...]) -> Move:
    hops, fraction = {
        "all_reduce": (2 * (ranks - 1), 2 * (ranks - 1) / ranks),
        "all_gather": (ranks - 1, (ranks - 1) / ranks),
        "reduce_scatter": (ranks - 1, (ranks - 1) / ranks),
        "all_to_all": (1, (ranks - 1) / ranks),
        "send": (1, 1.0),
    }[kind]
    return Move(
        name=f"{op.name}.{suffix}", kind=kind, after=after, block=op.block, repeat=op.repeat, stage=op.stage,
        microbatch=op.microbatch, stream=op.stream, message=payload, sent=payload * fraction, hops=hops, ranks=ranks, span=span,
    )  # fmt: skip


def _divisible(op: Op, tp: int) -> None:
    if op.split == "heads" and isinstance(op, AttentionOp) and op.heads % tp:
        raise InputError(f"parallel: tp={tp}; accepted: a divisor of the {op.heads} attention heads")


def _pipelined(ops: list[Op], plan: Plan) -> Iterator[Op]:
    """Stages of equally many layers, every microbatch through each, sends in between."""
    stages = _stages(ops, plan.pp)
    for index in range(plan.microbatches):
        previous: Op | None = None
        for stage, part in enumerate(stages):
            renamed = [_in_flight(op, stage, index) for op in part]
            inside = {op.name for op in renamed}
            if previous is not None:
                send = _boundary(previous, plan)
                yield send
                renamed = [
                    replace(op, after=(*(a for a in op.after if a in inside), *_entry(op, inside, send))) for op in renamed
                ]
            yield from renamed
            previous = renamed[-1]


def _in_flight(op: Op, stage: int, index: int) -> Op:
    mark = f"@{stage}.{index}"
    return replace(
        op, name=op.name + mark, block=op.block + mark, stage=stage, microbatch=index, after=tuple(a + mark for a in op.after)
    )


def _entry(op: Op, inside: set[str], send: Move) -> tuple[str, ...]:
    return () if all(a in inside for a in op.after) and op.after else (send.name,)


def _boundary(last: Op, plan: Plan) -> Move:
    """The residual stream to the next stage: each tp device sends its slice; the gather there rides on the next all-reduce."""
    move = _move(last, "send", "send", last.output_bytes / plan.tp, 1, plan.tp * plan.dp * 2, (last.name,))
    return replace(move, repeat=1, block=f"{move.block}.send")


def _stages(ops: list[Op], pp: int) -> list[list[Op]]:
    """Cut folded blocks so that every stage has its part of the layers; embedding first, head last."""
    blocks: dict[str, list[Op]] = {}
    for op in ops:
        blocks.setdefault(op.block, []).append(op)
    layers = [(name, part[0].repeat) for name, part in blocks.items() if name not in ("embed", "head")]
    total = sum(count for _, count in layers)
    if pp > total:
        raise InputError(f"parallel: pp={pp}; accepted: at most the {total} layers")
    bounds = [round(total * stage / pp) for stage in range(pp + 1)]
    stages: list[list[Op]] = []
    for low, high in pairwise(bounds):
        start, here = 0, []
        for name, count in layers:
            inside = max(0, min(high, start + count) - max(low, start))
            here += [replace(op, repeat=inside) for op in blocks[name]] if inside else []
            start += count
        stages.append(here)
    stages[0] = blocks.get("embed", []) + stages[0]
    stages[-1] += blocks.get("head", [])
    return stages
