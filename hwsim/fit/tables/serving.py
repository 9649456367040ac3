"""Servers of several GPUs under eager launches, priced as `hwsim run --host eager` prices them.

The host's seconds for a launch were fitted on one row, Llama-2-70B on 8 GPUs at batch 1 (arch/hosts/eager.yaml); nothing else is.

A prompt is a prefill of all sequences at once. A token is a decode step halfway through what was generated, which the whole time
of a run tells: many of 512 and more tokens ended early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwsim.catalogue import known_model
from hwsim.device import Device
from hwsim.fit.group import Group, floats, split
from hwsim.fit.server import count, pass_seconds
from hwsim.job import Job
from hwsim.lowering.batch import Batch, decode, prefill
from hwsim.lowering.model import Model

_Floats = NDArray[np.float64]
_SIZES = {"batch": "batch", "prompt": "prompt_tokens", "output": "output_tokens", "tp": "tp"}


def splitwise_llm_power(table: pd.DataFrame) -> Iterator[Group]:
    """Llama-2-70B and BLOOM-176B in 16 bit, tensor-parallel: seconds of the prompt and per output token."""
    for (gpu, model, tp), rows in split(table, "gpu", "model", "tp"):
        whole, first, step = (floats(rows[f"{name}_s"]) for name in ("e2e", "prompt_latency", "tpot"))
        sizes = {name: floats(rows[column]) for name, column in _SIZES.items()}
        network = known_model(model)
        apart = whole > 1.5 * (first + sizes["output"] * step)
        passes = {"prompt": (first, _prompt(sizes)), "time per token": (step, _token(sizes, whole - first, step))}
        for name, (measured, batch) in passes.items():
            yield Group(
                "splitwise_llm_power", gpu, "serving", f"{model} tp={tp}", "fp16", measured, sizes, "fp16", "fp16", report=name,
                price=_price(network, count("tp", tp), batch) if network else None,
                excluded={"without runs that were not one batch": apart} if apart.any() else {},
            )  # fmt: skip


def _prompt(sizes: Mapping[str, _Floats]) -> Callable[[], Batch]:
    return lambda: prefill(sizes["batch"], sizes["prompt"])


def _token(sizes: Mapping[str, _Floats], decoding: _Floats, step: _Floats) -> Callable[[], Batch]:
    return lambda: decode(sizes["batch"], sizes["prompt"] + np.clip(decoding / step, 1.0, sizes["output"]) / 2.0)


def _price(model: Model, tp: int, batch: Callable[[], Batch]) -> Callable[[Device], _Floats]:
    return lambda device: pass_seconds(model, device, tp, batch(), Job(host="eager"))
