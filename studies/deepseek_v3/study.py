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
