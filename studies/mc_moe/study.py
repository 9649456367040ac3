"""Measures of the Mixture Compressor (arXiv:2410.06270): bytes of a network whose experts have few bits, all else four.

`args`: bits of the experts on average (absent: 16 everywhere), `scale` bits an expert's weight has in scales and zero points,
`dropped` part of the experts' weights that pruning tokens leaves out.
"""

from __future__ import annotations

from hwsim.catalogue import load_model
from hwsim.claim import Run
from hwsim.lowering.model import FeedForward, Model

OTHERS = 4.0  # bits of what is no expert


def size_bytes(run: Run) -> float:
    """Bytes of all weights."""
    model = load_model(run.model)
    return _bytes(run, _experts(model), model.parameters, float(run.args.get("scale", 0.0)))


def active_bytes(run: Run) -> float:
    """Bytes of the weights that a token passes, scales left out as the paper's numbers are."""
    model = load_model(run.model)
    idle = model.parameters - model.active_parameters
    experts = (_experts(model) - idle) * (1.0 - float(run.args.get("dropped", 0.0)))
    return _bytes(run, experts, model.active_parameters - (_experts(model) - idle) + experts, 0.0)


def saving(run: Run) -> float:
    """Part of the 16-bit network that goes away."""
    return 1.0 - size_bytes(run) / (2.0 * load_model(run.model).parameters)


def _bytes(run: Run, experts: float, every: float, scale: float) -> float:
    if "bits" not in run.args:
        return 2.0 * every
    return (experts * (float(run.args["bits"]) + scale) + (every - experts) * OTHERS) / 8.0


def _experts(model: Model) -> float:
    """Weights of all routed experts."""
    return float(
        sum(
            count * layer.feed_forward.experts * layer.feed_forward.expert.parameters(model.hidden)
            for layer, count in model.layers
            if not isinstance(layer.feed_forward, FeedForward)
        )
    )
