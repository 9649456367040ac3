"""Network shapes: what a transformer is made of, before any batch, precision of a run or device.

Parameter counts are exact where the layout is known (biases, norms, routers and positions included). Layers of equal shape are
kept folded as (layer, count): with a barrier between layers their order does not change time, energy or memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hwsim.activity import Neurons


@dataclass(frozen=True)
class Attention:
    """Softmax attention with its own K and V per KV head: MHA (kv_heads = heads), GQA, MQA (kv_heads = 1)."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None = None  # sliding window in tokens, None = full context
    qkv_bias: bool = False
    out_bias: bool = False
    rope: bool = True
    qk_norm: int = 0  # parameters of the query and key norms

    @property
    def kv_width(self) -> int:
        """Elements cached per token: K and V of every KV head."""
        return 2 * self.kv_heads * self.head_dim

    def parameters(self, hidden: int) -> int:
        """Weights, biases and norms of one layer."""
        q, kv = self.heads * self.head_dim, self.kv_width
        bias = (q + kv) * self.qkv_bias + hidden * self.out_bias
        return hidden * (q + kv) + q * hidden + bias + self.qk_norm


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): K and V of all heads rebuilt from one cached latent."""

    heads: int
    kv_rank: int
    nope_dim: int
    rope_dim: int
    v_dim: int
    q_rank: int | None = None  # None = queries are projected directly
    window: int | None = None

    @property
    def qk_dim(self) -> int:
        """Size of a query or key: its part without and its part with rotary embedding."""
        return self.nope_dim + self.rope_dim

    @property
    def kv_width(self) -> int:
        """Elements cached per token: the latent and the shared rotary key."""
        return self.kv_rank + self.rope_dim

    def parameters(self, hidden: int) -> int:
        """Weights and norms of one layer."""
        q_out = self.heads * self.qk_dim
        query = hidden * q_out if self.q_rank is None else hidden * self.q_rank + self.q_rank + self.q_rank * q_out
        latent = hidden * self.kv_width + self.kv_rank + self.kv_rank * self.heads * (self.nope_dim + self.v_dim)
        return query + latent + self.heads * self.v_dim * hidden


@dataclass(frozen=True)
class FeedForward:
    """Dense feed-forward network: two matrices, or three when gated (SwiGLU, GeGLU). `neurons`: which of them are used."""

    inner: int
    gated: bool = True
    bias: bool = False
    neurons: Neurons | None = None

    @property
    def matrices(self) -> int:
        """Matrices of the network: up and down, and gate."""
        return 3 if self.gated else 2

    def parameters(self, hidden: int) -> int:
        """Weights and biases."""
        return self.matrices * hidden * self.inner + ((self.matrices - 1) * self.inner + hidden) * self.bias

    def active_parameters(self, hidden: int) -> int:
        """All of them: every token passes a dense network."""
        return self.parameters(hidden)


@dataclass(frozen=True)
class MixtureOfExperts:
    """Routed experts, each a small feed-forward network; `shared` is a feed-forward network that every token passes."""

    experts: int
    top_k: int
    expert: FeedForward
    shared: FeedForward | None = None
    router_bias: bool = False
    shared_gate: bool = False  # a sigmoid gate on the shared expert (Qwen2-MoE)

    def _outside(self, hidden: int) -> int:
        shared = self.shared.parameters(hidden) if self.shared else 0
        return hidden * self.experts + self.experts * self.router_bias + hidden * self.shared_gate + shared

    def parameters(self, hidden: int) -> int:
        """Router, shared network and all experts."""
        return self._outside(hidden) + self.experts * self.expert.parameters(hidden)

    def active_parameters(self, hidden: int) -> int:
        """Parameters that one token passes."""
        return self._outside(hidden) + self.top_k * self.expert.parameters(hidden)


@dataclass(frozen=True)
class Layer:
    """One transformer block. `parallel`: attention and feed-forward read the same norm and are added (GPT-J, Falcon, Phi-2)."""

    attention: Attention | LatentAttention
    feed_forward: FeedForward | MixtureOfExperts
    norms: int = 2
    parallel: bool = False

    @property
    def label(self) -> str:
        """Short name of this kind of layer, used as the block name of its ops."""
        moe = "moe" if isinstance(self.feed_forward, MixtureOfExperts) else "dense"
        return f"{moe}.window{self.attention.window}" if self.attention.window else moe


@dataclass(frozen=True)
class Sparsity:
    """Part of the weights that pruning leaves, by matrix, and of the query-key pairs that block-sparse prompts compute.

    `attention` is (context, part) pairs, empty for dense attention.
    """

    query_key: float = 1.0
    value: float = 1.0
    out: float = 1.0
    feed_forward: float = 1.0
    attention: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Precision:
    """How each group of tensors is stored. `activations` is what the linear layers read; `stream` what flows between kernels.

    In a quantised network the layers that are left in 16 bit read the stream as it is, unless `everywhere`.
    """

    attention: str = "bf16"
    feed_forward: str = "bf16"
    experts: str = "bf16"
    head: str = "bf16"  # embedding and LM head
    activations: str = "bf16"
    stream: str = "bf16"
    kv: str = "bf16"
    everywhere: bool = False
    sparsity: Sparsity = Sparsity()

    def with_weights(self, name: str) -> Precision:
        """All linear layers of the blocks in format `name`; embedding and LM head keep theirs."""
        return replace(self, attention=name, feed_forward=name, experts=name)


@dataclass(frozen=True)
class Patches:
    """Images cut into squares of `size` pixels, each an embedding (ViT, arXiv:2010.11929)."""

    image: int
    size: int
    channels: int

    @property
    def count(self) -> int:
        """Patches of an image."""
        return (self.image // self.size) ** 2

    def parameters(self, hidden: int) -> int:
        """Weights of the embedding."""
        return self.size**2 * self.channels * hidden


@dataclass(frozen=True)
class Model:
    """A transformer: embedding, folded layers, final norm and LM head."""

    name: str
    hidden: int
    vocab: int
    layers: tuple[tuple[Layer, int], ...]
    tied: bool = False  # the LM head is the embedding table
    head: bool = True  # False for encoders without an LM head
    head_bias: bool = False
    causal: bool = True
    positions: int = 0  # rows of a learned position table
    extra_parameters: int = (
        0  # parameters outside the blocks that cost no time worth modelling (token types, pooler, projections)
    )
    norm_bias: bool = False  # LayerNorm (weight and bias) instead of RMSNorm
    norm_weight: bool = True  # False for norms without parameters (OLMo)
    final_norms: int = 1
    precision: Precision = Precision()
    max_context: int | None = None
    patches: Patches | None = None  # of a network that sees images: their embedding instead of a table of tokens
    source: str = ""
    notes: tuple[str, ...] = ()  # what the config holds that is not simulated (vision tower, MTP head)

    @property
    def num_layers(self) -> int:
        """Transformer blocks."""
        return sum(count for _, count in self.layers)

    @property
    def _norm_parameters(self) -> int:
        return self.hidden * (self.norm_weight + self.norm_bias)

    def _outside(self) -> int:
        """Parameters outside the blocks, embedding included once."""
        head = (0 if self.tied else self.vocab * self.hidden) * self.head + self.vocab * self.head_bias
        table = (self.vocab + self.positions) * self.hidden
        table += self.patches.parameters(self.hidden) if self.patches else 0
        return table + head + self.final_norms * self._norm_parameters + self.extra_parameters

    @property
    def parameters(self) -> int:
        """All parameters of the language model."""
        return self._outside() + sum(
            n * (a.attention.parameters(self.hidden) + a.feed_forward.parameters(self.hidden) + a.norms * self._norm_parameters)
            for a, n in self.layers
        )

    @property
    def active_parameters(self) -> int:
        """Parameters that one token passes: of the routed experts only top-k, everything else once."""
        idle = sum(
            n * (a.feed_forward.parameters(self.hidden) - a.feed_forward.active_parameters(self.hidden)) for a, n in self.layers
        )
        return self.parameters - idle

    @property
    def experts(self) -> int:
        """Routed experts of a layer, the most of any; 0 for a dense network."""
        return max((a.feed_forward.experts for a, _ in self.layers if isinstance(a.feed_forward, MixtureOfExperts)), default=0)

    @property
    def sparse(self) -> bool:
        """Whether it is known which neurons of its feed-forward networks are used."""
        return any(isinstance(a.feed_forward, FeedForward) and a.feed_forward.neurons for a, _ in self.layers)

    @property
    def active_parameters_without_embedding(self) -> int:
        """As `active_parameters`, without the embedding table, of which a token reads one row; some vendors count this way."""
        return self.active_parameters - (0 if self.tied else self.vocab * self.hidden)

    def kv_elements_per_token(self) -> int:
        """Elements of KV cache that one token adds over all layers (windows not applied)."""
        return sum(n * a.attention.kv_width for a, n in self.layers)
