"""Measures of HAWQ-V3 (arXiv:2011.10680): integer ResNets on a T4, layer by layer, and the authors' choice of bits.

A network is its convolutions (operands and results in the width of the layer, requantised within the kernel), residual adds in
INT32, pooling and the classifier. Stem and classifier stay in 8 bits, as the paper leaves them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwsim.catalogue import load_device
from hwsim.claim import Run
from hwsim.engine import simulate
from hwsim.files import read_mapping
from hwsim.formats import bits
from hwsim.kernels.sets import choose
from hwsim.lowering.convolution import convolution
from hwsim.op import Conv, Elementwise, Gemm, Op
from hwsim.placement import place

WIDE, NARROW = "int8", "int4"
MEBI = 1024**2 / 1e6  # the authors' MB are 2^20 bytes
LIMITS = {"high": 0.75, "medium": 0.5, "low": 0.25}


class Layer(NamedTuple):
    """A convolution of a block; the downsampling one has the width of the block's first."""

    name: str
    side: int
    channels: int
    filters: int
    kernel: int
    stride: int


# ---- networks ------------------------------------------------------------------------------------------------------------------


@cache
def blocks(network: str) -> tuple[tuple[Layer, ...], ...]:
    """The convolutions of each block; the downsampling one, where there is one, last."""
    shape = _read("networks.yaml")["networks"][network]
    found, side, channels = [], 56, 64
    for stage, (width, count) in enumerate(zip(shape["widths"], shape["blocks"], strict=True)):
        for index in range(count):
            stride = 2 if stage and not index else 1
            found.append(_block(f"{stage}.{index}", side, channels, width, stride, shape["bottleneck"]))
            side, channels = side // stride, width * (4 if shape["bottleneck"] else 1)
    return tuple(found)


def _block(name: str, side: int, channels: int, width: int, stride: int, bottleneck: bool) -> tuple[Layer, ...]:
    after, out = side // stride, width * (4 if bottleneck else 1)
    if bottleneck:
        inner = [
            Layer(f"{name}.1", side, channels, width, 1, 1),
            Layer(f"{name}.2", side, width, width, 3, stride),
            Layer(f"{name}.3", after, width, out, 1, 1),
        ]
    else:
        inner = [Layer(f"{name}.1", side, channels, width, 3, stride), Layer(f"{name}.2", after, width, width, 3, 1)]
    down = [Layer(f"{name}.down", side, channels, out, 1, stride)] if stride > 1 or channels != out else []
    return (*inner, *down)


def layers(network: str) -> list[Layer]:
    """All convolutions of the blocks, in the order of the authors' lists: a downsampling one behind the block's others."""
    return [layer for block in blocks(network) for layer in block]


def _conv(layer: Layer, batch: int, format: str) -> Conv:
    return convolution(
        layer.name, "conv", images=float(batch), side=layer.side, channels=layer.channels, filters=layer.filters,
        kernel=layer.kernel, stride=layer.stride, padding=layer.kernel // 2, weights=format, activations=format, stream=format,
    )  # fmt: skip


def _ops(network: str, batch: int, formats: Sequence[str], ends: str) -> list[Op]:
    """The network with a format for each convolution, and one for stem and classifier."""
    return list(_in_a_row(_every(network, batch, formats, ends)))


