"""Whole networks in fp32 PyTorch on one GPU, priced as the sum of their kernels; no row of them is fitted.

Lines: inference, inference compiled (`fusion`), the training step (forward and backward) and, of that, the backward pass alone.
Networks that are not known and runs on several GPUs are counted only, and so are Switch Transformers: the table does not say
their inner width, which layers have experts, or what these hold. Layers, hidden width and heads are the table's; vocabulary,
inner width and kind of layer those of the network of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hwsim.catalogue import known_model
from hwsim.device import Device
from hwsim.fit.eager import Net, Pass, backward, forward
from hwsim.fit.group import Group, floats, split
from hwsim.fit.queue import Kernel, seconds
from hwsim.lowering.model import Attention, FeedForward

_Kernels = Callable[[Net, Pass], list[Kernel]]

_STACKS = {"single_gpu": "pytorch-eager", "fusion": "pytorch-compiled"}
_SIZES = {"batch": "batch", "seq": "seq", "layers": "n_layer_cfg", "hidden": "hidden", "heads": "heads"}


def dnn_e2e_fp32(table: pd.DataFrame) -> Iterator[Group]:
    """Inference and training of BERT and GPT networks."""
    known = table["model"].astype(str).map(lambda name: _shape(name) is not None) & table["variant"].isin(list(_STACKS))
    for (gpu, mode, variant, priced), rows in split(table.assign(known=known), "device", "mode", "variant", "known"):
        run = Pass(0.0, 0.0, train={"inf": False, "train": True}[mode], fused=variant == "fusion")
        measured = floats(rows["e2e_latency_s"])
        if priced == "False":
            yield _group(gpu, variant, run, measured, rows, None)
            continue
        yield _group(gpu, variant, run, measured, rows, _step if run.train else forward)
        if run.train:
            there = floats(rows["forward_s"])
            back = np.where(there > 0.0, measured - there, there)  # a time that is none is refused as it stands
            yield replace(_group(gpu, variant, run, back, rows, backward), report="backward pass")


def _step(net: Net, run: Pass) -> list[Kernel]:
    return [*forward(net, run), *backward(net, run)]


def _group(
    gpu: str, variant: str, run: Pass, measured: NDArray[np.float64], rows: pd.DataFrame, kernels: _Kernels | None
) -> Group:
    sizes = {name: floats(rows[column]) for name, column in _SIZES.items()}
    return Group(
        "dnn_e2e_fp32", gpu, "network", _STACKS.get(variant, variant), "fp32", measured, sizes, "fp32", "fp32",
        report="training" if run.train else "network", price=_price(rows["model"], sizes, run, kernels) if kernels else None,
    )  # fmt: skip


def _price(
    models: pd.Series[Any], sizes: Mapping[str, NDArray[np.float64]], run: Pass, kernels: _Kernels
) -> Callable[[Device], NDArray[np.float64] | None]:
    """Seconds of `kernels` for every row, encoders and GPTs apart."""
    inner, vocab, causal = np.array([_shape(str(name)) for name in models], dtype=float).T

    def price(device: Device) -> NDArray[np.float64] | None:
        found = np.empty(len(causal))
        for kind in np.unique(causal):
            of = causal == kind
            batch, seq, layers, hidden, heads = (values[of] for values in sizes.values())
            net = Net(layers, hidden, heads, inner[of], vocab[of], bool(kind))
            part = seconds(kernels(net, replace(run, batch=batch, seq=seq)), device)
            if part is None:
                return None
            found[of] = part
        return found

    return price


@cache
def _shape(name: str) -> tuple[float, float, bool] | None:
    """Inner width, vocabulary and whether it is causal (then priced as GPT-2, else as BERT); None for another kind of network."""
    model = known_model(name)
    if model is None:
        return None
    attention, inner = model.layers[0][0].attention, model.layers[0][0].feed_forward
    plain = isinstance(attention, Attention) and attention.kv_heads == attention.heads and not attention.rope
    if not plain or not isinstance(inner, FeedForward) or inner.gated:
        return None
    return float(inner.inner), float(model.vocab), model.causal
