"""Transformers -> ops: embedding, folded layers, final norm and LM head, for any batch of (new tokens, context) per sequence.

Per layer, with T new tokens, hidden size h, all GEMMs 2mkn operations:
    norm -> qkv (T x h x (q + kv)) -> rope -> attention -> out (T x q x h) -> add -> norm -> feed-forward -> add
Prefill and decode sequences of one batch are separate attention ops, because they want different hardware; they may overlap.
MLA decode is absorbed: queries are folded into the latent space (nope x rank per head) and attention reads only the latent
(kv_rank + rope per token, shared by all heads). MLA prefill expands the latent into K and V of every head. `mla=` forces either.
A network that sees images embeds their patches; the LM head runs once per sequence. Left out: sampling, dropout, top-k of the
router (N per token), block-table lookups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from hwsim.activity import Activity, drawn, expected
from hwsim.lowering.batch import Batch, Extent, Sequences, extent, sequences, tokens
from hwsim.lowering.convolution import convolution
from hwsim.lowering.model import Attention, FeedForward, LatentAttention, Layer, MixtureOfExperts, Model, Patches, Precision
from hwsim.lowering.moe import Routing, chosen_probability, drawn_counts, stream
from hwsim.op import Array, AttentionOp, Elementwise, Experts, Gemm, Lookup, Op

Mla = Literal["auto", "absorbed", "expanded"]


def lower(
    model: Model,
    batch: Batch,
    precision: Precision | None = None,
    routing: Routing | None = None,
    mla: Mla = "auto",
) -> list[Op]:
    """The ops of one forward pass of `model` over `batch`, layers folded, in program order.

    `precision` defaults to what the model's config states; `routing` to uniform random expert choice (expected values).
    """
    routing = routing or Routing()
    builder = _Builder(model, batch, precision or model.precision, routing, mla)
    return builder.build()


def phase_of(op: Op) -> str:
    """Which sequences of a batch an op is for (attention): "prefill", "decode", or "" for all of them."""
    last = op.name.partition("@")[0].rpartition(".")[2]  # behind @: stage and microbatch
    return last if last in ("prefill", "decode") else ""


def resized(op: Op, seen: Extent) -> Op:
    """An op of one phase (`phase_of`) for other sequences, whose totals are `seen`."""
    if isinstance(op, Gemm):  # of MLA: the latent of all tokens read is expanded, queries and results of new tokens are absorbed
        return replace(op, m=seen.tokens if op.kind == "absorb" else seen.read)
    return replace(op, **_seen(seen))  # type: ignore[arg-type]


def _seen(of: Extent) -> dict[str, Array]:
    """The fields of an attention op that say what it sees."""
    return {
        "sequences": of.sequences, "q_tokens": of.tokens, "pairs": of.pairs, "kv_tokens": of.read, "cached_tokens": of.cached,
    }  # fmt: skip


class _Builder:
    """Adds ops one after another; `self.last` is what the next op waits for."""

    def __init__(self, model: Model, batch: Batch, precision: Precision, routing: Routing, mla: Mla) -> None:
        self.model, self.batch, self.precision, self.routing, self.mla = model, batch, precision, routing, mla
        self.tokens = tokens(batch)
        self.ops: list[Op] = []
        self.last: tuple[str, ...] = ()
        self.block: dict[str, Any] = {}
        self.depth = 0  # layers so far whose neurons are drawn
        self.neurons: Activity | None = None
        first, many = routing.draw, max(routing.draws, 1)
        self.rngs = [stream(routing.seed, "expert_routing", first + i) for i in range(many)] if routing.seed is not None else []

    def build(self) -> list[Op]:
        self._enter("embed", 1)
        self._embedding()
        for name, layer, repeat in self._blocks():
            self._enter(name, repeat)
            self._layer(layer)
        if self.model.head:
            self._enter("head", 1)
            self._head()
        return self.ops

    def _blocks(self) -> Iterator[tuple[str, Layer, int]]:
        """(block name, layer, repetitions); layers with sampled routing stand alone, since each draws its own tokens."""
        labels = [layer.label for layer, _ in self.model.layers]
        for index, (layer, count) in enumerate(self.model.layers):
            name = layer.label if labels.count(layer.label) == 1 else f"{layer.label}.{index}"
            alone = self._draws_neurons(layer) or (isinstance(layer.feed_forward, MixtureOfExperts) and not self.routing.draws)
            if self.rngs and alone:
                yield from ((f"{name}.{i}", layer, 1) for i in range(count))
            else:
                yield name, layer, count

    def _draws_neurons(self, layer: Layer) -> bool:
        """Every layer uses neurons of its own, one token at a time."""
        ffn = layer.feed_forward
        one_token = not np.any(np.greater(self.tokens, 1))
        return bool(self.rngs) and one_token and isinstance(ffn, FeedForward) and ffn.neurons is not None

    def _enter(self, block: str, repeat: int) -> None:
        self.block = {"block": block, "repeat": repeat, "stream": self.precision.stream}

    def _add(self, kind: type[Op], name: str, label: str, after: tuple[str, ...] | None = None, **dims: Any) -> tuple[str, ...]:
        """Append one op and make it what follows waits for; returns its name as an `after`."""
        full = f"{self.block['block']}.{name}"
        waits = self.last if after is None else after
        self.ops.append(kind(name=full, kind=label, after=waits, **self.block, **dims))
        self.last = (full,)
        return self.last

    def _gemm(self, name: str, label: str, n: Array, k: Array, weights: str, split: str, **dims: Any) -> tuple[str, ...]:
        dims = {"m": self.tokens, "activations": self.precision.activations, **dims}
        if weights in ("bf16", "fp16", "fp32") and not self.precision.everywhere:
            dims["activations"] = self.precision.stream
        return self._add(Gemm, name, label, n=n, k=k, weights=weights, split=split, **dims)

    def _elementwise(
        self, name: str, label: str, read: Array, written: Array, work: Array, passes: Array, **dims: Any
    ) -> tuple[str, ...]:
        dims = {"tokens": self.tokens, **dims}
        return self._add(Elementwise, name, label, read=read, written=written, work=work, passes=passes, **dims)

    def _norm(self, name: str, after: tuple[str, ...] | None = None, tokens: Array | None = None) -> tuple[str, ...]:
        """RMSNorm or LayerNorm: read and write the row in two passes, about 4 operations an element (square, add, scale)."""
        h = self.model.hidden
        count = self.tokens if tokens is None else tokens
        return self._elementwise(name, "norm", h, h, 4 * h, 2 * h, after=after, tokens=count, whole=True)

    def _residual(self, name: str, after: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """The sum with the layer's input; serving kernels do it in the norm that follows."""
        h = self.model.hidden
        return self._elementwise(name, "add", 2 * h, h, h, h, after=after, fused=True)

    def _embedding(self) -> None:
        model = self.model
        if model.patches is not None:
            self._patches(model.patches)
            return
        rows = model.vocab + model.positions
        tied = model.tied and model.head
        self._add(
            Lookup, "lookup", "embedding", tokens=self.tokens, width=model.hidden, rows=rows,
            weights=self.precision.head, tied=tied, split="gathered",
        )  # fmt: skip

    def _patches(self, patches: Patches) -> None:
        """Patches of one image for each sequence, a convolution whose kernels do not overlap."""
        self.ops.append(convolution(
            f"{self.block['block']}.patches", "embedding", images=sequences(self.batch), side=patches.image,
            channels=patches.channels, filters=self.model.hidden, kernel=patches.size, stride=patches.size, split="gathered",
            weights=self.precision.head, activations=self.precision.stream, **self.block,
        ))  # fmt: skip
        self.last = (self.ops[-1].name,)

    def _head(self) -> None:
        model, count = self.model, sequences(self.batch)
        for index in range(model.final_norms):
            self._norm(f"norm{index or ''}", tokens=count)
        self._add(
            Gemm, "logits", "head", m=count, n=model.vocab, k=model.hidden, weights=self.precision.head,
            activations=self.precision.stream, split="gathered",
        )  # fmt: skip

    def _layer(self, layer: Layer) -> None:
        self.neurons = self._activity(layer)
        into = self.last
        normed = self._norm("norm1")
        attended = self._attention(layer.attention)
        if layer.parallel:
            self.last = normed
            fed = self._feed_forward(layer.feed_forward)
            self._residual("add", after=(*attended, *fed, *into))
            return
        for extra in range(layer.norms - 2):  # norms after attention and feed-forward (Gemma 2, OLMo 2)
            attended = self._norm(f"norm{3 + extra}")
        self._residual("add1")
        self._norm("norm2")
        self._feed_forward(layer.feed_forward)
        self._residual("add2")

    def _attention(self, attention: Attention | LatentAttention) -> tuple[str, ...]:
        if isinstance(attention, LatentAttention):
            return self._latent(attention)
        heads, dim, h = attention.heads, attention.head_dim, self.model.hidden
        width = heads * dim
        kept = self.precision.sparsity
        each = [size / (width + attention.kv_width) for size in (width, attention.kv_width / 2, attention.kv_width / 2)]
        columns = {
            "kv_columns": float(attention.kv_width), "kv_heads": attention.kv_heads, "parts": tuple(each),
            "kept": (kept.query_key, kept.query_key, kept.value),
        }  # fmt: skip
        self._gemm("qkv", "qkv", width + attention.kv_width, h, self.precision.attention, "columns", **columns)
        if attention.rope:
            rotated = (heads + attention.kv_heads) * dim
            self._elementwise("rope", "rope", rotated, rotated, 3 * rotated, 3 * rotated, split="heads")
        self._attend(
            attention.window, heads=heads, kv_heads=attention.kv_heads, qk_dim=dim, v_dim=dim, kv_dim=2 * dim,
            cache_width=attention.kv_width,
        )  # fmt: skip
        return self._gemm("out", "out", h, width, self.precision.attention, "rows", kept=(kept.out,))

    def _attend(self, window: int | None, **shape: Any) -> None:
        """Attention of the prefilling and of the decoding sequences, side by side."""
        prefilling, decoding = self._phases()
        ready = self.last
        ends: tuple[str, ...] = ()
        for name, groups in (("prefill", prefilling), ("decode", decoding)):
            if groups:
                ends += self._attention_op(f"attention.{name}", groups, window, ready, **shape)
        self.last = ends

    def _phases(self) -> tuple[Batch, Batch]:
        """Sequences that add several tokens, and those that add one."""
        prefilling = tuple(group for group in self.batch if np.any(np.asarray(group.new) > 1))
        return prefilling, tuple(group for group in self.batch if group not in prefilling)

    def _attention_op(
        self, name: str, groups: tuple[Sequences, ...], window: int | None, after: tuple[str, ...], **shape: Any
    ) -> tuple[str, ...]:
        blocks = self.precision.sparsity.attention if name.endswith("prefill") else ()
        return self._add(
            AttentionOp, name, name, after=after, split="heads", kv=self.precision.kv, window=float(window or 0), blocks=blocks,
            **_seen(extent(groups, window, self.model.causal)), **shape,
        )  # fmt: skip

    def _latent(self, attention: LatentAttention) -> tuple[str, ...]:
        """MLA: project queries and the latent, attend absorbed or expanded, project out."""
        a, h, weights = attention, self.model.hidden, self.precision.attention
        into = self.last
        if a.q_rank is None:
            queries = self._gemm("q", "qkv", a.heads * a.qk_dim, h, weights, "columns")
            latent = self._gemm("kv_down", "qkv", a.kv_width, h, weights, "none", after=into)
        else:  # both read the same input: one GEMM
            latent = self._gemm("down", "qkv", a.q_rank + a.kv_width, h, weights, "none")
            queries = self._gemm("q_up", "qkv", a.heads * a.qk_dim, a.q_rank, weights, "columns")
        rotated = (a.heads + 1) * a.rope_dim
        self._elementwise("rope", "rope", rotated, rotated, 3 * rotated, 3 * rotated, split="heads", after=queries + latent)
        ready = self.last
        ends: tuple[str, ...] = ()
        prefilling, decoding = self._phases()
        for name, groups, absorbed in (
            ("prefill", prefilling, self.mla == "absorbed"),
            ("decode", decoding, self.mla != "expanded"),
        ):
            if groups:
                self.last = ready
                counted = name == "decode" and bool(prefilling)  # both phases use the same weights
                ends += (self._absorbed if absorbed else self._expanded)(a, name, groups, counted)
        return self._gemm("out", "out", h, a.heads * a.v_dim, weights, "rows", after=ends)

    def _absorbed(self, a: LatentAttention, name: str, groups: Batch, tied: bool) -> tuple[str, ...]:
        """Queries into the latent space, attention on the latent itself, result back to the heads (arXiv:2405.04434, 2.1.2)."""
        per_head = {"m": tokens(groups), "groups": a.heads, "tied": tied, "activations": self.precision.stream}
        weights = self.precision.stream  # servers unpack them once
        ready = self._gemm(f"absorb_q.{name}", "absorb", a.kv_rank, a.nope_dim, weights, "heads", **per_head)
        self._attention_op(
            f"attention.{name}", groups, a.window, ready, heads=a.heads, kv_heads=1, qk_dim=a.kv_width, v_dim=a.kv_rank,
            kv_dim=a.kv_width, cache_width=a.kv_width, latent=a.kv_rank, rope=a.rope_dim,
        )  # fmt: skip
        return self._gemm(f"absorb_v.{name}", "absorb", a.v_dim, a.kv_rank, weights, "heads", **per_head)

    def _expanded(self, a: LatentAttention, name: str, groups: Batch, tied: bool) -> tuple[str, ...]:
        """K and V of every head rebuilt from the latent of all tokens read, then ordinary attention."""
        read = sum(group.read(a.window) for group in groups)
        self._gemm(
            f"kv_up.{name}", "qkv", a.heads * (a.nope_dim + a.v_dim), a.kv_rank, self.precision.attention, "columns", m=read,
            tied=tied,
        )  # fmt: skip
        return self._attention_op(
            f"attention.{name}", groups, a.window, self.last, heads=a.heads, kv_heads=a.heads, qk_dim=a.qk_dim, v_dim=a.v_dim,
            kv_dim=a.qk_dim + a.v_dim, cache_width=a.kv_width, latent=a.kv_rank, rope=a.rope_dim, expanded=True,
        )  # fmt: skip

    def _feed_forward(self, ffn: FeedForward | MixtureOfExperts) -> tuple[str, ...]:
        if isinstance(ffn, FeedForward):
            return self._dense(ffn, "ffn", "ffn")
        return self._experts(ffn)

    def _dense(self, ffn: FeedForward, prefix: str, label: str, joined: bool = False) -> tuple[str, ...]:
        h, inner, weights, kept = self.model.hidden, ffn.inner, self.precision.feed_forward, self.precision.sparsity.feed_forward
        many, used = ffn.matrices - 1, {"neurons": self.neurons}
        wide = inner * many
        self._gemm(f"{prefix}.up", label, wide, h, weights, "columns", parts=(1 / many,) * many, kept=(kept,) * many, **used)
        self._elementwise(f"{prefix}.act", "activation", wide, inner, 4 * inner, wide, split="columns", **used)
        return self._gemm(f"{prefix}.down", label, h, inner, weights, "rows", joined=joined, kept=(kept,), **used)

    def _activity(self, layer: Layer) -> Activity | None:
        """The neurons that this pass uses in a layer: drawn, or as expected of all layers."""
        ffn, routing = layer.feed_forward, self.routing
        if not isinstance(ffn, FeedForward) or ffn.neurons is None:
            return None
        layers = self.model.num_layers
        if not self._draws_neurons(layer) or routing.seed is None:
            return expected(ffn.neurons, layers, float(np.max(self.tokens)))
        self.depth += 1
        return drawn(ffn.neurons, layers, ffn.inner, routing.seed).layer(self.depth - 1, routing.draw, routing.draws)

    def _experts(self, moe: MixtureOfExperts) -> tuple[str, ...]:
        """Router, routed experts and, beside them, the shared expert."""
        normed, h = self.last, self.model.hidden
        router = self._gemm("router", "router", moe.experts, h, self.precision.head, "none", activations=self.precision.stream)
        self.last = normed
        shared = self._dense(moe.shared, "shared", "shared", joined=True) if moe.shared else ()
        self.last = shared + self._add(
            Experts, "experts", "experts", after=router, tokens=self.tokens, hidden=h, inner=moe.expert.inner,
            matrices=moe.expert.matrices, weights=self.precision.experts, activations=self.precision.activations,
            split="experts", joins=shared, **self._routed(moe),
        )  # fmt: skip
        return self.last

    def _routed(self, moe: MixtureOfExperts) -> dict[str, Any]:
        exponent = self.routing.weights_exponent
        if self.rngs:
            return {"chosen": drawn_counts(self.tokens, moe.experts, moe.top_k, self.routing, self.rngs), "counted": True}
        odds = chosen_probability(moe.experts, moe.top_k, exponent)
        return {"chosen": odds, "balanced": self.routing.kind == "balanced"}
