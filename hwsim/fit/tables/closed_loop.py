"""Servers under a constant number of requests, simulated row by row where that is asked for (`hwsim validate --serving`).

A row keeps `concurrency` requests under way. Simulated are 10 x concurrency of them, mean TTFT and TPOT; the source does not say
whether its own are means. Priced are rows of one engine (`agg`) whose network is known and whose plan divides it: tp up to 8,
tp x attention dp = moe tp x moe ep devices. Others are counted. `hwsim fit` fits no row; the host parameters of arch/hosts/ were
fitted, on rows of H200 (docs/serving.md).

Assumed
- lengths: uniform from 0.8 to 1 of isl and osl, as such benchmarks draw them; of one length all requests would stay in step. The
  first wave starts at once and weighs on the mean TTFT by a tenth.
- experts are chosen by zipf:s=0.8. That hits as many (177 of DeepSeek's 256 with 64 tokens) as the skewed loads with which the
  same authors measured expert kernels (183); uniform choice hits 222.
- formats: weights and activations in `precision`, the cache in 8 bit. As their configs say are int4, networks that are published
  in the row's own format, DeepSeek in fp8 (cache in 16 bit), and mxfp4 (cache in 8 bit).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwsim.catalogue import known_model
from hwsim.device import Device
from hwsim.errors import CapacityError, InputError
from hwsim.fit.group import Group, Progress, floats, split
from hwsim.fit.server import once
from hwsim.job import Job
from hwsim.lowering.model import Model
from hwsim.lowering.moe import stream
from hwsim.serving.requests import Requests, make_requests
from hwsim.serving.service import Service, serve

_Floats = NDArray[np.float64]
_Times = tuple[float, float]
_FORMATS = {"fp8": "fp8", "fp4": "nvfp4", "bf16": "bf16", "int4": "int4"}
_SEED, _SPREAD, _WAVES, _MOST = 0, 0.8, 10, 100_000
_NONE = (float("nan"), float("nan"))


def serving_e2e(table: pd.DataFrame) -> Iterator[Group]:
    """TTFT and TPOT of servers of DeepSeek, Kimi, gpt-oss and Llama on 1 to 64 GPUs."""
    for (gpu, stack, name, precision, mode), rows in split(table, "gpu", "fw", "model", "precision", "mode"):
        model = known_model(name)
        served = model if model and model.causal and mode == "agg" and precision in _FORMATS else None
        good = _divided(rows, served) if served else np.zeros(len(rows), dtype=bool)
        what = (gpu, f"{stack} {name}" + ("" if mode == "agg" else f" {mode}"), precision)
        if served and good.any():
            yield from _simulated(what, rows[good], [_Asked.of(served, row) for _, row in rows[good].iterrows()])
        if not good.all():
            yield from _simulated((gpu, what[1] + " other plans" * bool(served), precision), rows[~good], None)


def _divided(rows: pd.DataFrame, model: Model) -> NDArray[np.bool_]:
    """Rows with a plan of whole numbers that gives attention and experts the same devices."""
    tp, pp, dp, moe_tp, moe_ep = (floats(rows[f"{name}_size"]) for name in ("tp", "pp", "attention_dp", "moe_tp", "moe_ep"))
    dp = np.nan_to_num(dp, nan=1.0)
    agree = np.isnan(moe_tp) | np.isnan(moe_ep) | (tp * dp == moe_tp * moe_ep) | (not model.experts)
    whole = [(size >= 1) & (size == np.rint(size)) for size in (tp, dp, np.nan_to_num(moe_ep, nan=1.0))]
    return np.asarray(np.all(whole, axis=0) & (tp <= 8) & (dp <= 1024) & (pp == 1) & agree)


def _simulated(what: tuple[str, str, str], rows: pd.DataFrame, asked: Sequence[_Asked] | None) -> Iterator[Group]:
    """Lines of TTFT and of TPOT, which one simulation gives; only counted where nothing is `asked`."""
    gpu, stack, precision = what
    sizes = {name: floats(rows[name]) for name in ("isl", "osl", "concurrency")}
    times = once(lambda device, say: _each(asked or (), device, lambda done: say(f"{' '.join(what)}: {done}")))
    for place, quantity in enumerate(("ttft", "tpot")):
        yield Group(
            "serving_e2e", gpu, "serving", f"{stack} {quantity.upper()}", precision, floats(rows[f"{quantity}_s"]), sizes,
            precision, precision, report="e2e", simulated=_column(times, place) if asked else None,
        )  # fmt: skip


def _column(times: Callable[..., list[_Times]], place: int) -> Callable[[Device, Progress], _Floats]:
    return lambda device, say: np.array([row[place] for row in times(device, say)])


@dataclass(frozen=True)
class _Asked:
    """A row: a network, how it is served, and the load."""

    model: str
    stack: str
    formats: tuple[tuple[str, str], ...]
    tp: int
    dp: int
    ep: int
    isl: int
    osl: int
    concurrency: int

    @classmethod
    def of(cls, model: Model, row: pd.Series[Any]) -> _Asked:
        """Out of a row whose plan is one."""
        formats = tuple(_formats(model, str(row["precision"]), row["gemm_quant_mode"]).items())
        plan = (1 if pd.isna(row[name]) else int(row[name]) for name in ("tp_size", "attention_dp_size", "moe_ep_size"))
        load = (_whole(row[name], name) for name in ("isl", "osl", "concurrency"))
        return cls(str(row["model"]), str(row["fw"]), formats, *plan, *load)

    def job(self, model: Model) -> Job:
        """Formats, plan and routing."""
        plan = f"tp={self.tp},dp={self.dp},ep={self.ep if model.experts else 1}"
        routing = "zipf:s=0.8" if model.experts else "uniform"
        return Job(stack=self.stack, parallel=plan, routing=routing, **dict(self.formats))  # type: ignore[arg-type]

    def requests(self) -> Requests:
        """All there at once; the closed loop lets them in."""
        many, rng = _WAVES * self.concurrency, stream(_SEED, "lengths")
        prompt, output = (rng.integers(int(np.ceil(_SPREAD * size)), size + 1, many) for size in (self.isl, self.osl))
        return make_requests(np.zeros(many), prompt, output)


def _formats(model: Model, precision: str, gemm: object) -> dict[str, str]:
    """Number formats as changes of the network's config."""
    own, asked = model.precision.experts, _FORMATS[precision]
    if precision in ("int4", "bf16") or own in (asked, f"{asked}_block"):
        return {}
    if own == "mxfp4":
        return {"kv": "fp8"}
    return {"weights": "fp8_block" if gemm == "fp8_block" else asked, "activations": asked, "kv": "fp8"}


