"""How inference engines run a convolutional network in little memory: layer by layer, or its first layers patch by patch.

- patch.layers: one layer after another; depthwise results overwrite their input where the engine does that;
- patch: the layers up to a split run on one tile of its result after another, and the tiles are put together (MCUNetV2,
  arXiv:2110.15352): small maps, but the pixels around each tile are computed again. `patch:auto` searches the split and the
  number of tiles that fit the SRAM and recompute least; `patch:split=b4,n=4` says it (a block, a layer, a count of convolutions).

Memory while a tile runs: the whole result of the stage, and the tile of the layer in and out, with what else waits.
Windows are those that the network really computes (`clip=1`, the default), or as if tiles at the border had neighbours too
(`clip=0`, how MCUNetV2 counts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

from hwsim.cost.microcontroller import engine_of
from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.op import Convolution, MapOp, Op
from hwsim.placement.policy import Policy, fastest
from hwsim.placement.tiles import Interval, Stage, best_stage, stage_at, unmapped

MOST_TILES, AUTO_TILES = 16, 8  # on a side: that one may ask for, that a search tries


def layers() -> Policy:
    """Layer by layer, on the core."""
    return fastest()


def patch(split: str = "auto", n: float = 0, clip: float = 1) -> Policy:
    """The first layers on n x n tiles, the rest layer by layer."""
    return fastest()


def as_engine(ops: Sequence[Op], device: Device) -> list[Op]:
    """The ops with the memory that the device's engine takes: in-place results, its windows, its runtime and its code."""
    if not device.kernels.get("microcontroller"):
        return list(ops)
    p = engine_of(device).parameters
    summed = {op.source for op in ops if isinstance(op, MapOp) and op.kind == "add"} if p["in_place"] else set()
    found = [_held(op, p, op.name in summed) if isinstance(op, MapOp) else op for op in ops]
    first = next((index for index, op in enumerate(found) if isinstance(op, Convolution)), None)
    if first is not None:
        found[first] = replace(found[first], stored=found[first].stored + p["flash"])  # type: ignore[call-arg, attr-defined]
    return found


def _held(op: MapOp, p: Mapping[str, float], summed: bool) -> MapOp:
    """`op` in the memory of an engine: windows in 16 bit, its runtime; a result that is `summed` goes into the other map."""
    windows = 2.0 * p["columns"] * op.kernel[0] * op.kernel[1] * op.channels / op.groups
    buffer = windows if isinstance(op, Convolution) and op.kernel != (1, 1) else 0.0
    over = "channel" if op.kind == "depthwise" else "none" if summed or op.kind == "add" else "map"
    found = replace(op, buffer=buffer, written=over if p["in_place"] else "map")  # type: ignore[arg-type]
    gaps = (p["maps"] - 1.0) * (found.workspace - buffer)
    return replace(found, held=found.held + gaps + p["sram"])


def patched(ops: Sequence[Op], device: Device, split: str = "auto", n: float = 0, clip: float = 1) -> list[Op]:
    """The ops up to the split on one tile after another, then the rest; memory as the device's engine takes it.

    InputError for a split that is none, CapacityError later where nothing fits.
    """
    maps = [op for op in as_engine(ops, device) if isinstance(op, MapOp)]
    if len(maps) != len(ops):
        raise InputError("policy patch: accepted for convolutional networks")
    if n != int(n) or not 0 <= n <= MOST_TILES or clip not in (0, 1):
        raise InputError(f"policy patch: n={n:g}, clip={clip:g}; accepted: n from 2 to {MOST_TILES}, clip 0 or 1")
    if split == "auto":
        stage = best_stage(maps, sram_of(device), range(2, AUTO_TILES + 1) if n == 0 else (int(n),), bool(clip))
        return list(maps) if stage is None else tiled(maps, stage)
    return tiled(maps, stage_at(maps, split, int(n) or 2, bool(clip)))


def sram_of(device: Device) -> float:
    """Bytes that hold maps."""
    unit = next(iter(device.units.values()))
    home = {**device.homes, **unit.homes}.get("activations", unit.memory)
    return float(device.memories[home].capacity)


def tiled(maps: Sequence[MapOp], stage: Stage) -> list[Op]:
    """The rewritten list: every op of the stage once for each tile, tile after tile; the first tile's weights stand for all."""
    found: list[Op] = []
    for index, tile in enumerate(product(stage.rows, stage.columns)):
        previous = (found[-1].name,) if found else ()
        found += [_on_tile(op, stage, tile, index, previous) for op in stage.ops]
    joined = {stage.output.name: found[-1].name}
    return found + [replace(op, after=tuple(joined.get(name, name) for name in op.after)) for op in maps[len(stage.ops) :]]


def _on_tile(op: MapOp, stage: Stage, tile: tuple[Mapping[str, Interval], ...], index: int, previous: tuple[str, ...]) -> MapOp:
    """`op` on its part of a tile; what waits besides it is tiles too, and the stage's whole result."""

    def size(name: str) -> tuple[float, float]:
        rows, columns = (axis[name] for axis in tile)
        return float(rows[1] - rows[0]), float(columns[1] - columns[0])

    waiting = stage.alive[op.name]
    shrunk = sum(size(one.name)[0] * size(one.name)[1] * one.output_bytes / (one.rows_out * one.columns_out) for one in waiting)
    (rows, columns), (rows_out, columns_out) = size(op.source), size(op.name)
    changed = replace(
        op, name=f"{op.name}#{index}", block=f"tile {index}", after=tuple(f"{name}#{index}" for name in op.after) or previous,
        rows=rows, columns=columns, rows_out=rows_out, columns_out=columns_out,
        held=unmapped(op, waiting) + shrunk + stage.output.output_bytes,
    )  # fmt: skip
    return replace(changed, tied=True) if index and isinstance(changed, Convolution) else changed


REWRITES = {"layers": as_engine, "patch": patched}
