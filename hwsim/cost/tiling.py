"""The best tile and loop order of a layer on an output-stationary array: all of them at once, as one axis of arrays.

A layer has `images`, a square output map of `side`, a square `kernel`, `channels` in and `filters` out (a GEMM of m x k x n has m
images, k channels, n filters, side and kernel 1). A tile takes a power of two of each, the kernel whole; five loops over the
trips (images, two sides, channels, filters) surround it in any order. Walking outwards, what half a buffer holds of an operand
stays in it until a loop multiplies it beyond that half; from there on every loop reads (or writes) it again:

    compute = tiles x ceil(images x side^2 / rows) x ceil(filters / columns) x kernel^2 x channels       of a tile, in cycles
    first   = ceil(what the buffers hold of activations and weights / wire) + ceil(of outputs / wire)
    memory  = ceil((all bits over the wire - those of `first`) / wire)
    cycles  = first + max(compute, memory)

Fewest cycles win, then the least energy of DRAM. From the released simulators of MixPE (arXiv:2411.16158) and ANT
(arXiv:2208.14286), a branch of BitFusion's: tiles are padded to whole rows and columns of the array, loops of one trip take
part, and outputs that fit while a loop over them passes are not waited for at the end. Exact on the former's layers.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwsim.op import Array

Floats = NDArray[np.float64]
_ACTIVATIONS, _WEIGHTS, _OUTPUTS = range(3)
# which loops (images, side, side, channels, filters) move on in activations, weights and outputs
_MOVES = np.array([[1, 1, 1, 1, 0], [0, 0, 0, 1, 1], [1, 1, 1, 0, 1]], dtype=bool)
_SIDES = (1, 2)


class Layer(NamedTuple):
    """What is computed: sizes, and bits of an activation, a weight and an output."""

    images: Array
    side: Array
    kernel: Array
    channels: Array
    filters: Array
    a_bits: Array
    w_bits: Array
    o_bits: Array


class Engine(NamedTuple):
    """What computes it: multiply-accumulates across (rows, columns), bits of each buffer's half and of the wire per cycle.

    `read` and `write` weigh DRAM's bits against each other where two choices take equally long.
    """

    rows: Array
    columns: Array
    activations: Array
    weights: Array
    outputs: Array
    wire: Array
    read: Array
    write: Array


class Tiling(NamedTuple):
    """The best choice: cycles, bits over the wire, padded counts, and the tile; NaN where not even the smallest tile fits."""

    compute: Array
    first: Array
    memory: Array
    activations: Array
    weights: Array
    outputs: Array
    macs: Array
    results: Array
    images: Array
    side: Array
    channels: Array
    filters: Array


def tiling(layer: Layer, engine: Engine) -> Tiling:
    """The best tile and order; any number may be an array, and equal points are searched once."""
    given = [*layer, *engine]
    if not any(isinstance(value, np.ndarray) for value in given):
        return _best(Layer(*map(float, layer)), Engine(*map(float, engine)))
    points = np.stack([np.ravel(part) for part in np.broadcast_arrays(*given)])
    unique, where = np.unique(points, axis=1, return_inverse=True)
    found = [_best(Layer(*column[: len(layer)]), Engine(*column[len(layer) :])) for column in unique.T.tolist()]
    shape = np.broadcast_shapes(*(np.shape(value) for value in given))
    return Tiling(*(np.array(parts)[np.ravel(where)].reshape(shape) for parts in zip(*found, strict=True)))


class _Walked(NamedTuple):
    """Bits moved of each operand, and cycles, of tiles in every order; operands first, (tiles, orders) last."""

    moved: Floats
    first: Floats
    memory: Floats
    cycles: Floats


@lru_cache(maxsize=65536)
def _best(layer: Layer, engine: Engine) -> Tiling:
    """One layer on one array; remembered, since networks repeat their layers.

    Tiles whose arithmetic alone takes longer than the best one of least arithmetic are not walked.
    """
    tile, fill = _tiles(layer, engine)
    if not tile.shape[1]:
        return Tiling(*[float("nan")] * len(Tiling._fields))
    trips = np.ceil(np.array(_extents(layer))[:, None] / tile[[0, 1, 1, 2, 3]])
    results, macs, compute = _counted(tile, trips.prod(axis=0), layer, engine)
    least = compute == compute.min()
    able = np.flatnonzero(compute <= _walk(fill[:, least], trips[:, least], compute[least], layer, engine).cycles.min())
    found = _walk(fill[:, able], trips[:, able], compute[able], layer, engine)
    energy = (found.moved[0] + found.moved[1]) * engine.read + found.moved[2] * engine.write
    row, order = np.unravel_index(np.lexsort((energy.ravel(), found.cycles.ravel()))[0], found.cycles.shape)
    t, at = able[row], (row, order)
    chosen = (compute[t], found.first[at], found.memory[at], *found.moved[:, row, order], macs[t], results[t], *tile[:, t])
    return Tiling(*map(float, chosen))


def _walk(fill: Floats, trips: Floats, compute: Floats, layer: Layer, engine: Engine) -> _Walked:
    """Every order of the loops around some tiles."""
    moved, held = _moved(fill, trips, layer, engine)
    first = np.ceil((held[0] + held[1]) / engine.wire) + np.ceil(held[2] / engine.wire)
    memory = np.ceil((moved.sum(axis=0) - held.sum(axis=0)) / engine.wire)
    return _Walked(moved, first, memory, first + np.maximum(compute[:, None], memory))


def _extents(x: Layer) -> tuple[Array, ...]:
    return (x.images, x.side, x.side, x.channels, x.filters)


def _tiles(x: Layer, e: Engine) -> tuple[Floats, Floats]:
    """(images, side, channels, filters) of every tile that half a buffer holds, and bits of its three operands."""
    axes = np.meshgrid(*map(_powers, (x.images, x.side, x.channels, x.filters)), indexing="ij")
    b, o, i, c = (axis.ravel() for axis in axes)
    deep = x.kernel**2 * i
    activations = o * o * np.ceil(deep / e.columns) * e.columns * b * x.a_bits
    weights = np.ceil(deep / e.rows) * e.rows * c * x.w_bits
    fits = (activations <= e.activations) & (weights <= e.weights)
    return np.stack([b, o, i, c])[:, fits], np.stack([activations, weights, o * o * c * b * x.o_bits])[:, fits]


def _powers(size: Array) -> Floats:
    """1, 2, 4, ... and the size itself."""
    whole = float(np.ceil(size))
    return np.append(2.0 ** np.arange(np.ceil(np.log2(max(whole, 1.0)))), whole)


@lru_cache(maxsize=2)
def _orders(flat: bool) -> NDArray[np.int_]:
    """Orders of the five loops, innermost first; the two sides are alike, and with one trip each they only matter at the ends."""
    every = [order for order in permutations(range(5)) if order.index(1) < order.index(2)]
    ends = [order for order in every if {order[:2], order[3:]} & {_SIDES}]
    return np.array(ends if flat else every)


def _moved(fill: Floats, trips: Floats, x: Layer, e: Engine) -> tuple[Floats, Floats]:
    """Bits over the wire and bits held of activations, weights and outputs; (3, tiles, orders)."""
    orders, halves = _orders(x.side == 1.0), (e.activations, e.weights, e.outputs)
    each = [_walked(of, half, moves, trips, orders) for of, half, moves in zip(fill, halves, _MOVES, strict=True)]
    return np.stack([moved for moved, _ in each]), np.stack([held for _, held in each])


def _walked(
    fill: Floats, half: Array, moves: NDArray[np.bool_], trips: Floats, orders: NDArray[np.int_]
) -> tuple[Floats, Floats]:
    """Bits of an operand over the wire, and of what its buffer holds before the first (after the last) tile; (tiles, orders)."""
    shape = (len(fill), len(orders))
    moved, held, stays = np.tile(fill[:, None], orders.shape[0]), np.tile(fill[:, None], orders.shape[0]), np.ones(shape, bool)
    drained = moves[_SIDES[0]] and moves[4]  # outputs: what fits leaves while a loop passes
    for loop in orders.T:
        on = moves[loop]
        grown = np.where(stays & ~on, moved, moved * trips[loop].T)
        stays_here = stays & (grown <= half)
        kept = np.where(on, 0.0, held) if drained else grown
        held = np.where(stays_here, kept, held)
        stays = np.where(on, stays_here, stays) if drained else stays_here
        moved = grown
    return moved, held


def _counted(tile: Floats, tiles: Floats, x: Layer, e: Engine) -> tuple[Floats, Floats, Floats]:
    """Results and multiply-accumulates of all tiles, padding included, and cycles of the array."""
    b, o, i, c = tile
    results, deep = tiles * b * o * o * c, x.kernel**2 * i
    return results, results * deep, tiles * np.ceil(b * o * o / e.rows) * np.ceil(c / e.columns) * deep
