"""Hypothesis strategies: devices with one to three units over one or two memories, op graphs with folded blocks, their rows."""

from __future__ import annotations

from hypothesis import strategies as st

from hwsim.device import Buffer, Device, Memory, Unit
from hwsim.op import Elementwise, Gemm, Op
from hwsim.placement.rows import Row

rates = st.floats(1e9, 1e13)
energies = st.floats(0, 1e-10)


@st.composite
def devices(draw, units: int | None = None, own_memories: bool = False) -> Device:
    """`own_memories`: every unit has a memory of its own, so that nothing can be contended."""
    count = units or draw(st.integers(1, 3))
    names = [f"m{i}" for i in range(count if own_memories else draw(st.integers(1, 2)))]
    memories = {
        name: Memory(capacity=1e18, bandwidth=draw(rates), efficiency=draw(st.floats(0.1, 1)), energy=draw(energies))
        for name in names
    }
    parts = {}
    for i in range(count):
        parts[f"u{i}"] = Unit(
            does=("matmul", "vector"),
            peak={"bf16": draw(st.floats(1e10, 1e15))},
            memory=names[i] if own_memories else draw(st.sampled_from(names)),
            port=draw(st.none() | rates),
            efficiency=draw(st.floats(0.1, 1)),
            overhead=draw(st.sampled_from([0.0, 1e-6])),
            energy={"bf16": draw(energies)},
        )
    return Device(name="random", memories=memories, units=parts, static_power=draw(st.sampled_from([0.0, 70.0])))


def _op(draw, name: str, after: tuple[str, ...], block: str, repeat: int) -> Op:
    size = st.integers(1, 4096)
    common = {"name": name, "kind": "test", "after": after, "block": block, "repeat": repeat}
    if draw(st.booleans()):
        return Gemm(m=float(draw(size)), n=float(draw(size)), k=float(draw(size)), **common)
    return Elementwise(
        tokens=float(draw(size)), read=float(draw(size)), written=float(draw(size)), work=float(draw(size)), **common
    )


@st.composite
def graphs(draw) -> list[Op]:
    """Up to four blocks of up to four ops; edges go to any op before."""
    ops: list[Op] = []
    for b in range(draw(st.integers(1, 4))):
        repeat = draw(st.sampled_from([1, 1, 2, 5]))
        for i in range(draw(st.integers(1, 4))):
            before = [op.name for op in ops]
            after = tuple(sorted(draw(st.sets(st.sampled_from(before), max_size=3)))) if before else ()
            ops.append(_op(draw, f"b{b}.{i}", after, f"b{b}", repeat))
    return ops


@st.composite
def runs(draw, **device) -> tuple[list[Row], Device]:
    """A graph on a device, every op on any unit."""
    machine = draw(devices(**device))
    units = st.sampled_from(sorted(machine.units))
    rows = []
    for op in draw(graphs()):
        unit = draw(units)
        memory = machine.units[unit].memory
        rows.append(Row(op, unit, {"weights": memory, "activations": memory, "kv": memory}))
    return rows, machine


@st.composite
def buffered_runs(draw) -> tuple[list[Row], Device]:
    """Loads and computes of n tiles through a buffer of a few slots: double buffering and its like."""
    machine = draw(devices(units=2, own_memories=True))
    slots, tiles = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    machine = machine.model_copy(update={"buffers": {"tiles": Buffer(capacity=float(slots))}})
    homes = [{"weights": f"m{i}", "activations": f"m{i}", "kv": f"m{i}"} for i in range(2)]
    rows = []
    for t in range(tiles):
        load, compute = _op(draw, f"load{t}", (), "", 1), _op(draw, f"compute{t}", (f"load{t}",), "", 1)
        rows.append(Row(load, "u0", homes[0], takes={"tiles": 1.0}))
        rows.append(Row(compute, "u1", homes[1], gives={"tiles": 1.0}))
    return rows, machine
