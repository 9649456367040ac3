"""Convolutional networks: layers on feature maps, and their ops.

A network is a list of layers in the order in which they run; a layer reads maps that the image or layers before it made. Sizes
are (channels, rows, columns); multiply-accumulates of a convolution are those of all its windows, padding included. Normalisation
and activation functions ride in the layer before them, as inference engines fold and fuse them: a folded batch norm leaves a
bias, which counts as a parameter. `lower_convnet` finds which other maps are alive while a layer runs, which is what on-chip
memory has to hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from hwsim.errors import InputError
from hwsim.formats import nbytes
from hwsim.op import Array, Convolution, MapOp, Op

Size = tuple[int, int, int]  # channels, rows, columns
Does = Literal["conv", "pool", "add", "mul", "copy"]
Activation = Literal["", "relu", "relu6"]

IMAGE = ""  # the name of what the network reads
BIAS_AND_SCALES = 8.0  # bytes per filter: a 32-bit bias, and multiplier and shift of the result in 32 bit (TF-Lite's int8 scheme)
MOST_PIXELS, MOST_CHANNELS = 1 << 20, 1 << 20


@dataclass(frozen=True)
class MapLayer:
    """One layer. `padding` is (top, bottom, left, right); `norms` are parameters of a normalisation that was not folded."""

    name: str
    does: Does
    sources: tuple[str, ...]
    into: Size
    out: Size
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    bias: bool = True
    norms: int = 0
    activation: Activation = ""
    block: str = ""

    @property
    def weights(self) -> int:
        """Weights of a convolution, biases left out."""
        return self.out[0] * self.into[0] // self.groups * self.kernel[0] * self.kernel[1] if self.does == "conv" else 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.weights * self.out[1] * self.out[2]

    @property
    def parameters(self) -> int:
        """Weights, biases and norms."""
        return self.weights + (self.out[0] if self.does == "conv" and self.bias else 0) + self.norms

    @property
    def kind(self) -> str:
        """The sort of kernel that runs it: conv, depthwise, pointwise, dense, or what it does."""
        if self.does != "conv":
            return self.does
        if self.groups > 1 and self.groups == self.into[0]:
            return "depthwise"
        if self.kernel != (1, 1):
            return "conv"
        return "dense" if self.out[1:] == (1, 1) and self.into[1:] == (1, 1) else "pointwise"


@dataclass(frozen=True)
class ConvNet:
    """A network of layers on feature maps, the image being `image` (channels, rows, columns)."""

    name: str
    image: Size
    layers: tuple[MapLayer, ...]
    source: str = ""
    notes: tuple[str, ...] = ()

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(layer.macs for layer in self.layers)

    @cached_property
    def parameters(self) -> int:
        """All parameters."""
        return sum(layer.parameters for layer in self.layers)

    @cached_property
    def readers(self) -> Mapping[str, tuple[MapLayer, ...]]:
        """The layers that read each map."""
        found: dict[str, tuple[MapLayer, ...]] = {}
        for layer in self.layers:
            for source in layer.sources:
                found[source] = (*found.get(source, ()), layer)
        return found

    def size(self, name: str) -> Size:
        """The size of the map that a layer (or the image) makes."""
        return self.image if name == IMAGE else self._sizes[name]

    @cached_property
    def _sizes(self) -> Mapping[str, Size]:
        return {layer.name: layer.out for layer in self.layers}


def lower_convnet(net: ConvNet, images: Array = 1, weights: str = "int8", activations: str = "int8") -> list[Op]:
    """The ops of one pass over `images` images, layer by layer, in formats `weights` and `activations`."""
    alive = maps_alive(net)
    each = nbytes(activations)
    found: list[Op] = []
    for layer, others in zip(net.layers, alive, strict=True):
        held = sum(_elements(net.size(name)) for name in others) * each
        found.append(_op(layer, images, held * images, weights, activations))
    return found


def _op(layer: MapLayer, images: Array, held: Array, weights: str, activations: str) -> MapOp:
    after = tuple(dict.fromkeys(source for source in layer.sources if source != IMAGE))
    shape = {
        "name": layer.name, "kind": layer.kind, "after": after, "images": images, "channels": float(layer.into[0]),
        "rows": float(layer.into[1]), "columns": float(layer.into[2]), "filters": float(layer.out[0]),
        "rows_out": float(layer.out[1]), "columns_out": float(layer.out[2]), "kernel": layer.kernel, "stride": layer.stride,
        "padding": layer.padding, "groups": layer.groups, "source": layer.sources[0], "activations": activations,
        "stream": activations, "held": held,
    }  # fmt: skip
    if layer.does == "conv":
        return Convolution(**shape, weights=weights, stored=BIAS_AND_SCALES * layer.out[0])  # type: ignore[arg-type]
    joined = layer.sources[1] if len(layer.sources) > 1 else ""
    inputs = len(layer.sources) if layer.does in ("add", "mul") else 1
    return MapOp(**shape, inputs=inputs, joined=joined)  # type: ignore[arg-type]


def maps_alive(net: ConvNet) -> list[tuple[str, ...]]:
    """For every layer the maps that were made before and are read after it, its own inputs left out.

    The image is not counted: it is decoded or streamed as it is read.
    """
    last = {source: index for index, layer in enumerate(net.layers) for source in layer.sources}
    made: list[str] = []
    found = []
    for index, layer in enumerate(net.layers):
        found.append(tuple(name for name in made if last.get(name, -1) > index and name not in layer.sources))
        made.append(layer.name)
    return found


def _elements(size: Size) -> int:
    return size[0] * size[1] * size[2]


def same(kernel: tuple[int, int]) -> tuple[int, int, int, int]:
    """Padding that keeps the size at stride 1: half the kernel on every side."""
    above, left = (kernel[0] - 1) // 2, (kernel[1] - 1) // 2
    return (above, kernel[0] - 1 - above, left, kernel[1] - 1 - left)


def window(
    into: Size, filters: int, kernel: tuple[int, int], stride: tuple[int, int], padding: Sequence[int], where: str
) -> Size:
    """Size of the map that a window makes: floor((rows + padding - kernel) / stride) + 1, columns likewise."""
    rows = (into[1] + padding[0] + padding[1] - kernel[0]) // stride[0] + 1
    columns = (into[2] + padding[2] + padding[3] - kernel[1]) // stride[1] + 1
    return checked((filters, rows, columns), where)


def checked(size: Iterable[int], where: str) -> Size:
    """A size with sane numbers; InputError otherwise."""
    channels, rows, columns = size
    if not (0 < channels <= MOST_CHANNELS and 0 < rows <= MOST_PIXELS and 0 < columns <= MOST_PIXELS):
        raise InputError(f"{where}: a map of {channels} x {rows} x {columns}; accepted: 1 to {MOST_PIXELS} each")
    return channels, rows, columns
