"""Tiles of feature maps: the pixels of every layer that a tile of a later map needs, what is computed again, and the memory.

Rows and columns are independent: the interval [lo, hi) of a result needs [lo s - p, (hi - 1) s - p + k) of its input (kernel k,
stride s, padding p), so tiles of r pixels read s (r - 1) + k. A map that several layers read is needed where any one needs it.
Clipped, an interval ends at the border of the real map; unclipped, tiles at the border have neighbours too (MCUNetV2's count, as
in the authors' code generator). Multiply-accumulates of n x n tiles are weights x (sum of rows) x (sum of columns).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hwsim.errors import InputError
from hwsim.op import Convolution, MapOp

Interval = tuple[int, int]
IMAGE = ""


@dataclass(frozen=True, eq=False)
class Stage:
    """The ops of a list up to the one that makes `output`, and n x n tiles of it.

    `rows` and `columns` hold for every tile of an axis the interval of each map (by op name, "" is the image).
    """

    ops: Sequence[MapOp]
    n: int
    rows: Sequence[Mapping[str, Interval]]
    columns: Sequence[Mapping[str, Interval]]

    @property
    def output(self) -> MapOp:
        """The op whose result is put together."""
        return self.ops[-1]

    @cached_property
    def macs(self) -> float:
        """Multiply-accumulates of all tiles."""
        return sum(
            _weights(op) * _total(self.rows, op.name) * _total(self.columns, op.name) * float(op.images) for op in self.ops
        )

    @cached_property
    def base_macs(self) -> float:
        """Multiply-accumulates of the stage layer by layer."""
        return sum(float(op.macs) for op in self.ops if isinstance(op, Convolution))

    @property
    def overhead(self) -> float:
        """What is computed again, of the stage's own multiply-accumulates."""
        return self.macs / self.base_macs - 1.0

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of the image that the largest tile reads."""
        return max(_length(one[IMAGE]) for one in self.rows), max(_length(one[IMAGE]) for one in self.columns)

    @cached_property
    def alive(self) -> Mapping[str, tuple[MapOp, ...]]:
        """For every op the ops whose maps wait while it runs, its inputs left out."""
        return alive(self.ops)

    def largest(self, name: str) -> tuple[int, int]:
        """Rows and columns of a map's largest tile."""
        return max(_length(one[name]) for one in self.rows), max(_length(one[name]) for one in self.columns)

    @cached_property
    def peak(self) -> float:
        """Bytes while the stage runs: its whole result, the largest tile in, out and waiting, and kernels' buffers."""
        return float(self.output.output_bytes) + max(map(self._tile_peak, self.ops))

    def _tile_peak(self, op: MapOp) -> float:
        channels = {"map": 1.0, "channel": 1.0 / float(op.filters), "none": 0.0}[op.written]
        written = _area(self.largest(op.name)) * _per_pixel(op) * channels
        read = sum(_area(self.largest(name)) for name in _sources(op)) * _read_per_pixel(op)
        waiting = sum(_area(self.largest(other.name)) * _per_pixel(other) for other in self.alive[op.name])
        return read + written + waiting + float(op.buffer) + unmapped(op, self.alive[op.name])


def alive(ops: Sequence[MapOp]) -> Mapping[str, tuple[MapOp, ...]]:
    """For every op of a list the ops before it whose maps are read after it and not by it."""
    last = {name: index for index, op in enumerate(ops) for name in _sources(op)}
    return {
        op.name: tuple(one for one in ops[:index] if last.get(one.name, -1) > index and one.name not in _sources(op))
        for index, op in enumerate(ops)
    }


def unmapped(op: MapOp, waiting: Iterable[MapOp]) -> float:
    """Bytes that an op holds besides whole maps that wait: the runtime's."""
    return float(op.held) - sum(float(other.output_bytes) for other in waiting)


def cuts(ops: Sequence[MapOp]) -> list[int]:
    """Positions behind which nothing but the map made there is read, and that map has several rows and columns."""
    found = []
    readers = {name: max(i for i, op in enumerate(ops) if name in _sources(op)) for op in ops for name in _sources(op)}
    furthest = -1
    for index, op in enumerate(ops):
        if furthest <= index and op.rows_out > 1 and op.columns_out > 1:
            found.append(index)
        furthest = max(furthest, readers.get(op.name, -1))
        if op.kind == "copy" or (index and IMAGE in _sources(op)):
            break  # what moves elements about has no windows
    return found


