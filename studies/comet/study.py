"""Measures of COMET (arXiv:2410.12168): products whose activations are 4-bit in most blocks of k and 8-bit in the others.

The kernel is one launch over the steps of both kinds, dealt out evenly (tile decomposition and stealing); its parts are those of
`hwsim.kernels.low_bit` for INT4 x INT4 and INT4 x INT8.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.catalogue import load_device
from hwsim.claim import Run
from hwsim.cost import price
from hwsim.cost.chips import sustained
from hwsim.device import Device
from hwsim.errors import CapacityError
from hwsim.files import read_mapping
from hwsim.formats import nbytes
from hwsim.job import Job
from hwsim.job import run as simulated
from hwsim.kernels.low_bit import low_bit
from hwsim.kernels.sets import choose
from hwsim.op import Gemm
from hwsim.placement.policy import homes

NARROW = 0.75  # part of the blocks of k in 4 bits, as the paper's kernel benchmarks have it
WEIGHTS = "int4_g128"
KINDS = {"int4": "int4", "int8": "int4_int8"}
OTHERS = {"fp16": ("fp16", "fp16"), "w4a16": (WEIGHTS, "fp16"), "w8a8": ("int8", "int8")}
Time = Callable[[Device, float, float, float], float]


def speedup(chosen: Run) -> float:
    """Mean over shapes (all, or those of one network) and batches of the time of one kernel over that of another, by name."""
    device = load_device(str(chosen.arch))
    ours, theirs = (_kernel(chosen.args[name]) for name in ("kernel", "over"))
    points = [(float(m), n, k) for m in chosen.args["batches"] for n, k in _shapes(chosen.args.get("network"))]
    return float(np.mean([theirs(device, *point) / ours(device, *point) for point in points]))


def throughput_gain(chosen: Run) -> float:
    """Tokens/s at one batch over those at another, prompt and output together."""
    many, few = chosen.args["batches"]
    each = [simulated(chosen.model, str(chosen.arch), weights=chosen.weights, batch=b, prompt=chosen.prompt, output=chosen.output)
            for b in (many, few)]  # fmt: skip
    return each[0].tokens_per_s / each[1].tokens_per_s


def best_throughput_gain(chosen: Run) -> float:
    """Mean over networks and lengths of tokens/s of one system over another, each at the largest batch that fits."""
    kernel, over, most = (chosen.args[name] for name in ("kernel", "over", "most"))
    each = [(name, int(prompt), int(output)) for name in chosen.args["networks"] for prompt, output in chosen.args["lengths"]]
    return float(np.mean([_best(of, str(chosen.arch), kernel, most) / _best(of, str(chosen.arch), over, most) for of in each]))


def batch_throughput_gain(chosen: Run) -> float:
    """Mean over the networks that fit of tokens/s of one system over another's at the batch of the run."""
    kernel, over = chosen.args["kernel"], chosen.args["over"]
    each = [(name, chosen.prompt, chosen.output) for name in chosen.args["networks"]]
    found = [[_tokens_per_s(of, str(chosen.arch), name, chosen.batch) for name in (kernel, over)] for of in each]
    return float(np.mean([ours / theirs for ours, theirs in found if ours and theirs]))


def _best(of: tuple[str, int, int], arch: str, name: str, most: int) -> float:
    """Tokens/s at the largest batch that fits, found by halving."""
    fits, beyond = 1, most + 1
    while beyond - fits > 1:
        batch = (fits + beyond) // 2
        fits, beyond = (batch, beyond) if _tokens_per_s(of, arch, name, batch) else (fits, batch)
    return _tokens_per_s(of, arch, name, fits)


@cache
def _tokens_per_s(of: tuple[str, int, int], arch: str, name: str, batch: int) -> float:
    """Of one network and lengths; COMET's time lies between that of its two kinds of product. 0 where it does not fit."""
    model, prompt, output = of
    parts = [(NARROW, WEIGHTS, "int4", "comet"), (1 - NARROW, WEIGHTS, "int8", "comet")] if name == "w4ax" else []
    seconds = 0.0
    for share, weights, activations, stack in parts or [(1.0, *OTHERS[name], None)]:
        read = activations if activations != "fp16" else None
        job = Job(batch=batch, prompt=prompt, output=output, weights=weights, activations=read, stack=stack)
        try:
            seconds += share * simulated(model, arch, job).latency_s
        except CapacityError:
            return 0.0
    return batch * output / seconds


def crossover(chosen: Run) -> float:
    """Rows from which a product of 16-bit operands out of 4-bit weights takes longer than reading 8-bit weights, by rooflines."""
    device = load_device(str(chosen.arch))
    return float(device.units["tensor"].peak["fp16"] / (2.0 * device.memories["hbm"].bandwidth))


def _kernel(name: str) -> Time:
    """comet (a mix), w4a4, w4a8, slow-conversion (ten instructions a weight), or a kernel of OTHERS."""
    if name in OTHERS:
        return lambda device, m, n, k: _other(device, m, n, k, *OTHERS[name])
    share = {"w4a4": 1.0, "w4a8": 0.0}.get(name, NARROW)
    unpack = {"slow-conversion": 10.0}.get(name)
    return lambda device, m, n, k: _mixed(device, m, n, k, share, unpack)


def _mixed(device: Device, m: float, n: float, k: float, share: float, unpack: float | None) -> float:
    """Seconds of the steps of both kinds, launched once."""
    seconds, launch = 0.0, 0.0
    for activations, part in (("int4", share), ("int8", 1 - share)):
        if part:
            chosen = choose(device.kernels["low_bit"], "comet", KINDS[activations])
            chip = sustained(device, activations)
            assert chosen is not None
            assert chip is not None
            slow = {"unpack": unpack} if unpack and activations == "int8" else {}
            p, launch = {**chosen.parameters, **slow, "launch": 0.0}, chosen.parameters["launch"]
            bytes_of = {"a_bytes": nbytes(activations), "w_bytes": nbytes(WEIGHTS)}
            seconds += float(low_bit(m=m, n=n, k=k * part, group=128.0, chip=chip, p=p, **bytes_of))
    return launch + seconds


def _other(device: Device, m: float, n: float, k: float, weights: str, activations: str) -> float:
    op = Gemm(name="gemm", kind="ffn", m=m, n=n, k=k, weights=weights, activations=activations, stream="fp16")
    return float(price(op, "tensor", device, homes(device, "tensor")).alone_s)


@cache
def _shapes(network: str | None) -> tuple[tuple[float, float], ...]:
    every: dict[str, Any] = dict(read_mapping(Path(__file__).with_name("shapes.yaml"))["networks"])
    return tuple((1024.0 * n, 1024.0 * k) for name, shapes in every.items() if network in (None, name) for n, k in shapes)
