"""Measures of MoTE (arXiv:2506.14435): bytes of the experts that its networks make of a dense one's feed-forward network."""

from __future__ import annotations

from hwsim.catalogue import load_model
from hwsim.claim import Run
from hwsim.formats import nbytes


def expert_bytes(run: Run) -> float:
    """Bytes of `args.routed` experts in format `args.routed_format` and of a shared one in `args.shared_format`, if any.

    Each is as large as the feed-forward network that it replaces, in every layer.
    """
    args = run.args
    each = _weights(run)
    shared = nbytes(args["shared_format"]) if "shared_format" in args else 0.0
    return each * (float(args["routed"]) * nbytes(args["routed_format"]) + shared)


def expert_gib(run: Run) -> float:
    """The same in GiB, a thousand million to each, as the paper's "GB" are."""
    return expert_bytes(run) / 2.0**30 * 1e9


def _weights(run: Run) -> float:
    """Weights of the feed-forward networks of all layers."""
    model = load_model(run.model)
    return float(sum(count * layer.feed_forward.parameters(model.hidden) for layer, count in model.layers))


def share_of_baseline(run: Run) -> float:
    """Experts over as many of the baseline, which are all in 16 bit and have no shared one."""
    return expert_bytes(run) / (_weights(run) * float(run.args["routed"]) * nbytes("bf16"))