def _whole(value: Any, name: str) -> int:
    if not 1 <= float(value) <= _MOST or float(value) != round(float(value)):
        raise ValueError(f"{name} {value}; accepted: a whole number from 1 to {_MOST:,}")
    return int(float(value))


def _each(asked: Sequence[_Asked], device: Device, say: Progress) -> list[_Times]:
    """Mean TTFT and TPOT of every row, equal rows simulated once, by several processes."""
    different = list(dict.fromkeys(asked))
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(different))) as pool:
        found = {}
        for row, times in zip(different, pool.map(partial(_times, device), different), strict=True):
            found[row] = times
            say(f"{len(found)} of {len(different)}")
    return [found[row] for row in asked]


def _times(device: Device, row: _Asked) -> _Times:
    """Simulated; NaN where weights or a request do not fit, or the plan cannot divide the network."""
    model = known_model(row.model)
    if model is None:
        return _NONE
    server = device.model_copy(update={"count": row.tp * row.dp})
    service = Service(max_seqs=row.concurrency, concurrency=row.concurrency)
    try:
        served = serve(model, server, row.requests(), service, row.job(model))
    except (InputError, CapacityError):
        return _NONE
    whole = served.completed == len(served.requests)
    return (float(served.table["ttft_s"].mean()), float(served.table["tpot_s"].mean())) if whole else _NONE
