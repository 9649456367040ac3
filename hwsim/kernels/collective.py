"""Collectives between GPUs: seconds of one all-reduce, all-gather, reduce-scatter, all-to-all or send.

    t = max(host, least over the protocols of  latency_i + hop_i x (n - 2) + f_i x bytes / bandwidth_i)   [s]
    bandwidth_i = link x rate_i x (1 + peers x (1 - 2/n))   [B/s]
    f = 2 (n - 1) / n for all-reduce, (n - 1) / n for gather, scatter, all-to-all, 1 for a send, n - 1 for a one-shot all-reduce

`n` devices; `bytes` is the whole message: what each device ends up with (gather), starts with (scatter, all-to-all) or both
(all-reduce). Three protocols, as libraries have: low latency (NCCL's LL; for the custom kernels of vLLM, SGLang and
TensorRT-LLM one-shot, in which every device reads every other's whole message), middle (LL128; two-shot) and bandwidth
(Simple). A custom kernel hands messages above `limit` to NCCL, its third protocol; with `limit` = 0 all three compete, as in
NCCL. `host` is the time of an eager launch on the CPU, hidden by longer collectives, and none under CUDA graphs.

A set of parameters stands for one library, launch and collective on one generation of platform (the latency is the
platform's, not the link's). Where it comes from: the alpha-beta model of Hockney 1994 and NCCL's protocols, fitted on the
collectives table. Left out: congestion, topologies beyond `peers`, in-switch reduction as such (its gain is in `rate`), steps
in size where NCCL switches.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwsim.kernels.chip import Chip, Parameter
from hwsim.op import Array, larger

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("latency_1", "s", 6e-6, 0.5e-6, 1e-3, "latency of the low-latency protocol between two devices"),
    Parameter("latency_2", "s", 10e-6, 0.5e-6, 1e-3, "the same of the middle one"),
    Parameter("latency_3", "s", 25e-6, 0.5e-6, 1e-3, "the same of the bandwidth one"),
    Parameter("hop_1", "s", 1e-6, 0.0, 300e-6, "more latency for each further device, low-latency protocol"),
    Parameter("hop_2", "s", 1e-6, 0.0, 300e-6, "the same of the two others"),
    Parameter("rate_1", "", 0.3, 0.002, 2.0, "link bandwidth that the low-latency protocol reaches"),
    Parameter("rate_2", "", 0.5, 0.002, 2.0, "the same of the middle one"),
    Parameter("rate_3", "", 0.7, 0.002, 2.0, "the same of the bandwidth one; above 1 where the switch reduces"),
    Parameter("peers", "", 0.2, -0.9, 2.0, "bandwidth gained (lost) with many devices over two"),
    Parameter("host", "s", 20e-6, 0.0, 200e-6, "time of an eager launch; 0 and not fitted under CUDA graphs"),
)

# which kernel a stack picks; part of a set, never fitted
SELECTION: tuple[Parameter, ...] = (
    Parameter("one_shot", "", 0.0, 0.0, 1.0, "1 = the low-latency protocol reads all whole messages"),
    Parameter("limit", "B", 0.0, 0.0, 1e9, "messages above go to the third protocol, 0 = the fastest wins"),
)

_TRAVELS = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "alltoall": 1.0}


def collective(*, name: str, bytes: Array, devices: Array, chip: Chip, p: Mapping[str, float]) -> Array:
    """Seconds. `name`: all_reduce, all_gather, reduce_scatter, alltoall or send_recv; one device takes none."""
    share = (devices - 1.0) / devices
    moved = bytes * (_TRAVELS[name] * share if name in _TRAVELS else 1.0)
    first = bytes * (devices - 1.0) if p["one_shot"] > 0.5 else moved
    link = chip.link * (1.0 + p["peers"] * (1.0 - 2.0 / devices))
    more = devices - 2.0
    low = p["latency_1"] + p["hop_1"] * more + first / (link * p["rate_1"])
    middle = p["latency_2"] + p["hop_2"] * more + moved / (link * p["rate_2"])
    bulk = p["latency_3"] + p["hop_2"] * more + moved / (link * p["rate_3"])
    seconds = larger(_chosen(-larger(-low, -middle), bulk, bytes, p["limit"]), p["host"])
    return seconds * np.where(devices > 1.0, 1.0, 0.0) if isinstance(devices, np.ndarray) else seconds * float(devices > 1.0)


def _chosen(small: Array, bulk: Array, bytes: Array, limit: float) -> Array:
    """The fastest, or the bandwidth protocol above the limit of a custom kernel."""
    if limit <= 0.0:
        return -larger(-small, -bulk)
    if isinstance(small, float) and isinstance(bytes, float):
        return small if bytes <= limit else bulk
    return np.where(np.asarray(bytes) <= limit, small, bulk)