def stage_of(ops: Sequence[MapOp], last: int, n: int, clip: bool) -> Stage:
    """The stage that ends at position `last`, in n x n tiles."""
    inside = ops[: last + 1]
    return Stage(inside, n, _axis(inside, n, clip, 0), _axis(inside, n, clip, 1))


def stage_at(ops: Sequence[MapOp], split: str, n: int, clip: bool) -> Stage:
    """The stage that ends after `split`: a block or op by name, or the layer of so many convolutions."""
    able = cuts(ops)
    if split.isdecimal():
        convolutions = [index for index, op in enumerate(ops) if isinstance(op, Convolution)]
        start = convolutions[int(split) - 1] if 0 < int(split) <= len(convolutions) else -1
        named = [index for index in able if index == start or (start >= 0 and index == start + 1 and ops[index].kind == "add")]
    else:
        named = [index for index in able if ops[index].name == split or ops[index].name.partition(".")[0] == split]
    if not named or min(ops[named[-1]].rows_out, ops[named[-1]].columns_out) < n:
        options = list(dict.fromkeys(ops[index].name for index in able))
        raise InputError(
            f"policy patch: split={split[:40]}, n={n}; accepted: a split after one of {', '.join(options[:12])}, n up to its rows"
        )
    return stage_of(ops, named[-1], n, clip)


def best_stage(ops: Sequence[MapOp], room: float, sizes: Iterable[int], clip: bool) -> Stage | None:
    """The stage that fits into `room` bytes and computes least again; the smallest where none fits, None where none is needed."""
    if max(float(op.workspace) for op in ops) <= room:
        return None
    tried = [
        stage_of(ops, last, n, clip) for last in cuts(ops) for n in sizes if min(ops[last].rows_out, ops[last].columns_out) >= n
    ]
    peaks = {stage: max(stage.peak, rest_peak(ops, stage)) for stage in tried}
    fitting = [stage for stage in tried if peaks[stage] <= room]
    if fitting:
        return min(fitting, key=lambda stage: (stage.macs - stage.base_macs, peaks[stage]))
    return min(tried, key=lambda stage: (peaks[stage], stage.macs - stage.base_macs), default=None)


def rest_peak(ops: Sequence[MapOp], stage: Stage) -> float:
    """Bytes of maps while the layers after the stage run."""
    return max((float(op.workspace) for op in ops[len(stage.ops) :]), default=0.0)


def _axis(ops: Sequence[MapOp], n: int, clip: bool, axis: int) -> list[Mapping[str, Interval]]:
    size = int(ops[-1].columns_out if axis else ops[-1].rows_out)
    return [_needed(ops, (index * size // n, (index + 1) * size // n), clip, axis) for index in range(n)]


def _needed(ops: Sequence[MapOp], tile: Interval, clip: bool, axis: int) -> Mapping[str, Interval]:
    """The interval of every map that `tile` of the last one needs."""
    found: dict[str, Interval] = {ops[-1].name: tile}
    for op in reversed(ops):
        if op.name not in found:
            continue
        low, high = found[op.name]
        stride, kernel, pad = op.stride[axis], op.kernel[axis], op.padding[2 * axis]
        start, end = low * stride - pad, (high - 1) * stride - pad + kernel
        if clip:
            start, end = max(start, 0), min(end, int(op.columns if axis else op.rows))
        for name in _sources(op):
            other = found.get(name, (start, end))
            found[name] = min(start, other[0]), max(end, other[1])
    return found


def _sources(op: MapOp) -> tuple[str, ...]:
    return (op.source, op.joined) if op.inputs > 1 else (op.source,)


def _weights(op: MapOp) -> float:
    return float(op.weight_count) if isinstance(op, Convolution) else 0.0


def _total(tiles: Sequence[Mapping[str, Interval]], name: str) -> int:
    return sum(_length(tile[name]) for tile in tiles)


def _length(interval: Interval) -> int:
    return interval[1] - interval[0]


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _per_pixel(op: MapOp) -> float:
    """Bytes of all channels of a pixel that an op writes."""
    return float(op.output_bytes / (op.rows_out * op.columns_out))


def _read_per_pixel(op: MapOp) -> float:
    """Bytes of all channels of a pixel of one map that an op reads; the image is streamed and not counted."""
    return 0.0 if op.source == IMAGE else float(op.input_bytes / (op.rows * op.columns * op.inputs))
