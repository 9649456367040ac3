"""Measures of MixLLM (arXiv:2412.14590): how much arithmetic a byte carries when one operand gets narrower."""

from __future__ import annotations

from hwsim.claim import Run
from hwsim.formats import nbytes


def intensity_gain(chosen: Run) -> float:
    """Operations per byte of the operands of an m x n x k product over those of another pair of formats, less one."""
    return _operands(chosen, *chosen.args["over"]) / _operands(chosen, str(chosen.weights), str(chosen.activations)) - 1


def _operands(chosen: Run, weights: str, activations: str) -> float:
    m, n, k = chosen.args["shape"]
    return float(n * k * nbytes(weights) + m * k * nbytes(activations))
