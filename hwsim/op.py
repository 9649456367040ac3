"""Op: what must be done, before anybody decides where. Dimensions and number formats -> operations and bytes; knows no hardware.

Every dimension may be a NumPy array: one Op then stands for many (1,024 decode contexts, 100,000 design points), and all that is
computed from it broadcasts. Conventions: 1 MAC = 2 operations; `bytes` is traffic below the caches, each operand moved once;
`resident` is what has to stay in memory. Both are keyed by operand: "weights", "activations", "kv".

A list of Op is a workload. Repeated layers stay folded: `repeat` equal blocks named `block` are one group of ops, and a barrier
stands between two repetitions, so that repeating a block n times takes exactly n times as long. `after` names the ops that must
have ended; it is empty for an op that may start at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from hwsim.activity import Activity
from hwsim.formats import multiplied_in, nbytes, stored

Array = float | NDArray[np.float64]
Math = Literal["matmul", "vector", "move"]
Split = Literal["columns", "gathered", "rows", "heads", "experts", "none"]


def larger(a: Array, b: Array) -> Array:
    """Elementwise maximum that stays a cheap Python float for two scalars."""
    if type(a) is float and type(b) is float:
        return a if a >= b else b
    return np.maximum(a, b)


@dataclass(frozen=True, kw_only=True, eq=False)
class Op:
    """Base of all ops. `kind` is a label to group by in reports, never a switch; `math` says what sort of unit can do it.

    `split` says how a tensor-parallel group divides the op: "columns" of the output ("gathered" where every device needs
    all of them afterwards), "rows" of the reduction (the result is then a partial sum that must be all-reduced), "heads",
    "experts", or "none" (every device does all of it).

    `fused`: done by the kernel of a neighbouring op, so that nothing is launched for it. `dynamic`: of another shape at every
    pass, for which some libraries have slower kernels. `neurons`: which of the neurons that it computes are used. `stays`: the
    part of its weights that stays in the memory that it reads them from.

    One device of a stage is simulated for all that do the same. Where they differ (experts), each `rank` has its own op, on a
    device of its own, and `stands_for` is the part of the stage's devices that do just that.
    """

    math: ClassVar[Math] = "vector"

    name: str
    kind: str
    after: tuple[str, ...] = ()
    block: str = ""
    repeat: int = 1
    stage: int = 0
    rank: int = 0
    stands_for: float = 1.0
    microbatch: int = 0
    split: Split = "none"
    stream: str = "bf16"
    fused: bool = False
    dynamic: bool = False
    neurons: Activity | None = None
    stays: Array = 1.0

    @property
    def ops(self) -> Array:
        """Operations."""
        raise NotImplementedError

    @property
    def bytes(self) -> Mapping[str, Array]:
        """Bytes moved per operand."""
        raise NotImplementedError

    @property
    def resident(self) -> Mapping[str, Array]:
        """Bytes that stay in memory for this op, for one repetition."""
        return {}

    @property
    def launches(self) -> int:
        """Kernels that serving software launches for it (recalled from vLLM and SGLang, to one or two)."""
        return 0 if self.fused else 1

    @property
    def workspace(self) -> Array:
        """Bytes of activations alive while the op runs; not added up over ops."""
        return self.bytes.get("activations", 0.0)

    @property
    def precision(self) -> str:
        """Format the arithmetic is done in."""
        return self.stream

    @property
    def op_b(self) -> Array:
        """Arithmetic intensity: operations per byte moved."""
        return self.ops / sum(self.bytes.values())

    @property
    def output_bytes(self) -> Array:
        """Bytes of the result: what an all-reduce after this op has to carry."""
        return 0.0

    def shard(self, ways: int) -> Self:
        """This op's part on one of `ways` devices that split it."""
        if self.split == "none" or ways == 1:
            return self
        return replace(self, **self._part(ways))

    def _part(self, ways: int) -> dict[str, Any]:
        raise NotImplementedError

    def narrowed(self, part: Array) -> Self:
        """The op over a part of its neurons, gathered in a matrix of changing size."""
        return replace(self, dynamic=True, **self._narrow(part))

    def _narrow(self, part: Array) -> dict[str, Any]:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, eq=False)
