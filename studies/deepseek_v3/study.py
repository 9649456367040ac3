"""Measures of the DeepSeek-V3 hardware paper that are arithmetic on shapes (arXiv:2505.09343, tables 1 and 2)."""

from __future__ import annotations

from hwsim.catalogue import load_transformer
from hwsim.claim import Run
from hwsim.lowering.batch import prefill, tokens
from hwsim.lowering.transformer import lower


def training_flop_per_token(run: Run) -> float:
    """Operations to train on one token: forward, and twice that backward, over a sequence of `prompt` tokens.

    Causal attention counts the pairs it needs; MLA is expanded, as in training; the LM head runs on every token; vector work
    (norms, activations) is left out, as papers do.
    """
    batch = prefill(1, run.prompt)
    forward = 0.0
    for op in lower(load_transformer(run.model), batch, mla="expanded"):
        every_token = run.prompt if op.kind == "head" else 1
        forward += float(op.ops) * op.repeat * every_token * (op.math == "matmul")
    return 3 * forward / float(tokens(batch))


def tokens_per_day(run: Run) -> float:
    """Tokens of steps that take `args.step` seconds for `args.sequences` of `prompt` tokens."""
    return float(run.args["sequences"]) * run.prompt / float(run.args["step"]) * 86_400


def training_flops(run: Run) -> float:
    """op/s of each of `args.gpus` that train at that rate."""
    return training_flop_per_token(run) * tokens_per_day(run) / 86_400 / float(run.args["gpus"])


def training_flops_without_mask(run: Run) -> float:
    """The same where attention counts all pairs, as if nothing was masked."""
    whole = training_flop_per_token(run)
    pairs = 3 * sum(
        float(op.ops) * op.repeat
        for op in lower(load_transformer(run.model), prefill(1, run.prompt), mla="expanded")
        if "attention" in op.kind
    )
    return training_flops(run) * (1 + pairs / run.prompt / whole)


def utilisation(run: Run) -> float:
    """Part of the peak of `args.peak` op/s."""
    return training_flops(run) / float(run.args["peak"])


def utilisation_without_mask(run: Run) -> float:
    """The same where attention counts all pairs."""
    return training_flops_without_mask(run) / float(run.args["peak"])
