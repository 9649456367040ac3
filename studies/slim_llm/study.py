"""Measures of SliM-LLM (arXiv:2405.14917): bytes of a network's weights in few bits."""

from __future__ import annotations

from typing import Any

from hwsim.catalogue import load_model
from hwsim.claim import Run
from hwsim.lowering.batch import decode
from hwsim.lowering.model import Precision
from hwsim.lowering.transformer import lower


def memory_gain(chosen: Run) -> list[float]:
    """Bytes of all weights in FP16 over those with linear layers of the blocks in `weights`, for each published value."""
    half = Precision(*["fp16"] * 4)
    gain = _bytes(chosen.model, half) / _bytes(chosen.model, half.with_weights(str(chosen.weights)))
    return [gain] * int(chosen.args["values"])


def _bytes(model: str, precision: Precision) -> float:
    ops: Any = lower(load_model(model), decode(1, 1), precision)
    return float(sum(op.resident.get("weights", 0.0) * op.repeat for op in ops))
