"""Lowering: operations and bytes of every layer kind against formulas written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import InputError
from hwsim.lowering.batch import Sequences, decode, mixed, prefill
from hwsim.lowering.model import Attention, FeedForward, LatentAttention, Layer, MixtureOfExperts, Model, Precision
from hwsim.lowering.moe import Routing
from hwsim.lowering.transformer import lower
from hwsim.op import AttentionOp, Experts, Op

GQA = Attention(heads=32, kv_heads=8, head_dim=128)
DENSE = Model("dense", 4096, 32000, ((Layer(GQA, FeedForward(14336)), 32),))
MIXTRAL = Model("mixtral", 4096, 32000, ((Layer(GQA, MixtureOfExperts(8, 2, FeedForward(14336))), 32),))
MLA = LatentAttention(heads=128, kv_rank=512, nope_dim=128, rope_dim=64, v_dim=128, q_rank=1536)
DEEPSEEK = Model(
    "deepseek", 7168, 129280,
    (
        (Layer(MLA, FeedForward(18432)), 3),
        (Layer(MLA, MixtureOfExperts(256, 8, FeedForward(2048), FeedForward(2048))), 58),
    ),
)  # fmt: skip


def named(ops: list[Op], name: str) -> Op:
    return next(op for op in ops if op.name.endswith(name))


def total(ops: list[Op], what: str = "ops", kinds: tuple[str, ...] = ()) -> float:
    return sum(getattr(op, what) * op.repeat for op in ops if not kinds or op.kind in kinds)


def weight_bytes(ops: list[Op]) -> float:
    return sum(op.resident.get("weights", 0.0) * op.repeat for op in ops)


@pytest.mark.parametrize("model", [DENSE, MIXTRAL, DEEPSEEK])
def test_resident_weights_are_the_matrices_of_the_model(model):
    norms_and_such = model.parameters - weight_bytes(lower(model, decode(1, 0))) / 2
    assert 0 <= norms_and_such < 3e-4 * model.parameters


@pytest.mark.parametrize("model", [DENSE, MIXTRAL, DEEPSEEK])
def test_linear_operations_are_two_per_active_parameter_and_token(model):
    ops = lower(model, prefill(1, 64), mla="expanded")
    linear = total(ops, kinds=("qkv", "out", "ffn", "experts", "shared", "router"))
    outside = 2 * model.vocab * model.hidden  # embedding and head
    assert linear == pytest.approx(2 * 64 * (model.active_parameters - outside), rel=1e-3)


@pytest.mark.parametrize(("window", "pairs", "read"), [(None, 10, 4), (2, 7, 4), (1, 4, 4), (9, 10, 4)])
def test_causal_pairs_of_a_prompt_of_four(window, pairs, read):
    group = Sequences(1, 4, 0)
    assert group.pairs(window) == pairs
    assert group.read(window) == read


@given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 50) | st.none())
def test_pairs_match_counting_one_by_one(new, past, window):
    by_hand = sum(min(past + i + 1, window or 10**9) for i in range(new))
    assert Sequences(1, new, past).pairs(window) == by_hand
    seen = {j for i in range(new) for j in range(max(0, past + i + 1 - (window or 10**9)), past + i + 1)}
    assert Sequences(1, new, past).read(window) == len(seen)
    assert Sequences(1, new, past).cached(window) == min(past + new, window or 10**9)


def test_prefill_attention_op_b_is_length_over_one_plus_inverse_group():
    # Duplex, arXiv:2409.01141: 4 L^2 h operations (full square), Q, K, V, O moved once: L / (1 + 1/deg); causal is half of it
    op = named(lower(DENSE, prefill(1, 2048)), "attention.prefill")
    assert op.op_b == pytest.approx(2049 / 2 / (1 + 1 / 4), rel=1e-3)


def test_decode_attention_op_b_is_the_group_size():
    op = named(lower(DENSE, decode(64, 100_000)), "attention.decode")
    assert op.op_b == pytest.approx(4, rel=1e-3)


def test_expert_op_b_is_tokens_per_expert():
    # Duplex table: Mixtral, batch 32/64/128 -> 8/16/32, weight traffic only
    for batch, per_expert in ((32, 8), (64, 16), (128, 32)):
        op = named(lower(MIXTRAL, decode(batch, 1024), routing=Routing("balanced")), "experts")
        assert op.ops / op.bytes["weights"] == pytest.approx(per_expert)


def test_absorbed_mla_reads_only_the_latent():
    op = named(lower(DEEPSEEK, decode(1, 4095)), "attention.decode")
    assert isinstance(op, AttentionOp)
    assert op.bytes["kv"] == 4096 * 576 * 2
    assert op.ops == 2 * 4096 * 128 * (576 + 512)


def test_expanded_mla_rebuilds_keys_and_values_of_all_tokens_read():
    ops = lower(DEEPSEEK, mixed([(2, 62)]), mla="expanded")
    up = named(ops, "kv_up.prefill")
    assert up.ops == 2 * 64 * 512 * 128 * 256
    attention = named(ops, "attention.prefill")
    assert attention.bytes["kv"] == 0
    assert attention.bytes["activations"] == 2 * (64 * 128 * (192 + 128) + 2 * 128 * (192 + 128))
    assert attention.resident["kv"] == 64 * 576 * 2


def test_mla_auto_absorbs_decode_and_expands_prefill():
    names = [op.name for op in lower(DEEPSEEK, mixed([(1, 500), (100, 0)]))]
    assert any("absorb_q.decode" in name for name in names)
    assert any("kv_up.prefill" in name for name in names)
    assert not any("absorb_q.prefill" in name or "kv_up.decode" in name for name in names)


def test_mixed_batch_is_its_parts_except_for_shared_weights():
    both = lower(DENSE, mixed([(512, 0), (1, 2048), (1, 2048)]))
    one, two = lower(DENSE, prefill(1, 512)), lower(DENSE, decode(2, 2048))
    assert total(both) == pytest.approx(total(one) + total(two))
    assert weight_bytes(both) == weight_bytes(one)


def test_mixed_attention_of_prefill_and_decode_can_overlap():
    ops = lower(DENSE, mixed([(512, 0), (1, 2048)]))
    pre, dec = named(ops, "attention.prefill"), named(ops, "attention.decode")
    assert pre.after == dec.after
    assert set(named(ops, ".out").after) == {pre.name, dec.name}


def test_window_limits_traffic_and_cache():
    windowed = replace(DENSE, layers=((Layer(replace(GQA, window=1024), FeedForward(14336)), 32),))
    op = named(lower(windowed, decode(1, 8191)), "attention.decode")
    assert op.bytes["kv"] == 1024 * 2048 * 2
    assert op.resident["kv"] == 1024 * 2048 * 2


def test_precisions_are_chosen_separately():
    precision = Precision(attention="int8", feed_forward="int4_g128", kv="fp8")
    ops = lower(DENSE, decode(4, 1024), precision)
    assert named(ops, "qkv").resident["weights"] == 4096 * 6144
    assert named(ops, "ffn.down").resident["weights"] == 14336 * 4096 * (4 + 16 / 128) / 8
    assert named(ops, "attention.decode").bytes["kv"] == 4 * 1025 * 2048
    assert named(ops, "logits").resident["weights"] == 4096 * 32000 * 2
    assert named(ops, "ffn.down").precision == "bf16"  # weight-only: multiplied as the activations are stored


def test_eight_bit_activations_multiply_in_eight_bit():
    precision = Precision(activations="fp8").with_weights("fp8")
    op = named(lower(DENSE, decode(4, 1024), precision), "qkv")
    assert op.precision == "fp8"
    assert op.bytes["activations"] == 4 * 4096 * 1 + 4 * 6144 * 2  # read in 8 bit, written in the stream's 16 bit


def test_tied_embedding_is_resident_once():
    tied = replace(DENSE, tied=True)
    assert weight_bytes(lower(DENSE, decode(1, 1))) - weight_bytes(lower(tied, decode(1, 1))) == 2 * 32000 * 4096


def test_parallel_blocks_share_one_norm():
    falcon = Model(
        "falcon", 4544, 65024, ((Layer(Attention(71, 1, 64), FeedForward(18176, gated=False), norms=1, parallel=True), 32),)
    )
    ops = [op for op in lower(falcon, decode(1, 10)) if op.block == "dense"]
    assert sum(op.kind == "norm" for op in ops) == 1
    assert named(ops, "ffn.up").after == named(ops, "qkv").after


def test_encoder_attends_both_ways_and_has_no_head():
    bert = Model(
        "bert", 1024, 30522, ((Layer(Attention(16, 16, 64), FeedForward(4096, gated=False)), 24),), head=False, causal=False
    )
    ops = lower(bert, prefill(2, 512))
    assert named(ops, "attention.prefill").ops == 4 * 2 * 512 * 512 * 1024
    assert not any(op.block == "head" for op in ops)


def test_contexts_broadcast():
    steps = np.arange(1000.0, 1010.0)
    together = lower(DENSE, decode(8, steps))
    for i, context in enumerate(steps):
        alone = lower(DENSE, decode(8, float(context)))
        assert [np.broadcast_to(op.ops, 10)[i] for op in together] == [op.ops for op in alone]


def test_sampled_routing_draws_every_layer_and_repeats_with_its_seed():
    ops = lower(MIXTRAL, decode(4, 100), routing=Routing("uniform", seed=1))
    layers = [op for op in ops if isinstance(op, Experts)]
    assert len(layers) == 32
    assert len({op.active for op in layers}) > 1
    again = lower(MIXTRAL, decode(4, 100), routing=Routing("uniform", seed=1))
    assert [op.active for op in layers] == [op.active for op in again if isinstance(op, Experts)]
    expected = named(lower(MIXTRAL, decode(4, 100)), "experts").active
    assert np.mean([op.active for op in layers]) == pytest.approx(expected, rel=0.1)


@given(st.sampled_from([DENSE, MIXTRAL, DEEPSEEK]), st.integers(1, 64), st.integers(0, 4096))
@settings(max_examples=40, deadline=None)
def test_every_op_waits_for_ops_before_it(model, batch, context):
    seen: set[str] = set()
    for op in lower(model, mixed([(1, context)] * batch + [(17, context)])):
        assert set(op.after) <= seen
        assert op.name not in seen
        seen.add(op.name)


def test_empty_or_impossible_batches_are_refused():
    for bad in ([], [(0, 5)], [(1, -1)]):
        with pytest.raises(InputError):
            mixed(bad)


@pytest.mark.parametrize("mla", ["auto", "absorbed", "expanded"])
def test_both_phases_of_a_mixed_batch_share_the_weights_of_mla(mla):
    together, apart = lower(DEEPSEEK, mixed([(64, 0), (1, 64)]), mla=mla), lower(DEEPSEEK, decode(1, 64), mla=mla)
    assert weight_bytes(together) == pytest.approx(weight_bytes(apart))


def test_activations_named_by_the_user_hold_for_every_linear_layer():
    chosen = replace(DENSE.precision, activations="fp8", everywhere=True)
    for name in ("qkv", "out", "ffn.up", "ffn.down"):
        wide, narrow = (named(lower(DENSE, prefill(1, 64), precision), name) for precision in (DENSE.precision, chosen))
        read = 64 * wide.k
        assert wide.bytes["activations"] - narrow.bytes["activations"] == read
