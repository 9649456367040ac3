"""Measures of MARLIN (arXiv:2408.11743): products of one layer or of a network's layers over FP16's, ideal and on its kernels."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from hwsim.catalogue import load_device
from hwsim.claim import Run
from hwsim.cost import price
from hwsim.device import Device
from hwsim.files import read_mapping
from hwsim.formats import bits
from hwsim.job import Job
from hwsim.job import run as simulated
from hwsim.op import Gemm
from hwsim.placement.policy import homes

HALF = "fp16"


def speedup(chosen: Run) -> float:
    """Time of FP16 over that of `weights` for all layers of `args` (a name of shapes.yaml, or [k, n]) at `batch` rows."""
    device = load_device(str(chosen.arch)).with_values(chosen.set)
    own = device.with_stack(chosen.args.get("stack", "marlin"))
    ours, half = (_seconds(chosen, with_, weights) for with_, weights in ((own, str(chosen.weights)), (device, HALF)))
    return half / ours


def sparse_gain(chosen: Run) -> float:
    """The largest gain of 2:4 sparse weights over dense ones, over the batches of `args`."""
    device = load_device(str(chosen.arch)).with_stack("marlin")
    each = [chosen.model_copy(update={"batch": batch}) for batch in chosen.args["batches"]]
    return max(_seconds(one, device, "int4_g128") / _seconds(one, device, "int4_g128_24") for one in each)


def ideal(chosen: Run) -> float:
    """Speed-up of the paper's roofline: weights at the datasheet's bandwidth or products at its peak, the longer of the two."""
    device = load_device(str(chosen.arch)).with_values(chosen.set)
    memory, unit = device.memories["gddr"], device.units["tensor"]
    full = {"units.tensor.efficiency": 1.0, "units.tensor.overhead": 0.0, "memories.gddr.efficiency": 1.0}
    plain = device.with_values({**full, "units.tensor.peak.fp16": unit.peak["fp16"], "memories.gddr.bandwidth": memory.bandwidth})
    roofline = plain.model_copy(update={"units": {"tensor": plain.units["tensor"].model_copy(update={"cost": "roofline"})}})
    ours, half = (_seconds(chosen, roofline, weights) for weights in (str(chosen.weights), HALF))
    return half / ours


def bits_ratio(chosen: Run) -> float:
    """Bits of a weight in FP16 over those of `weights`."""
    return bits(HALF) / bits(str(chosen.weights))


def network_speedup(chosen: Run) -> float:
    """Latency of FP16 over that of `weights` on MARLIN, with vLLM's host; the largest over the batches of `args`."""
    return max(_latency(chosen, HALF, batch) / _latency(chosen, str(chosen.weights), batch) for batch in _batches(chosen))


def network_sparse_gain(chosen: Run) -> float:
    """Latency of dense over that of 2:4 sparse weights, both on MARLIN, the largest over the batches."""
    return max(_latency(chosen, "int4_g128", batch) / _latency(chosen, "int4_g128_24", batch) for batch in _batches(chosen))


def _batches(chosen: Run) -> list[int]:
    found: list[int] = chosen.args.get("batches", [chosen.batch])
    return found


def _latency(chosen: Run, weights: str, batch: int) -> float:
    stack = None if weights == HALF else "marlin"
    return _simulated(chosen.model, str(chosen.arch), chosen.phase, batch, chosen.prompt, chosen.output, weights, stack)


@cache
def _simulated(model: str, arch: str, phase: Any, batch: int, prompt: int, output: int, weights: str, stack: str | None) -> float:
    job = Job(phase=phase, batch=batch, prompt=prompt, output=output, weights=weights, stack=stack, host="vllm")
    return simulated(model, arch, job).latency_s


def _seconds(chosen: Run, device: Device, weights: str) -> float:
    layers = chosen.args["layers"]
    shapes = _shapes()[layers] if isinstance(layers, str) else [layers]
    return float(sum(price(op, "tensor", device, homes(device, "tensor")).alone_s for op in _ops(shapes, chosen.batch, weights)))


def _ops(shapes: Iterable[tuple[int, int]], rows: int, weights: str) -> list[Gemm]:
    return [
        Gemm(name=f"{k}x{n}", kind="ffn", m=float(rows), n=float(n), k=float(k), weights=weights, activations=HALF, stream=HALF)
        for k, n in shapes
    ]


@cache
def _shapes() -> Any:
    return read_mapping(Path(__file__).with_name("shapes.yaml"))["layers"]
