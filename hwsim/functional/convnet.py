"""Inference of convolutional networks in 8-bit integers, in NumPy: the feature maps that a search for bit widths looks at.

Weights are drawn (He et al., arXiv:1502.01852) with a seed, since files of shapes have none, or the user's own. Batch norm is
folded: on calibration images every convolution is scaled to outputs of variance 1. Statistics are those of that network, not of
a trained one. Quantisation is affine, per filter for weights and per map for activations (Jacob et al., arXiv:1712.05877):
x = scale x (q - zero), with the difference kept as an exact integer. A map of b < 8 bit keeps every 2^(8-b)-th level.
Maps are (images, channels, rows, columns).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import InputError
from hwsim.lowering.convnet import IMAGE, ConvNet, MapLayer

Map = NDArray[np.float64]
Weights = Mapping[str, Map]  # layer -> (filters, channels / groups, rows, columns)
SIX = 6.0


@dataclass(frozen=True, eq=False)
class Quantised:
    """A network in integers: weights with a scale per filter, and scale and lowest level of every map ("" is the image)."""

    net: ConvNet
    weights: Weights
    scales: Mapping[str, Map]
    map_scales: Mapping[str, float]
    lowest: Mapping[str, int]

    def run(self, images: Map, bits: Mapping[str, int] | None = None) -> dict[str, Map]:
        """Integer maps (q - zero) of every layer for real-valued images; `bits` names maps of fewer than 8."""
        bits = bits or {}
        maps = {IMAGE: self._levels(images, IMAGE, bits)}
        for layer in self.net.layers:
            read = [maps[name] * self.map_scales[name] for name in layer.sources]
            if layer.does == "conv":
                each = self.scales[layer.name] * self.map_scales[layer.sources[0]]
                found = _convolved(maps[layer.sources[0]], self.weights[layer.name], layer) * each[:, None, None]
            else:
                found = _plain(layer, read)
            maps[layer.name] = self._levels(_ACTIVATIONS[layer.activation](found), layer.name, bits)
        return maps

    def _levels(self, values: Map, name: str, bits: Mapping[str, int]) -> Map:
        step = float(2 ** (8 - bits.get(name, 8)))
        low = self.lowest[name]
        levels = np.clip(np.rint(values / self.map_scales[name]), low, low + 255)
        return np.asarray(np.floor((levels - low) / step) * step + low) if step > 1 else levels


def drawn_weights(net: ConvNet, seed: int) -> dict[str, Map]:
    """He-initialised weights: variance 2 over the inputs of a filter."""
    rng = np.random.default_rng([seed, 0x4E])
    shapes = {layer.name: _shape(layer) for layer in net.layers if layer.does == "conv"}
    return {name: rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[1:])), shape) for name, shape in shapes.items()}


def real_maps(net: ConvNet, weights: Weights, images: Map) -> dict[str, Map]:
    """The maps of every layer in real numbers."""
    maps: dict[str, Map] = {IMAGE: images}
    for layer in net.layers:
        found = _convolved(maps[layer.sources[0]], weights[layer.name], layer) if layer.does == "conv" else _plain(
            layer, [maps[name] for name in layer.sources]
        )  # fmt: skip
        maps[layer.name] = _ACTIVATIONS[layer.activation](found)
    return maps


def normalised(net: ConvNet, weights: Weights, images: Map) -> tuple[dict[str, Map], dict[str, Map]]:
    """Weights scaled per filter so that every convolution's outputs have variance 1 on `images`, and the maps they make."""
    maps: dict[str, Map] = {IMAGE: images}
    found: dict[str, Map] = {}
    for layer in net.layers:
        if layer.does == "conv":
            out = _convolved(maps[layer.sources[0]], weights[layer.name], layer)
            spread = np.maximum(out.std(axis=(0, 2, 3)) if out[0, 0].size * len(out) > 1 else np.ones(layer.out[0]), 1e-12)
            found[layer.name] = weights[layer.name] / spread[:, None, None, None]
            out = out / spread[:, None, None]
        else:
            out = _plain(layer, [maps[name] for name in layer.sources])
        maps[layer.name] = _ACTIVATIONS[layer.activation](out)
    return found, maps


def quantised(net: ConvNet, weights: Weights, maps: Mapping[str, Map]) -> Quantised:
    """8-bit weights per filter, and ranges of all `maps` from their extremes."""
    scales = {name: np.maximum(np.abs(w).max(axis=(1, 2, 3)), 1e-12) / 127.0 for name, w in weights.items()}
    whole = {name: np.rint(w / scales[name][:, None, None, None]) for name, w in weights.items()}
    low = {name: min(float(values.min()), 0.0) for name, values in maps.items()}
    high = {name: max(float(values.max()), 0.0) for name, values in maps.items()}
    map_scales = {name: max(high[name] - low[name], 1e-12) / 255.0 for name in maps}
    return Quantised(net, whole, scales, map_scales, {name: round(low[name] / map_scales[name]) for name in maps})


def _shape(layer: MapLayer) -> tuple[int, int, int, int]:
    return (layer.out[0], layer.into[0] // layer.groups, *layer.kernel)


def _convolved(x: Map, weights: Map, layer: MapLayer) -> Map:
    """The convolution as one product for each pixel of the kernel, exact for integers below 2^53."""
    if x[0].size == np.prod(layer.into):
        x = x.reshape(len(x), *layer.into)  # a dense layer reads all of a map
    top, bottom, left, right = layer.padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    groups, (filters, rows, columns) = layer.groups, layer.out
    out = np.zeros((len(x), groups, filters // groups, rows, columns))
    for i in range(layer.kernel[0]):
        for j in range(layer.kernel[1]):
            seen = _strided(padded, i, j, layer).reshape(len(x), groups, -1, rows * columns)
            tap = weights[:, :, i, j].reshape(groups, filters // groups, -1)
            out += np.matmul(tap[None], seen).reshape(out.shape) if seen.shape[2] > 1 else (tap[None] * seen).reshape(out.shape)
    return out.reshape(len(x), *layer.out)


def _strided(padded: Map, i: int, j: int, layer: MapLayer) -> Map:
    (_, rows, columns), stride = layer.out, layer.stride
    return padded[:, :, i : i + stride[0] * (rows - 1) + 1 : stride[0], j : j + stride[1] * (columns - 1) + 1 : stride[1]]


def _plain(layer: MapLayer, read: list[Map]) -> Map:
    """Pools, sums and products of maps. InputError for what only moves elements."""
    if layer.does == "add":
        return np.asarray(sum(read[1:], start=read[0]))
    if layer.does == "mul":
        return np.asarray(np.prod(np.broadcast_arrays(*read), axis=0))
    if layer.does != "pool":
        raise InputError(f"layer {layer.name}: what only moves elements has no values here; accepted: windows, sums, products")
    top, bottom, left, right = layer.padding
    whole = layer.kernel == layer.into[1:]
    padded = np.pad(read[0], ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=0.0 if whole else -np.inf)
    seen = [_strided(padded, i, j, layer) for i in range(layer.kernel[0]) for j in range(layer.kernel[1])]
    return np.asarray(np.mean(seen, axis=0) if whole else np.max(seen, axis=0))


def _relu6(x: Map) -> Map:
    return np.clip(x, 0.0, SIX)


_ACTIVATIONS: Mapping[str, Callable[[Map], Map]] = {"": lambda x: x, "relu": lambda x: np.maximum(x, 0.0), "relu6": _relu6}
