"""Feature maps of fewer than 8 bit in a list of ops: what writes a map stores it so, what reads it multiplies so."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from hwsim.op import Convolution, MapOp, Op


def with_bits(ops: Sequence[Op], bits: Mapping[str, int], kept: Collection[int] = ()) -> list[Op]:
    """`ops` with maps by the name of the op that makes them in `bits`; tiles whose number is `kept` stay in 8 bit.

    A map that was put together from tiles is read in 8 bit where any of them was kept. Maps that wait are still counted in 8 bit.
    """
    tiled = {name for op in ops if (name := _tile(op)[0]) != op.name}
    return [_narrow(op, bits, kept, tiled) if isinstance(op, MapOp) else op for op in ops]


def _narrow(op: MapOp, bits: Mapping[str, int], kept: Collection[int], tiled: Collection[str]) -> MapOp:
    name, tile = _tile(op)
    if tile is not None and tile in kept:
        return op
    together = tile is None and op.source in tiled and bool(kept)
    read = 8 if together else bits.get(op.source, 8)
    return replace(op, activations=f"int{read}", stream=f"int{bits.get(name, 8)}")


def _tile(op: Op) -> tuple[str, int | None]:
    """b1.expand#3 -> (b1.expand, 3)."""
    name, sign, number = op.name.rpartition("#")
    return (name, int(number)) if sign and number.isdecimal() and op.block.startswith("tile ") else (op.name, None)


def bit_operations(ops: Sequence[Op]) -> float:
    """Multiply-accumulates x bits of weights x bits of the map that is read, over all ops."""
    return sum(float(op.bit_operations) for op in ops if isinstance(op, Convolution))
