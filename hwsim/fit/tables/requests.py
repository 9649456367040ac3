"""Requests that vLLM served, each with its own times: every run is served anew by hwsim.serving, and its means are compared.

A run is what one GPU, network, tp, format and limits have in common; its arrivals and lengths are the table's. Lines compare the
mean over its requests of TTFT (arrival at the engine to first token), TPOT (output tokens after the first) and E2E (TTFT and
decoding). `n` is the number of requests; each stands for the mean, so `mape` is the relative error of the mean and `bias` has
its sign.

A label may be wrong: a run never has fewer sequences at once than its rows show from the end of queueing to the last token,
rounded to the nearest power of two (rows overlap by a step or two: 130 of 128). No row is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwsim.catalogue import known_model
from hwsim.device import Device
from hwsim.errors import CapacityError
from hwsim.fit.group import Group, floats, split
from hwsim.fit.server import count, once
from hwsim.job import Job
from hwsim.lowering.model import Model
from hwsim.serving.requests import make_requests
from hwsim.serving.service import Service, host_of, serve

_Floats = NDArray[np.float64]
_Means = Mapping[str, float] | None
_RUN = ("hw", "model", "tp", "max_num_seqs", "max_num_batched_tokens", "dtype")
_WEIGHTS = {"bfloat16": "bf16", "float16": "fp16", "fp8": "fp8"}
_COLUMNS = {
    "arrival": "arrival_s", "prompt": "prompt_tokens", "output": "output_tokens", "queue": "queue_s", "ttft": "ttft_s",
    "decode": "decode_s",
}  # fmt: skip


def vllm_requests_e2e(table: pd.DataFrame) -> Iterator[Group]:
    """Llama-3.1-8B and Qwen3-30B-A3B under vLLM 0.19 on one GPU: mean TTFT, TPOT and E2E of each run."""
    for (gpu, name, tp, seqs, tokens, dtype), rows in split(table, *_RUN):
        sizes = {argument: floats(rows[column]) for argument, column in _COLUMNS.items()}
        later = sizes["output"] > 1
        times = {"ttft": sizes["ttft"], "tpot": floats(rows["tpot_s"])[later], "e2e": sizes["ttft"] + sizes["decode"]}
        model, weights = known_model(name), _WEIGHTS.get(dtype)
        limits = (count("tp", tp), max(count("max_num_seqs", seqs), _at_once(sizes)), count("max_num_batched_tokens", tokens))
        means = once(_Run(model, weights, sizes, *limits).means) if model and model.causal and weights else None
        for quantity, values in times.items():
            yield from _line(gpu, f"vllm {name} tp={tp} {quantity.upper()}", dtype, quantity, values, sizes, means)


def _line(
    gpu: str, stack: str, dtype: str, quantity: str, values: _Floats, sizes: Mapping[str, _Floats],
    means: Callable[[Device], _Means] | None,
) -> Iterator[Group]:  # fmt: skip
    """The mean of `values`, once for every request; nothing where no request has one."""
    if not len(values):
        return
    yield Group(
        "vllm_requests_e2e", gpu, "serving", stack, dtype, np.full(len(values), values.mean()), {**sizes, quantity: values},
        dtype, dtype, report="e2e", price=_price(means, quantity, len(values)) if means else None,
    )  # fmt: skip


def _price(means: Callable[[Device], _Means], quantity: str, many: int) -> Callable[[Device], _Floats | None]:
    def price(device: Device) -> _Floats | None:
        found = means(device)
        return None if found is None else np.full(many, found[quantity])

    return price


def _at_once(sizes: Mapping[str, _Floats]) -> int:
    """The most requests between the end of queueing and their last token, to the nearest power of two."""
    start = sizes["arrival"] + sizes["queue"]
    end = sizes["arrival"] + sizes["ttft"] + sizes["decode"]
    change = np.repeat([-1, 1], [len(end), len(start)])  # of one time, ends come first
    most = np.cumsum(change[np.argsort(np.concatenate([end, start]), kind="stable")]).max()
    return int(2 ** np.rint(np.log2(max(most, 1))))


@dataclass(frozen=True, eq=False)
class _Run:
    """What was served, and how."""

    model: Model
    weights: str
    sizes: Mapping[str, _Floats]
    tp: int
    max_seqs: int
    max_batched_tokens: int

    def means(self, device: Device) -> _Means:
        """Mean TTFT, TPOT and E2E; None where a request or the weights do not fit."""
        prompt, output = (self.sizes[name].tolist() for name in ("prompt", "output"))
        asked = make_requests(self.sizes["arrival"], prompt, output)
        job = Job(stack="vllm", weights=self.weights, parallel=f"tp={self.tp}")
        server = device.model_copy(update={"count": self.tp})
        host = host_of(job.configured(server), None).model_copy(update={"request": 0.0})  # the table's times begin at the engine
        service = Service(max_seqs=self.max_seqs, max_batched_tokens=self.max_batched_tokens, host=host)
        try:
            served = serve(self.model, server, asked, service, job)
        except CapacityError:
            return None
        if served.completed < len(asked):
            return None
        return {name: float(served.table[f"{name}_s"].mean()) for name in ("ttft", "tpot", "e2e")}
