"""Llama-3.1-8B, bf16, batch 8, 2,048 tokens, on a100-ideal: against what an engineer computes on paper."""

from __future__ import annotations

import pytest

from hwsim.catalogue import load_device, load_model
from hwsim.job import run
from hwsim.trace import Trace

# the paper computation: shapes from the published config, peaks from the A100 SXM4 80 GB datasheet
LAYERS, HIDDEN, INNER, VOCAB = 32, 4096, 14336, 128256
Q, KV = 32 * 128, 8 * 128
PEAK, BANDWIDTH = 312e12, 2.039e12
BATCH, PROMPT = 8, 2048
WEIGHTS_PER_LAYER = HIDDEN * (Q + 2 * KV) + Q * HIDDEN + 3 * HIDDEN * INNER  # 218.1 M
HEAD = HIDDEN * VOCAB  # 525.3 M


def simulated(phase: str) -> Trace:
    return run("llama-3.1-8b", "a100-ideal", phase=phase, batch=BATCH, prompt=PROMPT)


def test_prefill_is_compute_bound():
    tokens = BATCH * PROMPT
    linear = 2 * tokens * WEIGHTS_PER_LAYER * LAYERS  # 2.287e14
    causal_pairs = BATCH * PROMPT * (PROMPT + 1) / 2
    attention = 4 * causal_pairs * Q * LAYERS  # scores and context, 2 operations each: 8.8e12
    head = 2 * BATCH * HEAD  # only the last token of each sequence
    by_hand = (linear + attention + head) / PEAK
    assert by_hand == pytest.approx(0.7612, rel=1e-3)
    assert 0.85 <= by_hand / simulated("prefill").latency_s <= 1.0


def test_decode_is_memory_bound():
    weights = 2 * (WEIGHTS_PER_LAYER * LAYERS + HEAD)  # 15.01 GB
    cache = 2 * (2 * KV) * LAYERS * BATCH * PROMPT  # 2.15 GB
    by_hand = (weights + cache) / BANDWIDTH
    assert by_hand == pytest.approx(8.415e-3, rel=1e-3)
    assert 0.85 <= by_hand / simulated("decode").latency_s <= 1.0


def test_operations_and_weights_are_counted_exactly():
    decode = simulated("decode")
    matmul = {name: value for name, value in decode.sum("op", by="kind").items() if name in ("qkv", "out", "ffn", "head")}
    assert sum(matmul.values()) == pytest.approx(2 * BATCH * (WEIGHTS_PER_LAYER * LAYERS + HEAD), rel=1e-12)
    embedding_rows = BATCH * HIDDEN * 2
    assert decode.sum("bytes", by="operand")["weights"] == pytest.approx(2 * (WEIGHTS_PER_LAYER * LAYERS + HEAD) + embedding_rows)


def test_decode_reads_the_cache_that_prefill_wrote():
    # the new token's K and V are read too: 2,049 tokens of context
    per_token = 2 * KV * LAYERS * 2
    assert simulated("decode").sum("bytes", by="operand")["kv"] == pytest.approx(BATCH * (PROMPT + 1) * per_token)


def test_the_model_and_device_are_what_the_paper_computation_assumes():
    device = load_device("a100-ideal")
    assert device.units["tensor"].peak["bf16"] == PEAK
    assert device.memories["hbm"].rate == BANDWIDTH
    assert load_model("llama-3.1-8b").parameters == 8_030_261_248
