"""Measures of MixPE (arXiv:2411.16158): cycles, parts of the energy, means over its four networks, its design space."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.catalogue import load_device, load_model
from hwsim.claim import Run
from hwsim.cost import price
from hwsim.device import format_of
from hwsim.files import read_mapping
from hwsim.job import Job, estimated
from hwsim.job import run as simulated
from hwsim.lowering.batch import decode, prefill
from hwsim.lowering.convolution import convolution
from hwsim.lowering.published import LINEAR
from hwsim.lowering.transformer import lower
from hwsim.op import Array, Gemm
from hwsim.placement.policy import homes
from hwsim.trace import Trace

NETWORKS = {"vit-base": "prefill", "vit-huge": "prefill", "opt-6.7b": "decode", "llama-2-13b": "decode"}
PARTS = {"static": "static", "dram": "dram", "buffer": "buffers", "core": "array"}


def cycles(chosen: Run) -> float:
    """Latency in clocks of the array."""
    clock = load_device(str(chosen.arch)).units["array"].clock
    assert clock is not None
    return _trace(chosen).latency_s * float(clock)


def time_ratio(chosen: Run) -> float:
    """Time over that of another design, as printed: two decimals."""
    return round(_trace(chosen).latency_s / _trace(chosen, chosen.args["over"]).latency_s, 2)


def energy_part(chosen: Run) -> float:
    """Joules of one category over all joules of another design on the same network, as printed: two decimals."""
    joules = _trace(chosen).sum("joules", "component")[PARTS[chosen.args["part"]]]
    return round(float(joules) / _trace(chosen, chosen.args["over"]).energy_j, 2)


def energy_gain(chosen: Run) -> float:
    """All joules of another design over those of this one."""
    return _trace(chosen, chosen.args["over"]).energy_j / _trace(chosen).energy_j


def mean_time_ratio(chosen: Run) -> float:
    """Arithmetic mean over the four networks of the time over another design's, as printed: two decimals."""
    ratios = [_trace(of).latency_s / _trace(of, chosen.args["over"]).latency_s for of in _networks(chosen)]
    return round(float(np.mean(ratios)), 2)


def mean_speedup(chosen: Run) -> float:
    """Geometric mean over the four networks."""
    return _geometric([_trace(of, chosen.args["over"]).latency_s / _trace(of).latency_s for of in _networks(chosen)])


def mean_energy_gain(chosen: Run) -> float:
    """Geometric mean over the four networks."""
    return _geometric([energy_gain(of) for of in _networks(chosen)])


def engine_ratio(chosen: Run) -> float:
    """Cycles of the layers of `network` over those of another design, as ANT's simulator has them: two decimals."""
    return round(_cycles(chosen, str(chosen.arch)) / _cycles(chosen, chosen.args["over"]), 2)


def _cycles(chosen: Run, arch: str) -> float:
    """Cycles of all layers in the narrow format of the design, the stem of a residual network in its wide one; no scales."""
    device = load_device(arch).with_quirks("as-published")
    unit = device.units["array"]
    assert unit.array is not None
    assert unit.array.published is not None
    assert unit.clock is not None
    total: Array = 0.0
    for layer in _layers(chosen):
        bits = unit.array.published.wide if layer.name == "stem" else unit.array.published.narrow
        op = replace(layer, weights=format_of(bits), activations=format_of(bits), stream="fp16")
        total = total + op.repeat * price(op, "array", device, homes(device, "array")).alone_s * unit.clock
    return float(total)


def _layers(chosen: Run) -> list[Gemm]:
    """Convolutions of a residual network (networks.yaml), or linear layers and patches of a transformer, for a whole batch."""
    network = read_mapping(Path(__file__).with_name("networks.yaml"))["networks"].get(chosen.args["network"])
    if network:
        stem = replace(_convolution(chosen.batch, *network["stem"]), name="stem")
        return [stem, *(_convolution(chosen.batch, *layer) for layer in (*network["blocks"], network["classifier"]))]
    ops = lower(load_model(chosen.args["network"]), prefill(chosen.batch, chosen.prompt))
    return [op for op in ops if isinstance(op, Gemm) and op.kind in ("embedding", *LINEAR)]


def _convolution(batch: int, side: int, channels: int, filters: int, kernel: int, stride: int, many: int) -> Gemm:
    return convolution(
        f"{kernel}x{kernel}", "conv", images=float(batch), side=side, channels=channels, filters=filters, kernel=kernel,
        stride=stride, padding=kernel // 2, repeat=many,
    )  # fmt: skip