def _every(network: str, batch: int, formats: Sequence[str], ends: str) -> Iterator[Op]:
    given = iter(formats)
    yield _conv(Layer("stem", 224, 3, 64, 7, 2), batch, ends)
    yield _vector("pool", batch, 56**2 * 64, 4 * bits(ends) / 32, bits(ends) / 32)
    for block in blocks(network):
        convs = [_conv(layer, batch, next(given)) for layer in block]
        yield from convs
        last = block[-2] if "down" in block[-1].name else block[-1]
        size = (last.side // last.stride) ** 2 * last.filters
        yield _vector(f"{last.name}.add", batch, size, 2.0, 1 + bits(convs[-1].weights) / 32)  # two sums in, one out, requantised
    yield _vector("mean", batch, size, bits(ends) / 32, bits(ends) / 32 / 49)
    width = last.filters
    yield Gemm(name="classifier", kind="head", m=float(batch), n=1000.0, k=float(width), weights=ends, activations=ends)


def _vector(name: str, batch: int, elements: float, read: float, written: float) -> Elementwise:
    """`read` and `written` 4-byte words for each element."""
    return Elementwise(
        name=name, kind="add", tokens=float(batch), read=elements * read, written=elements * written, work=2.0 * elements,
        stream="fp32",
    )  # fmt: skip


def _in_a_row(ops: Iterator[Op]) -> Iterator[Op]:
    before: tuple[str, ...] = ()
    for op in ops:
        yield replace(op, after=before)
        before = (op.name,)


# ---- measures ------------------------------------------------------------------------------------------------------------------


def latency(chosen: Run) -> float:
    """Seconds of the network of `args` in the scheme of `args`: w8a8, w4a4, LIMIT-LEVEL, or a mix that has `bops`."""
    if "bops" in chosen.args:
        return _between(chosen)
    network = chosen.args["network"]
    return _simulated(network, chosen.batch, tuple(_formats(network, chosen.args["scheme"])), WIDE, str(chosen.arch))


def speedup(chosen: Run) -> float:
    """The paper's latency in FP32, which is not modelled, over ours of the scheme."""
    return float(_read("networks.yaml")["networks"][chosen.args["network"]]["fp32_s"]) / latency(chosen)


def int4_gain(chosen: Run) -> float:
    """Latency in 8 bits over that in 4."""
    wide, narrow = (latency(chosen.model_copy(update={"args": {**chosen.args, "scheme": name}})) for name in ("w8a8", "w4a4"))
    return wide / narrow


def saving(chosen: Run) -> float:
    """Part of the latency in 8 bits that the scheme saves."""
    wide = {"network": chosen.args["network"], "scheme": "w8a8"}
    return 1 - latency(chosen) / latency(chosen.model_copy(update={"args": wide}))


def convolutions(chosen: Run) -> float:
    """Seconds of the convolutions alone as the tuning logs have them, launched in a row; the stem in 8 bits."""
    network, format = chosen.args["network"], chosen.args["format"]
    ops = _ops(network, chosen.batch, [format] * len(layers(network)), WIDE)
    device = load_device(str(chosen.arch)).with_stack("tvm")
    alone = [simulate(place([replace(op, after=())], device), device).latency_s for op in ops if isinstance(op, Conv)]
    launch = choose(device.kernels["low_bit"], "tvm", format)
    assert launch is not None
    return sum(alone) - len(alone) * (launch.parameters["launch"] - float(_read("networks.yaml")["tuned"]["launch_s"]))


def size(chosen: Run) -> float:
    """Bytes of all weights, scaled so that their MB come out (they count 2^20 bytes)."""
    network, scheme = chosen.args["network"], chosen.args["scheme"]
    ends = "fp32" if scheme == "fp32" else WIDE
    formats = ["fp32"] * len(layers(network)) if scheme == "fp32" else _formats(network, scheme)
    ops = _ops(network, 1, formats, ends)
    return float(sum(op.resident["weights"] for op in ops if isinstance(op, Gemm))) / MEBI


def bops(chosen: Run) -> float:
    """Multiply-accumulates of one image times bits of both operands, over 16 (8 bits) or 64 (4 bits), as the authors count."""
    network, scheme = chosen.args["network"], chosen.args["scheme"]
    ends = "fp32" if scheme == "fp32" else WIDE
    formats = ["fp32"] * len(layers(network)) if scheme == "fp32" else _formats(network, scheme)
    return _bops(_ops(network, 1, formats, ends))


def _bops(ops: Sequence[Op]) -> float:
    return float(sum(op.ops / 2 * bits(op.weights) * bits(op.activations) for op in ops if isinstance(op, Gemm)))


@cache
def _simulated(network: str, batch: int, formats: tuple[str, ...], ends: str, arch: str) -> float:
    device = load_device(arch).with_stack("tvm")
    return simulate(place(_ops(network, batch, formats, ends), device), device).latency_s


def _between(chosen: Run) -> float:
    """Between all in 4 and all in 8 bits, by the published operations of both and of a mix whose layers are not published."""
    ends = [{"network": chosen.args["network"], "scheme": name} for name in ("w4a4", "w8a8")]
    narrow, wide = (latency(chosen.model_copy(update={"args": args})) for args in ends)
    mix, low, high = chosen.args["bops"]
    return float(narrow + (mix - low) / (high - low) * (wide - narrow))


# ---- the choice of bits --------------------------------------------------------------------------------------------------------


def _formats(network: str, scheme: str) -> list[str]:
    if scheme in ("w8a8", "w4a4"):
        return [WIDE if scheme == "w8a8" else NARROW] * len(layers(network))
    limit, level = scheme.split("-")
    return [WIDE if wide else NARROW for wide in _chosen(limit, LIMITS[level]).tolist()]


@cache
def _chosen(limit: str, share: float) -> NDArray[np.bool_]:
    """ResNet-18's layers in 8 bits: the least sensitive of all 2^16 choices below `share` of the way from all 4 to all 8 bits."""
    data, every = _read("sensitivity.yaml"), _choices()
    trace = np.array(data["trace"])
    loss = _summed(every, *(trace * np.array(data["change"][name]) for name in (WIDE, NARROW)))
    cost = _summed(every, *_costs(limit, data))
    low, high = cost[0], cost[-1]
    able = cost <= low + share * (high - low) + 1e-9 * high
    found: NDArray[np.bool_] = every[np.argmin(np.where(able, loss, np.inf))]
    return found


def _costs(limit: str, data: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a layer costs in 8 and in 4 bits: bytes, operations of bits, or milliseconds."""
    if limit == "latency":
        return np.array(data["latency_ms"][WIDE]), np.array(data["latency_ms"][NARROW])
    ops = [_conv(layer, 1, WIDE) for layer in layers("resnet18")]
    if limit == "size":
        size = np.array([float(op.n * op.k) for op in ops])
        return size, size / 2
    macs = np.array([float(op.ops) for op in ops])
    return macs, macs / 4


def _summed(every: NDArray[np.bool_], wide: NDArray[np.float64], narrow: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.where(every, wide, narrow).sum(axis=1)
    return found


@cache
def _choices() -> NDArray[np.bool_]:
    """All choices, none first and all last; a downsampling layer goes with the first of its block."""
    names = [layer.name for layer in layers("resnet18")]
    free = [name for name in names if "down" not in name]
    leader = [free.index(name if "down" not in name else name.replace("down", "1")) for name in names]
    every = np.array(list(product((False, True), repeat=len(free))))
    return every[:, leader]


@cache
def _read(file: str) -> Any:
    return read_mapping(Path(__file__).with_name(file))
