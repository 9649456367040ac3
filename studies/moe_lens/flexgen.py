"""FlexGen's cost model (arXiv:2303.06865; experimental/cost_model.py of FMInference/FlexGen): seconds of a layer in closed form.

s prompt and n generated tokens, b sequences of a block and g of a GPU batch, h1 hidden and h2 inner size; w, c, h are the parts
of weights, KV cache and activations on the GPU (g), in CPU memory (c) and on disk (n). GB are 2^30 bytes there.
"""

from __future__ import annotations

from math import log2
from typing import Any

from hwsim.catalogue import load_model
from hwsim.claim import Run
from hwsim.lowering.model import FeedForward

GIB = 2.0**30


def flexgen_tokens_per_s(run: Run) -> float:
    """Generated tokens/s."""
    layers = load_model(run.model).num_layers
    first, later = _prefill(run), _decode(run)
    return run.batch * run.output / (layers * (first + (run.output - 1) * later))


def flexgen_prefill_s(run: Run) -> float:
    """Seconds of all prompts."""
    return load_model(run.model).num_layers * _prefill(run)


def flexgen_decode_s(run: Run) -> float:
    """Seconds of all steps after."""
    return load_model(run.model).num_layers * (run.output - 1) * _decode(run)


def _sizes(run: Run) -> tuple[float, float, float]:
    """Hidden and inner size, and bytes of a layer's weights."""
    model = load_model(run.model)
    inner = model.layers[0][0].feed_forward
    assert isinstance(inner, FeedForward)
    h1, h2 = float(model.hidden), float(inner.inner)
    return h1, h2, 8 * h1**2 + 4 * h1 * h2


def _places(run: Run) -> tuple[float, ...]:
    """Parts in CPU memory and on disk of weights, cache, activations, out of `percent` as the program takes it."""
    wg, wc, cg, cc, hg, hc = (float(part) / 100 for part in run.args["percent"])
    return wc, 1 - wg - wc, cg, cc, 1 - cg - cc, hc, 1 - hg - hc


def _prefill(run: Run) -> float:
    h1, h2, wi = _sizes(run)
    wc, wn, _, cc, cn, hc, hn = _places(run)
    s, b, k = run.prompt, run.batch, run.args["constants"]
    ctog = (wi * (wc + wn) + 2 * s * h1 * b * (hc + hn)) / (GIB * k["ctog"])
    gtoc = 4 * (s + 1) * h1 * b * (cc + cn) / (GIB * k["gtoc_cache"]) + 2 * s * h1 * b * (hc + hn) / (GIB * k["gtoc_hidden"])
    dtoc = (wi * wn + 2 * s * h1 * b * hn) / (GIB * k["dtoc"])
    ctod = 4 * b * (s + 1) * h1 * cn / (GIB * k["ctod_cache"]) + 2 * b * s * h1 * hn / (GIB * k["ctod"])
    compute = b * (8 * s * h1**2 + 4 * s * h1 * h2) / k["mm_prefill"] + 4 * b * s**2 * h1 / k["bmm_prefill"]
    return float(max(ctog + dtoc, gtoc + ctod, compute))


def _decode(run: Run) -> float:
    h1, h2, wi = _sizes(run)
    wc, wn, cg, cc, cn, hc, hn = _places(run)
    b, k, seen = run.batch, run.args["constants"], run.prompt + run.output / 2
    ctog = (wi * (wc + wn) + 2 * h1 * b * (hc + hn)) / (GIB * k["ctog"])
    gtoc = 2 * h1 * b * (hc + hn) / (GIB * k["gtoc_hidden"])
    read = (4 * b * seen * h1 * cn + 2 * h1 * b * hn) / (GIB * k["dtoc"]) + wi * wn / (0.95 * GIB * k["dtoc"])
    written = (4 * b * h1 * cn + 2 * h1 * b * hn) / (GIB * k["ctod"])
    attention = 4 * b * seen * h1
    compute = b * (8 * h1**2 + 4 * h1 * h2) / k["mm_decode"]
    compute += attention * cg / k["bmm_decode"] + attention * (cc + cn) / _cpu(run, h1)
    return float(ctog + max(gtoc, read, written, compute))


def _cpu(run: Run, h1: float) -> float:
    """op/s of the CPU, which small GPU batches and hidden sizes slow down."""
    k: dict[str, Any] = run.args["constants"]
    a, b = max(0.0, log2(64 / run.args["gpu_batch"])), max(0.0, log2(4096 / h1))
    return float(k["cpu"] * max(0.1, 1 + k["c1"] * a * b - k["c2"] * a - k["c3"] * b))