def share_of_scales(chosen: Run) -> float:
    """Multiplications by scales among all of the linear layers, where every weight is scaled before the product."""
    ops = lower(load_model(chosen.model), decode(chosen.batch, chosen.prompt))
    linear = [op for op in ops if isinstance(op, Gemm) and op.kind in ("qkv", "out", "ffn")]
    scales, macs = (float(sum(op.repeat * op.n * op.k * many(op) for op in linear)) for many in (lambda op: 1.0, lambda op: op.m))
    return scales / (scales + macs)


def area_power_gain(chosen: Run) -> float:
    """Area-power efficiency of an element over that of another."""
    elements = _elements()["elements"]
    return float(elements[chosen.args["element"]]["efficiency"] / elements[chosen.args["over"]]["efficiency"])


def _geometric(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _networks(chosen: Run) -> list[Run]:
    """The same run on each of the four networks, one row of activations for each of the batch."""
    changes: dict[str, Any] = {"prompt": 1, "quirks": "as-published"}
    return [chosen.model_copy(update={"model": name, "phase": phase} | changes) for name, phase in NETWORKS.items()]


def _trace(chosen: Run, arch: str | None = None) -> Trace:
    return _simulated(chosen.model, arch or str(chosen.arch), chosen.phase, chosen.batch, chosen.prompt, chosen.quirks)


@cache
def _simulated(model: str, arch: str, phase: Any, batch: int, prompt: int, quirks: Any) -> Trace:
    return simulated(model, arch, Job(phase=phase, batch=batch, prompt=prompt, quirks=quirks))


# ---- design space --------------------------------------------------------------------------------------------------------------


@cache
def _elements() -> Any:
    return read_mapping(Path(__file__).with_name("elements.yaml"))


def elements() -> list[dict[str, Any]]:
    """The published points: name, quantisation SNR, area-power efficiency, whether no other is better in both."""
    data = _elements()
    names = list(data["elements"])
    quality = np.array([_quality(data["elements"][name]["operands"]) for name in names])
    efficiency = np.array([data["elements"][name]["efficiency"] for name in names])
    best = pareto(np.stack([quality, efficiency]))
    return [
        {"element": name, "qsnr": q, "efficiency": e, "pareto": bool(b)}
        for name, q, e, b in zip(names, quality.tolist(), efficiency.tolist(), best.tolist(), strict=True)
    ]


def _quality(operands: list[str]) -> float:
    return float(np.prod([_elements()["quality"][name] for name in operands]))


def pareto(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Points (columns) that no other is as good as in every row and better in one; more is better."""
    as_good = (values[:, None] >= values[:, :, None]).all(axis=0)
    better = (values[:, None] > values[:, :, None]).any(axis=0)
    found: NDArray[np.bool_] = ~(as_good & better).any(axis=1)
    return found


def designs(
    model: str, batch: int, shapes: list[tuple[int, int]], sizes: list[float], context: int = 1024
) -> list[dict[str, Any]]:
    """Every pair of formats x array shape x scale of all buffers, decoding: tokens/s, J/token, SNR, efficiency, whether Pareto.

    The efficiency of a design is that of its elements, times tokens/s per element over those of FP16 elements of the
    published shape and buffers; energy per access of a scaled buffer goes with the root of its size.
    """
    reference = _design(model, batch, context, "fp16xfp16", (32, 28), 1.0)
    every = [_design(model, batch, context, *point) for point in product(_elements()["elements"], shapes, sizes)]
    for one in every:
        one["efficiency"] *= (one["tokens_per_s"] / one["elements"]) / (reference["tokens_per_s"] / reference["elements"])
    best = pareto(np.array([[one[axis] for one in every] for axis in ("qsnr", "efficiency", "tokens_per_s")]))
    return [one | {"pareto": bool(b)} for one, b in zip(every, best.tolist(), strict=True)]


def _design(model: str, batch: int, context: int, element: str, shape: tuple[int, int], size: float) -> dict[str, Any]:
    data = _elements()["elements"][element]
    device = load_device(data["arch"])
    changes: dict[str, object] = {"units.array.array.rows": float(shape[0]), "units.array.array.columns": float(shape[1])}
    for name, buffer in device.buffers.items():
        changes[f"buffers.{name}.capacity"] = buffer.capacity * size
        changes |= {f"buffers.{name}.{way}": getattr(buffer, way) * size**0.5 for way in ("read", "write")}
    weights, activations = data["operands"]
    weights = f"{weights}_g128" if weights.startswith("int") else weights
    job = Job(set=changes, weights=weights, activations=activations, quirks="none")
    found = estimated(model, device, decode(batch, context), job)
    return {
        "element": element, "rows": shape[0], "columns": shape[1], "buffers": size, "elements": shape[0] * shape[1],
        "tokens_per_s": batch / float(found.latency_s), "j_per_token": float(found.energy_j) / batch,
        "qsnr": _quality(data["operands"]), "efficiency": float(data["efficiency"]),
    }  # fmt: skip