class Gemm(Op):
    """`groups` independent products (m x k) times (k x n) with weights: 2mkn operations, activations in and out, weights once.

    `tied` weights are resident with another op that uses the same ones. Of the n columns `kv_columns` are keys and values of
    `kv_heads` heads, which are copied rather than divided where there are more devices than heads. `joined`: partial sums are
    added to those of an op that `joins` it, and reduced with them.

    `parts` are the weight matrices that stand side by side in the columns, as fractions of n (query, key and value; gate and up),
    `kept` is the part of each one's weights that pruning left: what was pruned is neither stored nor multiplied. `epilogue`: ops
    that work on the results before they leave the unit; their operations are not counted here.
    """

    math: ClassVar[Math] = "matmul"

    m: Array
    n: Array
    k: Array
    groups: Array = 1.0
    weights: str = "bf16"
    activations: str = "bf16"
    tied: bool = False
    kv_columns: Array = 0.0
    kv_heads: int = 1
    joined: bool = False
    parts: tuple[float, ...] = (1.0,)
    kept: tuple[float, ...] = (1.0,)
    epilogue: tuple[Elementwise, ...] = ()

    @cached_property
    def ops(self) -> Array:
        """2 m n k, for each group, of the weights that were kept."""
        return 2.0 * self.groups * self.m * self.n * self.k * self.density * stored(self.weights)

    @property
    def density(self) -> float:
        """Part of the weights that pruning left."""
        pruned = any(kept != 1.0 for kept in self.kept)
        return sum(part * kept for part, kept in zip(self.parts, self.kept, strict=True)) if pruned else 1.0

    @cached_property
    def bytes(self) -> Mapping[str, Array]:
        """Weights once, activations in and out."""
        moved = self.groups * self.m * self.k * nbytes(self.activations) + self.output_bytes
        return {"weights": self._weight_bytes, "activations": moved}

    @property
    def launches(self) -> int:
        """The product, and a pass that scales activations where each block of them has a scale."""
        return 2 if self.activations not in ("bf16", "fp16", "fp32", "fp8", "int8") else 1

    @property
    def resident(self) -> Mapping[str, Array]:
        """The weights."""
        return {"weights": 0.0 if self.tied else self._weight_bytes}

    @property
    def _weight_bytes(self) -> Array:
        return self.groups * self.n * self.k * nbytes(self.weights) * self.density

    @property
    def output_bytes(self) -> Array:
        """m x n results per group."""
        return self.groups * self.m * self.n * nbytes(self.stream)

    @property
    def precision(self) -> str:
        """The wider of the two operands."""
        return multiplied_in(self.weights, self.activations)

    def _part(self, ways: int) -> dict[str, Any]:
        if self.split == "columns":
            kept = self.kv_columns * max(1 / ways, 1 / self.kv_heads)
            return {"n": (self.n - self.kv_columns) / ways + kept, "kv_columns": kept, "kv_heads": max(1, self.kv_heads // ways)}
        dim = {"gathered": "n", "rows": "k", "heads": "groups"}[self.split]
        return {dim: getattr(self, dim) / ways}

    def _narrow(self, part: Array) -> dict[str, Any]:
        """Neurons are the columns of what goes up and the rows of what comes down."""
        dim = {"columns": "n", "rows": "k"}[self.split]
        return {dim: getattr(self, dim) * part}


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv(Gemm):
    """A convolution as the matrix product that it is: m output pixels of all images, n filters, k = kernel^2 x channels.

    Square maps and kernels; `side` of the output map. `inputs` elements of the input maps are read once, though pixels belong to
    several products. `hwsim.lowering.convolution` makes one from its usual description.
    """

    kernel: int
    side: Array
    inputs: Array

    @cached_property
    def bytes(self) -> Mapping[str, Array]:
        """Weights and input maps once, output maps once."""
        moved = self.groups * self.inputs * nbytes(self.activations) + self.output_bytes
        return {"weights": self._weight_bytes, "activations": moved}


@dataclass(frozen=True, kw_only=True, eq=False)
class Synapses(Gemm):
    """One step of a spiking layer: m streams of k binary inputs times (k x n) weights, of which `active` inputs spike per stream.

    `gated`: only rows of weights whose input spikes are read and added, as an array or an event-driven processor does; otherwise
    all of them are multiplied. `fixed` weights are never trained; inputs that are not `binary` are all read. Weights in "analog"
    cells do not move. A step repeats with the same weights, which are resident once.
    """

    active: Array
    gated: bool = False
    fixed: bool = False
    binary: bool = True

    @cached_property
    def ops(self) -> Array:
        """2 n for each row that is read."""
        return 2.0 * self.m * self.n * (self.active if self.gated else self.k)

    @cached_property
    def bytes(self) -> Mapping[str, Array]:
        """Weights that are read, once for all streams or for each spike; inputs in and sums out."""
        read = self._weight_bytes if not self.gated else self.m * self.active * self.n * nbytes(self.weights)
        moved = self.m * self.k * nbytes(self.activations) + self.output_bytes
        return {"weights": 0.0 * read if self.weights == "analog" else read, "activations": moved}

    @property
    def resident(self) -> Mapping[str, Array]:
        """The weights, for one of the repetitions that share them."""
        return {"weights": self._weight_bytes / self.repeat}

    @property
    def precision(self) -> str:
        """That of the cells, or the wider of the two operands."""
        return "analog" if self.weights == "analog" else super().precision


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionOp(Op):
    """Fused attention over a batch: scores, softmax and context, with Q, K, V and the result moved once (FlashAttention).

    `pairs` query-key pairs over all sequences, `q_tokens` new tokens, `kv_tokens` cached tokens read, `cached_tokens` kept
    afterwards (more than is read where a sliding window keeps all). Per KV head and token `kv_dim` elements are read: K and V,
    or the latent for absorbed MLA. `expanded`: K and V were rebuilt per head (MLA prefill) and are read as activations, while
    the cache holds `cache_width` elements. For MLA `latent` and `rope` are the widths of the latent and of the key that all heads
    share, 0 for other attention. `window` is the sliding window, 0 for none. `blocks` says which part of the query-key pairs a
    block-sparse attention computes, as (context, part) with what lies between interpolated. Left out: softmax's own operations
    (about 5 per pair and head on the vector unit).
    """

    math: ClassVar[Math] = "matmul"

    sequences: Array
    pairs: Array
    q_tokens: Array
    kv_tokens: Array
    cached_tokens: Array
    heads: Array
    kv_heads: Array
    qk_dim: int
    v_dim: int
    kv_dim: int
    cache_width: Array
    window: float = 0.0
    latent: int = 0
    rope: int = 0
    kv: str = "bf16"
    expanded: bool = False
    blocks: tuple[tuple[float, float], ...] = ()

    @property
    def kept(self) -> Array:
        """Part of the query-key pairs that is computed."""
        if not self.blocks:
            return 1.0
        lengths, parts = np.transpose(self.blocks)
        found = np.interp(np.asarray(self.kv_tokens / self.sequences), lengths, parts)
        return float(found) if np.ndim(found) == 0 else found

    @cached_property
    def ops(self) -> Array:
        """2 (qk_dim + v_dim) for each query-key pair and head that is computed."""
        return 2.0 * self.pairs * self.kept * self.heads * (self.qk_dim + self.v_dim)

    @cached_property
    def bytes(self) -> Mapping[str, Array]:
        """Queries in, results out, and the keys and values of all cached tokens."""
        queries = self.q_tokens * self.heads * (self.qk_dim + self.v_dim) * nbytes(self.stream)
        read = self.kv_tokens * self.kv_heads * self.kv_dim
        if self.expanded:
            return {"activations": queries + read * nbytes(self.stream), "kv": 0.0 * read}
        return {"activations": queries, "kv": read * nbytes(self.kv)}

    @property
    def launches(self) -> int:
        """Attention and the write into the cache; for keys and values rebuilt from a latent also two copies that join them."""
        return 4 if self.expanded else 2

    @property
    def resident(self) -> Mapping[str, Array]:
        """The cache after this pass."""
        return {"kv": self.cached_tokens * self.cache_width * nbytes(self.kv)}

    def _part(self, ways: int) -> dict[str, Any]:
        """Heads are divided; a KV head is copied to several devices when there are more devices than KV heads."""
        kept = max(self.kv_heads / ways, 1.0)
        return {"heads": self.heads / ways, "kv_heads": kept, "cache_width": self.cache_width * kept / self.kv_heads}


@dataclass(frozen=True, kw_only=True, eq=False)
class Experts(Op):
    """The routed experts of one layer as a grouped GEMM: gate, up, activation and down of every expert that is hit.

    `chosen[e]` is the probability that a token picks expert e (they add up to top-k), or with `counted` the number of tokens
    that picked it, `chosen[e, d]` in draw d of many. Expert e is hit with probability 1 - (1 - chosen)^tokens (tokens route
    independently), or for certain when `balanced`. An expert without tokens moves no weights. `tied`: resident with another part.
    `joins`: the shared expert, whose partial sums are added before the result is reduced.
    """

    math: ClassVar[Math] = "matmul"

    tokens: Array
    hidden: int
    inner: Array
    matrices: int
    chosen: NDArray[np.float64]
    counted: bool = False
    balanced: bool = False
    weights: str = "bf16"
    activations: str = "bf16"
    tied: bool = False
    joins: tuple[str, ...] = ()

    @property
    def experts(self) -> int:
        """Number of routed experts."""
        return len(self.chosen)

    @cached_property
    def pairs(self) -> Array:
        """(token, expert) pairs."""
        total = self.chosen.sum(axis=0)
        picked: Array = total if self.chosen.ndim > 1 else float(total)
        return picked if self.counted else self.tokens * picked

    @property
    def tokens_per_expert(self) -> NDArray[np.float64]:
        """(Expected) tokens of each expert, experts first; further axes are draws or design points."""
        return self.chosen if self.counted else self._odds * self.tokens

    @property
    def hit(self) -> NDArray[np.float64]:
        """Probability that each expert has at least one token, axes as `tokens_per_expert`."""
        if self.counted or self.balanced:
            return np.minimum(self.tokens_per_expert, 1.0)
        return np.asarray(1.0 - (1.0 - self._odds) ** self.tokens)

    @property
    def _odds(self) -> NDArray[np.float64]:
        """`chosen` with room for the axes of `tokens`."""
        return self.chosen if self.chosen.ndim > 1 else self.chosen.reshape(-1, *[1] * np.ndim(self.tokens))

    @cached_property
    def active(self) -> Array:
        """Expected number of experts with at least one token."""
        if self.chosen.ndim > 1:
            return np.asarray(self.hit.sum(axis=0))
        if self.counted:
            return float(np.count_nonzero(self.chosen))
        if self.balanced:
            fewer: Array = np.minimum(float(np.count_nonzero(self.chosen)), self.pairs)
            return fewer
        # experts of equal odds together: the same sum as `hit`, without an axis of experts
        odds, how_many = np.unique(self.chosen, return_counts=True)
        expected: Array = sum(n * (1.0 - (1.0 - p) ** self.tokens) for p, n in zip(odds.tolist(), how_many.tolist(), strict=True))
        return expected

    @cached_property
    def ops(self) -> Array:
        """2 x matrices x hidden x inner for each (token, expert) pair."""
        return 2.0 * self.matrices * self.pairs * self.hidden * self.inner

    @cached_property
    def bytes(self) -> Mapping[str, Array]:
        """Weights of the experts that are hit; tokens in and out of every matrix."""
        into = self.pairs * (self.hidden + self.inner) * nbytes(self.activations)
        # gated: gate and up are written and read by the activation; plain: up is written and read
        between = (2 * self.matrices - 3) * self.inner
        out = self.pairs * (self.hidden + between) * nbytes(self.stream)
        return {"weights": self.active * self.weight_bytes_per_expert, "activations": into + out}

    @property
    def launches(self) -> int:
        """Top-k, sorting of tokens, two products with an activation between, the sum; two passes that scale activations."""
        return 6 if self.activations in ("bf16", "fp16", "fp32") else 8

    @property
    def resident(self) -> Mapping[str, Array]:
        """All experts, hit or not."""
        return {"weights": 0.0 if self.tied else self.experts * self.weight_bytes_per_expert}

    @property
    def weight_bytes_per_expert(self) -> Array:
        """All matrices of one expert."""
        return self.matrices * self.hidden * self.inner * nbytes(self.weights)

    @property
    def output_bytes(self) -> Array:
        """One row per token: the results of its experts are added up before they leave the device."""
        return self.tokens * self.hidden * nbytes(self.stream)

    @property
    def precision(self) -> str:
        """The wider of the two operands."""
        return multiplied_in(self.weights, self.activations)

    def _part(self, ways: int) -> dict[str, Any]:
        return {"inner": self.inner / ways}

    def dealt(self, ranks: int) -> list[Experts]:
        """The experts dealt round-robin over `ranks` expert-parallel devices; devices with equal hands are one op."""
        hands: dict[bytes, list[int]] = {}
        for rank in range(ranks):
            hands.setdefault(self.chosen[rank::ranks].tobytes(), []).append(rank)
        if len(hands) == 1:
            return [replace(self, chosen=self.chosen[::ranks])]
        return [
            replace(
                self,
                name=f"{self.name}.rank{alike[0]}",
                rank=alike[0],
                stands_for=len(alike) / ranks,
                chosen=self.chosen[alike[0] :: ranks],
            )
            for alike in hands.values()
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Elementwise(Op):
    """Norms, rotary embedding, activations, residual adds: `read` + `written` elements and `work` operations per token.

    `passes` is how many elements per token go through a unit that does one thing at a time (add, multiply, look up a function,
    reduce); 0 where that is not known. `whole`: the first result needs all elements of a token (norms).
    """

    tokens: Array
    read: Array
    written: Array
    work: Array
    passes: Array = 0.0
    whole: bool = False

    @cached_property
    def ops(self) -> Array:
        """`work` per token."""
        return self.tokens * self.work

    @cached_property
    def bytes(self) -> Mapping[str, Array]:
        """`read` + `written` elements per token."""
        return {"activations": self.tokens * (self.read + self.written) * nbytes(self.stream)}

    @property
    def output_bytes(self) -> Array:
        """`written` elements per token."""
        return self.tokens * self.written * nbytes(self.stream)

    def _part(self, ways: int) -> dict[str, Any]:
        return {name: getattr(self, name) / ways for name in ("read", "written", "work", "passes")}

    def _narrow(self, part: Array) -> dict[str, Any]:
        return {name: getattr(self, name) * part for name in ("read", "written", "work", "passes")}


@dataclass(frozen=True, kw_only=True, eq=False)
class Counters(Elementwise):
    """Spike counters of a layer: `fired` of its neurons count up in a step; all are added to where that is not `gated`."""

    fired: Array
    gated: bool = False

    def only_fired(self) -> Counters:
        """The same, touching only the counters of neurons that fired."""
        return replace(self, gated=True, read=self.fired, written=self.fired, work=self.fired)


@dataclass(frozen=True, kw_only=True, eq=False)
class Lookup(Op):
    """Embedding: one row of `width` elements per token out of a table of `rows`. A tied table is resident with the LM head."""

    tokens: Array
    width: Array
    rows: Array
    weights: str = "bf16"
    tied: bool = False

    @property
    def ops(self) -> Array:
        """A look-up computes nothing."""
        return 0.0 * self.tokens

    @cached_property
    def bytes(self) -> Mapping[str, Array]:
        """One row of the table per token, in and out."""
        row = self.tokens * self.width
        return {"weights": row * nbytes(self.weights), "activations": self.output_bytes}

    @property
    def resident(self) -> Mapping[str, Array]:
        """The table, unless the LM head holds it."""
        return {"weights": 0.0 if self.tied else self.rows * self.width * nbytes(self.weights)}

    @property
    def output_bytes(self) -> Array:
        """One row per token."""
        return self.tokens * self.width * nbytes(self.stream)

    def _part(self, ways: int) -> dict[str, Any]:
        return {"width": self.width / ways}


@dataclass(frozen=True, kw_only=True, eq=False)
class Move(Op):
    """Bytes over a link: `sent` per device in one direction, in `hops` dependent steps that each pay the link's latency.

    `ranks` devices take part; `span` is how many neighbouring devices the group reaches over and decides which link carries it.
    `message` is the whole result of a gather or reduction, all that one device sends and keeps otherwise.
    """

    math: ClassVar[Math] = "move"

    message: Array
    sent: Array
    hops: float
    ranks: int
    span: int

    @property
    def ops(self) -> Array:
        """A move computes nothing."""
        return 0.0 * self.sent

    @property
    def bytes(self) -> Mapping[str, Array]:
        """What leaves and what arrives, both in this device's memory."""
        return {"activations": 2.0 * self.sent}


@dataclass(frozen=True, kw_only=True, eq=False)
class Load(Op):
    """Weights from one memory of a device into another, `moved` bytes in requests of `chunk` bytes, one after another if 0.

    `held` bytes stay where they are read. What arrives fills one of `buffers`: two where others use the one before meanwhile.
    """

    math: ClassVar[Math] = "move"

    moved: Array
    chunk: Array = 0.0
    held: Array = 0.0
    buffers: float = 1.0

    @property
    def ops(self) -> Array:
        """A load computes nothing."""
        return 0.0 * self.moved

    @property
    def bytes(self) -> Mapping[str, Array]:
        """What is read, as weights, and what arrives, which others use."""
        return {"weights": self.moved, "activations": self.moved}

    @property
    def resident(self) -> Mapping[str, Array]:
        """What stays where it is read."""
        return {"weights": self.held}

    @property
    def workspace(self) -> Array:
        """All buffers."""
        return self.moved * self.buffers

    @property
    def launches(self) -> int:
        """None: no kernel."""
        return 0


@dataclass(frozen=True, kw_only=True, eq=False)
class MapOp(Op):
    """An op on feature maps: `inputs` maps of `channels` x `rows` x `columns` in, `filters` x `rows_out` x `columns_out` out.

    Every result sees a window of `kernel` (rows, columns) pixels of its group's channels, moved by `stride`; a dense layer is a
    window on a map of one pixel. `padding` is (top, bottom, left, right), and what lies outside is not computed with less work.
    `source` names the op that makes the map it reads ("" for the image), `joined` the one of a second map. While it runs,
    `held` bytes of other maps and of the runtime are alive besides its own, and `buffer` bytes of its kernel. Its result is a map
    of its own, overwrites its input by way of one `channel`, or goes into a map that is alive anyway ("none").
    """

    images: Array = 1.0
    channels: Array
    rows: Array
    columns: Array
    filters: Array
    rows_out: Array
    columns_out: Array
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    inputs: int = 1
    source: str = ""
    joined: str = ""
    activations: str = "int8"
    stream: str = "int8"
    held: Array = 0.0
    buffer: Array = 0.0
    written: Literal["map", "channel", "none"] = "map"

    @property
    def precision(self) -> str:
        """The wider of what is read and what is written."""
        return multiplied_in(self.activations, self.stream)

    @property
    def results(self) -> Array:
        """Elements of the map that is written."""
        return self.images * self.filters * self.rows_out * self.columns_out

    @property
    def ops(self) -> Array:
        """One for every pixel that a result sees."""
        return self.results * self.kernel[0] * self.kernel[1] * self.inputs

    @property
    def input_bytes(self) -> Array:
        """Bytes of the maps that are read."""
        return self.images * self.inputs * self.channels * self.rows * self.columns * nbytes(self.activations)

    @property
    def output_bytes(self) -> Array:
        """Bytes of the map that is written."""
        return self.results * nbytes(self.stream)

    @property
    def bytes(self) -> Mapping[str, Array]:
        """Maps in and out, once."""
        return {"activations": self.input_bytes + self.output_bytes}

    @property
    def workspace(self) -> Array:
        """Input, output unless it overwrites another map, and what else is alive."""
        channels = {"map": 1.0, "channel": 1.0 / self.filters, "none": 0.0}[self.written]
        return self.input_bytes + self.output_bytes * channels + self.held + self.buffer


@dataclass(frozen=True, kw_only=True, eq=False)
class Convolution(MapOp):
    """A convolution, depthwise where every channel is a group, or a dense layer; 2 operations for each weight and result.

    `weights` of `weight_count` elements, `stored` bytes beside them (biases, scales, the code of the runtime); `tied` weights
    are resident with another op that uses the same ones (tiles of one map).
    """

    math: ClassVar[Math] = "matmul"

    weights: str = "int8"
    stored: Array = 0.0
    tied: bool = False

    @property
    def weight_count(self) -> Array:
        """Weights of all filters."""
        return self.filters * self.kernel[0] * self.kernel[1] * self.channels / self.groups

    @property
    def macs(self) -> Array:
        """Multiply-accumulates."""
        return self.images * self.rows_out * self.columns_out * self.weight_count

    @property
    def ops(self) -> Array:
        """Two for each multiply-accumulate."""
        return 2.0 * self.macs

    @property
    def bit_operations(self) -> Array:
        """BitOPs: multiply-accumulates x bits of the weights x bits of the map that is read."""
        return self.macs * nbytes(self.weights) * nbytes(self.activations) * 64.0

    @property
    def bytes(self) -> Mapping[str, Array]:
        """Weights once, maps in and out once."""
        return {"weights": self.weight_count * nbytes(self.weights), "activations": self.input_bytes + self.output_bytes}

    @property
    def resident(self) -> Mapping[str, Array]:
        """The weights and what is stored beside them."""
        return {"weights": 0.0 if self.tied else self.weight_count * nbytes(self.weights) + self.stored}

    @property
    def precision(self) -> str:
        """The wider of the two operands."""
        return multiplied_in(self.weights, self.activations)
