"""models/*.yaml of convolutional networks -> layers, at any width and resolution.

A file lists `layers`, each a mapping in which one word says what it is, with the number of filters:

    conv, depthwise, pointwise, dense, maxpool, mean, inverted, separable, basic

`inverted` is a 1x1 expansion (to `expand` x channels, or `inner`), a depthwise convolution and a 1x1 projection, with a sum
where size and channels stay (MobileNetV2, arXiv:1801.04381); `basic` two convolutions and a sum, through a 1x1 where it changes
size (ResNet, arXiv:1512.03385); `separable` depthwise and pointwise (MobileNet, arXiv:1704.04861). `kernel` (default 3),
`stride`, `repeat` (only the first has the stride), `groups` of the 1x1 convolutions. Widths other than 1 scale filters to
multiples of 8, never below 0.9 of what was asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hwsim.errors import InputError
from hwsim.lowering.convnet import IMAGE, Activation, ConvNet, Does, MapLayer, Size, checked, same, window

BLOCKS = ("conv", "depthwise", "pointwise", "dense", "maxpool", "mean", "inverted", "separable", "basic")
_OPTIONS = frozenset(("kernel", "stride", "repeat", "expand", "inner", "groups"))
_FIELDS = frozenset(("name", "description", "aliases", "source", "image", "width", "layers"))
_LINEAR = frozenset(("project", "conv2", "shortcut"))  # convolutions without an activation function of their own
MOST_LAYERS = 2000


def is_convnet(raw: Mapping[str, Any]) -> bool:
    """Whether a file of models/ is a convolutional network."""
    return "layers" in raw and "image" in raw


def read_convnet(raw: Mapping[str, Any], name: str, where: str, changes: Mapping[str, float] | None = None) -> ConvNet:
    """The network of a file, with `width` and `resolution` as in `changes`. InputError names the field."""
    changes = changes or {}
    unknown = sorted(set(map(str, raw)) - _FIELDS) + sorted(set(changes) - {"width", "resolution"})
    if unknown:
        raise InputError(f"{where}: {unknown[0][:40]}: unknown field; accepted: {', '.join(sorted(_FIELDS | {'resolution'}))}")
    image = _image(raw.get("image"), where)
    if "resolution" in changes:
        side = changes["resolution"]
        if side != int(side):
            raise InputError(f"{where}: resolution: {side:g}; accepted: a whole number of pixels")
        image = checked((image[0], int(side), int(side)), f"{where}: resolution")
    width = changes.get("width", _number(raw.get("width", 1), f"{where}: width"))
    if not 0 < width <= 16:
        raise InputError(f"{where}: width: {width:g}; accepted: above 0, at most 16")
    layers = raw["layers"]
    if not isinstance(layers, list) or not layers:
        raise InputError(f"{where}: layers: {str(layers)[:40]!r}; accepted: a list of layers")
    builder = _Builder(image, width, where)
    for index, one in enumerate(layers):
        builder.block(one, f"{where}: layers.{index}")
    return ConvNet(name, image, tuple(builder.layers), str(raw.get("source", "")))


class _Builder:
    """Adds layer after layer; `at` is the map that the next one reads. Blocks are named b0, b1 ... in order."""

    def __init__(self, image: Size, width: float, where: str) -> None:
        self.width, self.where = width, where
        self.at, self.size = IMAGE, image
        self.layers: list[MapLayer] = []
        self.counts = dict.fromkeys(BLOCKS, 0)
        self.label = ""

    def block(self, raw: Any, where: str) -> None:
        """The layers of one entry, repeated as it says."""
        kinds = [key for key in raw if key in BLOCKS] if isinstance(raw, dict) else []
        if len(kinds) != 1:
            raise InputError(f"{where}: {str(raw)[:40]!r}; accepted: a mapping with one of {', '.join(BLOCKS)}")
        kind = kinds[0]
        options = {key: value for key, value in raw.items() if key != kind}
        for key in options:
            if key not in _OPTIONS:
                raise InputError(f"{where}.{str(key)[:40]}: unknown field; accepted: {', '.join(sorted(_OPTIONS))}")
        filters = raw[kind] if kind in ("mean", "dense") else self._filters(raw[kind], where)
        stride = _pair(options.get("stride", 1), f"{where}.stride")
        for turn in range(_whole(options.get("repeat", 1), f"{where}.repeat")):
            self._named(str(kind))
            getattr(self, f"_{kind}")(filters, stride if turn == 0 else (1, 1), options, where)
            if len(self.layers) > MOST_LAYERS:
                raise InputError(f"{where}: more than {MOST_LAYERS} layers")

    def _named(self, kind: str) -> None:
        """Inverted, separable and basic blocks are b1, b2 ...; others are named after what they are."""
        many = kind in ("inverted", "separable", "basic")
        key = "inverted" if many else kind
        self.counts[key] += 1
        self.label = f"b{self.counts[key]}" if many else kind if self.counts[key] == 1 else f"{kind}{self.counts[key]}"

    def _filters(self, value: Any, where: str) -> int:
        asked = _whole(value, where)
        return asked if self.width == 1 else scaled(asked, self.width)

    def _add(
        self, part: str, does: Does, filters: int, kernel: tuple[int, int], stride: tuple[int, int], where: str, groups: int = 1
    ) -> None:
        name = f"{self.label}.{part}" if part else self.label
        if self.size[0] % groups or filters % groups:
            raise InputError(
                f"{where}: {groups} groups of {self.size[0]} channels and {filters} filters; accepted: a divisor of both"
            )
        padding = same(kernel)
        out = window(self.size, filters, kernel, stride, padding, where)
        linear = does != "conv" or part in _LINEAR or self.label.startswith("dense")
        activation: Activation = "" if linear else "relu6"
        shape = (kernel, stride, padding, groups)
        layer = MapLayer(name, does, (self.at,), self.size, out, *shape, activation=activation, block=self.label)
        self.layers.append(layer)
        self.at, self.size = name, out

    def _sum(self, other: str, activation: Activation = "") -> None:
        name = f"{self.label}.add"
        self.layers.append(MapLayer(name, "add", (self.at, other), self.size, self.size, activation=activation, block=self.label))
        self.at = name

    def _conv(self, filters: int, stride: tuple[int, int], options: Mapping[str, Any], where: str) -> None:
        self._add("", "conv", filters, _kernel(options, where), stride, where)

    def _pointwise(self, filters: int, stride: tuple[int, int], options: Mapping[str, Any], where: str) -> None:
        self._add("", "conv", filters, (1, 1), stride, where, _groups(options, where))

    def _depthwise(self, filters: int, stride: tuple[int, int], options: Mapping[str, Any], where: str) -> None:
        self._add("", "conv", self.size[0], _kernel(options, where), stride, where, self.size[0])

    def _maxpool(self, filters: int, stride: tuple[int, int], options: Mapping[str, Any], where: str) -> None:
        self._add("", "pool", self.size[0], _kernel(options, where), stride, where)

    def _mean(self, _: Any, stride: tuple[int, int], options: Mapping[str, Any], where: str) -> None:
        out = (self.size[0], 1, 1)
        self.layers.append(
            MapLayer(self.label, "pool", (self.at,), self.size, out, self.size[1:], self.size[1:], block=self.label)
        )
        self.at, self.size = self.label, out

    def _dense(self, filters: Any, stride: tuple[int, int], options: Mapping[str, Any], where: str) -> None:
        self.size = (self.size[0] * self.size[1] * self.size[2], 1, 1)
        self._add("", "conv", _whole(filters, where), (1, 1), (1, 1), where)

    def _inverted(self, filters: int, stride: tuple[int, int], options: Mapping[str, Any], where: str) -> None:
        before, channels = self.at, self.size[0]
        inner = _whole(options.get("inner", 0), f"{where}.inner", 0) or round(
            channels * _number(options.get("expand", 1), f"{where}.expand")
        )
        groups = _groups(options, where)
        if inner != channels:
            self._add("expand", "conv", inner, (1, 1), (1, 1), where, groups)
        self._add("depthwise", "conv", inner, _kernel(options, where), stride, where, inner)
        self._add("project", "conv", filters, (1, 1), (1, 1), where, groups)
        if stride == (1, 1) and filters == channels:
            self._sum(before)

    def _separable(self, filters: int, stride: tuple[int, int], options: Mapping[str, Any], where: str) -> None:
        self._add("depthwise", "conv", self.size[0], _kernel(options, where), stride, where, self.size[0])
        self._add("pointwise", "conv", filters, (1, 1), (1, 1), where)

    def _basic(self, filters: int, stride: tuple[int, int], options: Mapping[str, Any], where: str) -> None:
        before, size = self.at, self.size
        self._add("conv1", "conv", filters, _kernel(options, where), stride, where)
        self._add("conv2", "conv", filters, _kernel(options, where), (1, 1), where)
        if stride != (1, 1) or filters != size[0]:
            after, out = self.at, self.size
            self.at, self.size = before, size
            self._add("shortcut", "conv", filters, (1, 1), stride, where)
            before, self.at, self.size = self.at, after, out
        self._sum(before, "relu")


def scaled(filters: int, width: float) -> int:
    """filters x width as a multiple of 8, at least 8 and never below 0.9 of it (MobileNetV2's rule)."""
    asked = filters * width
    near = max(8, int(asked + 4) // 8 * 8)
    return near + 8 if near < 0.9 * asked else near


def _image(raw: Any, where: str) -> Size:
    if not isinstance(raw, list) or len(raw) != 3:
        raise InputError(f"{where}: image: {str(raw)[:40]!r}; accepted: [channels, rows, columns]")
    return checked((_whole(one, f"{where}: image") for one in raw), f"{where}: image")


def _kernel(options: Mapping[str, Any], where: str) -> tuple[int, int]:
    return _pair(options.get("kernel", 3), f"{where}.kernel")


def _groups(options: Mapping[str, Any], where: str) -> int:
    return _whole(options.get("groups", 1), f"{where}.groups")


def _pair(raw: Any, where: str) -> tuple[int, int]:
    values: Sequence[Any] = raw if isinstance(raw, list) and len(raw) == 2 else (raw, raw)
    return _whole(values[0], where), _whole(values[1], where)


def _whole(raw: Any, where: str, least: int = 1) -> int:
    if not re.fullmatch(r"\d{1,6}", str(raw)) or isinstance(raw, bool) or int(raw) < least:
        raise InputError(f"{where}: {str(raw)[:40]!r}; accepted: a whole number from {least} to 999999")
    return int(raw)


def _number(raw: Any, where: str) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise InputError(f"{where}: {str(raw)[:40]!r}; accepted: a number")
    return float(raw)
