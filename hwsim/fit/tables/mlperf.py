"""Offline throughput of whole machines against a bound: decoding alone, at its best batch. The difference is no error.

    bound = max over batch and tp of devices / tp x batch / seconds of a decode step                                 [tokens/s]

over batches of powers of two up to 8,192 that fit and tp of 1 to 8 devices, at half of the mean output (tokens over samples), in
the narrowest format that the device multiplies and with an 8-bit cache. Prompts are free: the table does not say how long they
are. Lines give the seconds per token of the machine; a bias of -48 % says that 52 % of the bound was measured. Only counted:
server runs, the open division (which may change its networks), runs whose tokens were not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwsim.catalogue import known_model
from hwsim.device import Device
from hwsim.fit.group import Group, floats, split
from hwsim.fit.server import pass_seconds
from hwsim.job import Job
from hwsim.lowering.batch import decode
from hwsim.lowering.model import Model

_Floats = NDArray[np.float64]
_BATCHES: _Floats = np.array([[2.0**power] for power in range(14)])
_TP = (1, 2, 4, 8)
_NARROW = {"fp4": "nvfp4", "fp8": "fp8", "int8": "int8"}


def mlperf_inference_llm_v4_1(table: pd.DataFrame) -> Iterator[Group]:
    """Llama-2-70B and Mixtral 8x7B, closed division, offline."""
    priced = (table["category"] == "closed") & (table["scenario"] == "Offline") & table["tokens_per_s"].notna()
    for (gpu, model, able), rows in split(table.assign(priced=priced), "accelerator", "model", "priced"):
        network = known_model(model)
        bound = able == "True" and network is not None
        tokens, samples = floats(rows["tokens_per_s"]), floats(rows["samples_per_s"])
        devices = floats(rows["accelerators_per_node"]) * floats(rows["nodes"])
        with np.errstate(divide="ignore"):  # no tokens at all are refused as such
            per_token = 1.0 / tokens
        sizes = {"devices": devices, "tokens": tokens, "samples": samples}
        yield Group(
            "mlperf_inference_llm_v4_1", gpu, "serving", "offline" if bound else "any", model,
            per_token if bound else floats(rows["latency_mean_s"]), sizes if bound else {}, "fp8", "fp8",
            report="bound", price=_price(network, **sizes) if bound and network else None,
        )  # fmt: skip


def _price(model: Model, devices: _Floats, tokens: _Floats, samples: _Floats) -> Callable[[Device], _Floats | None]:
    """Least seconds per token of the whole machine; None where the network fits on no part of it."""

    def price(device: Device) -> _Floats | None:
        rates = [np.where(tp <= devices, _rate(model, device, tp, tokens / samples), 0.0) for tp in _TP]
        best = np.max(rates, axis=0) * devices
        return 1.0 / best if np.all(best > 0.0) else None

    return price


def _rate(model: Model, device: Device, tp: int, output: _Floats) -> _Floats:
    """Tokens per second and device of the best batch that fits, 0 for none."""
    peaks = {name for unit in device.units.values() if "matmul" in unit.does for name in unit.peak}
    narrow = next((format for peak, format in _NARROW.items() if peak in peaks), None)
    found = pass_seconds(model, device, tp, decode(_BATCHES, output / 2.0), Job(weights=narrow, activations=narrow, kv="fp8"))
    best: _Floats = np.max(np.nan_to_num(_BATCHES / found), axis=0) / tp
    return best
