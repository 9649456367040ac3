"""Output-stationary arrays (MixPE, ANT, BitFusion ...): products by the best tiling (cost/tiling.py), elements by their power.

    busy    = (first + compute + scales) / clock              traffic / limit = (first + memory) / clock
    scales  = n k / elements before the product, m n ceil(k / group) / elements after it, for weights in groups with scales
    element = elements x (leakage x time alone + dynamic x (compute + scales) / clock)
    buffers = read of a buffer x bits read by the array, write x bits brought in; outputs: both for each tile, read on the way out

so that an op takes first + max(compute + scales, memory) cycles; compute counts the passes that operands wider than an element
take. Every multiply-accumulate reads its operands from the buffers. In `quirks: as-published` scales are ops of their own
(lowering/published.py) and both operands are as wide as the layer says.

Attention keeps scores on the chip: its query rows fill the rows, keys and values stream past the columns, its bytes move once.
Experts are products one after another. Left out: leakage of elements and buffers while other units work, softmax, zero points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwsim.cost.roofline import by_memory, roofline
from hwsim.cost.terms import Cost
from hwsim.cost.tiling import Engine, Layer, Tiling, tiling
from hwsim.device import Device, Memory, SystolicArray, Unit
from hwsim.errors import InputError
from hwsim.formats import bits, group
from hwsim.op import Array, AttentionOp, Conv, Experts, Gemm, Op, larger

BUFFERS = ("activations", "weights", "outputs")


@dataclass(frozen=True, eq=False)
class _Machine:
    """The unit, its array and its device."""

    name: str
    unit: Unit
    array: SystolicArray
    device: Device

    @property
    def clock(self) -> Array:
        assert self.unit.clock is not None  # a unit with an array has one
        return self.unit.clock

    def buffered(self, what: str, name: str) -> Array:
        """Joules per bit, or bits of a half, of a buffer."""
        part = self.device.buffers[name]
        return part.capacity * 8.0 / 2.0 if what == "half" else getattr(part, what) / 8.0

    def width(self, stored: str) -> Array:
        """Bits in which the array multiplies an operand stored in a format: its own, unless it is quantised on its way in."""
        taken = self.unit.precision_for(stored.split("_", maxsplit=1)[0]) or self.unit.precision_for("bf16")
        return np.minimum(np.floor(bits(stored)), self.array.formats.get(taken or "", bits(stored)))


@dataclass(frozen=True, eq=False)
class _Work:
    """Cycles of the array, cycles until (and after) it works, cycles of the wire; bits by operand; joules of the buffers."""

    compute: Array
    first: Array
    memory: Array
    activations: Array
    weights: Array
    outputs: Array
    buffers: Array


def output_stationary(op: Op, name: str, unit: Unit, device: Device, home: Mapping[str, str]) -> Cost:
    """Cost of `op` on a unit with an array. InputError where the array or its buffers are missing or too small."""
    if unit.array is None or not set(BUFFERS) <= set(device.buffers):
        raise InputError(
            f"{device.name}: unit {name}: cost output_stationary; accepted: `array`, and buffers {', '.join(BUFFERS)}"
        )
    machine = _Machine(name, unit, unit.array, device)
    if isinstance(op, Gemm):
        return _costing(_product(op, machine), machine, home)
    if isinstance(op, Experts):
        return _costing(_experts(op, machine), machine, home)
    if isinstance(op, AttentionOp):
        return _attention(op, machine, home)
    return roofline(op, name, unit, device, home)


def _product(op: Gemm, machine: _Machine) -> _Work:
    """All groups of a product."""
    kernel, side = (float(op.kernel), op.side) if isinstance(op, Conv) else (1.0, 1.0)
    shape = {"images": op.m / side**2, "side": side, "kernel": kernel, "channels": op.k / kernel**2, "filters": op.n}
    return _times(op.groups, _layer(shape, op.activations, op.weights, machine))


def _experts(op: Experts, machine: _Machine) -> _Work:
    """Two layers (gate and up in one) of every expert that is hit, one expert after another."""
    load = np.where(op.hit > 0, op.tokens_per_expert / np.maximum(op.hit, 1e-12), 1.0)
    flat: dict[str, Array] = {"side": 1.0, "kernel": 1.0, "images": load}
    up: dict[str, Array] = {"channels": float(op.hidden), "filters": op.inner * (op.matrices - 1)}
    down: dict[str, Array] = {"channels": op.inner, "filters": float(op.hidden)}
    each = [_layer(flat | shape, op.activations, op.weights, machine) for shape in (up, down)]
    totals = [np.sum([op.hit * getattr(work, field) for work in each], axis=(0, 1)) for field in vars(each[0])]
    return _Work(*totals)


def _layer(shape: Mapping[str, Array], activations: str, weights: str, machine: _Machine) -> _Work:
    """One layer by its best tiling, with the scales of its weights."""
    array = machine.array
    stored = (bits(activations), bits(weights), array.output_bits)
    rows, columns, passes = array.macs(machine.width(activations), machine.width(weights))
    layer = Layer(**shape, a_bits=stored[0], w_bits=stored[1], o_bits=stored[2])
    found = tiling(layer, _engine(machine, rows, columns))
    if np.ndim(found.compute) == 0 and np.isnan(found.compute):
        raise InputError(
            f"{machine.device.name}: buffers: half of one holds no tile; accepted: larger buffers or a smaller array"
        )
    compute = found.compute * passes + _scales(shape, weights, array)
    return _Work(
        compute, found.first, found.memory, found.activations, found.weights, found.outputs, _buffered(found, stored, machine)
    )


def _engine(machine: _Machine, rows: Array, columns: Array) -> Engine:
    memory = machine.device.memories[machine.unit.memory]
    read, written = (_per_byte(memory, which) / 8.0 for which in (False, True))
    activations, weights, outputs = (machine.buffered("half", name) for name in BUFFERS)
    wire = 8.0 * machine.unit.limit(machine.unit.memory, machine.device.memories) / machine.clock
    return Engine(rows, columns, activations, weights, outputs, wire, read, written)


def _scales(shape: Mapping[str, Array], weights: str, array: SystolicArray) -> Array:
    """Cycles in which the elements apply the scales of groups of weights."""
    size = group(weights)
    if size is None or array.quirks != "none":
        return 0.0
    deep = shape["channels"] * shape["kernel"] ** 2
    rows = shape["images"] * shape["side"] ** 2
    many = deep if array.dequantise == "before" else rows * np.ceil(deep / size)
    return np.ceil(many * shape["filters"] / array.elements)


def _buffered(found: Tiling, stored: tuple[Array, ...], machine: _Machine) -> Array:
    """Joules of the buffers."""
    reads = (found.macs * stored[0], found.macs * stored[1], found.results * stored[2] + found.outputs)
    writes = (found.activations, found.weights, found.results * stored[2])
    return sum(
        read * machine.buffered("read", name) + write * machine.buffered("write", name)
        for name, read, write in zip(BUFFERS, reads, writes, strict=True)
    )  # fmt: skip


def _times(many: Array, work: _Work) -> _Work:
    return _Work(**{name: many * value for name, value in vars(work).items()})


def _costing(work: _Work, machine: _Machine, home: Mapping[str, str]) -> Cost:
    """Cycles and bits as the terms of a cost."""
    busy, moving = (work.first + work.compute) / machine.clock, (work.first + work.memory) / machine.clock
    moved: dict[str, Array] = {}
    for memory, amount in ((home["weights"], work.weights), (home["activations"], work.activations + work.outputs)):
        moved[memory] = moved.get(memory, 0.0) + amount / 8.0
    joules = _moved_joules(work, machine, home)
    joules["buffers"] = work.buffers
    joules[machine.name] = _element_joules(larger(busy, moving), work.compute, machine)
    return Cost(0.0, busy, moved, {memory: amount / moving for memory, amount in moved.items()}, joules, "output stationary")


def _moved_joules(work: _Work, machine: _Machine, home: Mapping[str, str]) -> dict[str, Array]:
    """Joules of the memories; what is written may take another energy than what is read."""
    joules: dict[str, Array] = {}
    for operand, amount, written in (
        ("weights", work.weights, False), ("activations", work.activations, False), ("activations", work.outputs, True),
    ):  # fmt: skip
        each = _per_byte(machine.device.memories[home[operand]], written)
        joules[home[operand]] = joules.get(home[operand], 0.0) + amount / 8.0 * each
    return joules


def _per_byte(memory: Memory, written: bool) -> Array:
    return memory.write_energy if written and memory.write_energy is not None else memory.energy


def _element_joules(seconds: Array, cycles: Array, machine: _Machine) -> Array:
    """Leakage for as long as the op runs, dynamic power while the elements work."""
    array = machine.array
    return array.elements * (array.leakage * seconds + array.dynamic * cycles / machine.clock)


def _attention(op: AttentionOp, machine: _Machine, home: Mapping[str, str]) -> Cost:
    """Scores and context of every KV head: rows of queries that share it against all keys, and their scores against values."""
    array, stored = machine.array, op.stream if op.expanded else op.kv
    rows, columns, passes = array.macs(machine.width(op.stream), machine.width(stored))
    sharing = op.heads / op.kv_heads * op.q_tokens / np.maximum(op.sequences, 1e-9)
    filled = np.ceil(sharing / rows) * rows / sharing
    wide = op.qk_dim + np.ceil(op.v_dim / columns) * columns
    cycles = op.pairs * op.heads * wide * filled * passes / (rows * columns)
    traffic = by_memory(op, home)
    limit: dict[str, Any] = {memory: machine.unit.limit(memory, machine.device.memories) for memory in traffic}
    joules = {memory: moved * machine.device.memories[memory].energy for memory, moved in traffic.items()}
    macs = op.ops / 2.0
    joules["buffers"] = macs * (
        bits(op.stream) * machine.buffered("read", "activations") + bits(stored) * machine.buffered("read", "weights")
    )
    cost = Cost(0.0, cycles / machine.clock, traffic, limit, joules, "output stationary")
    joules[machine.name] = _element_joules(cost.alone_s, cycles, machine)
    return cost
