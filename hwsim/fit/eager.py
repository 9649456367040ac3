"""A transformer as eager PyTorch runs it in fp32: every kernel of a forward or a backward pass, none fused.

Attention is written out (transformers' "eager" attention): a batched product, a division, a mask, a softmax, a batched product,
and copies that bring the heads of queries, keys and values together and apart. GPT-2's GELU is eight kernels, BERT's is one.

    forward, one layer   GEMMs of T x h by h x 3h, h x h, h x f, f x h; B H products of S x D by D x S and of S x S by S x D
    backward of a GEMM   two GEMMs: its input's gradient (m x k over n) and its weight's (n x k over m)
    backward of a stream a kernel of 3/2 of its bytes: reads the gradient and what was kept, writes a gradient
    gradients            are added up in place: three times the bytes of the parameters; no optimiser's step

B sequences of S tokens, T = B S, H heads of D = h / H, f the inner width. `fused` is the limit of what torch.compile can do: a
chain of elementwise kernels is one that reads its inputs and writes its output once, what stands before a softmax or norm is part
of it; GEMMs and batched products stay. Training has dropout, which writes a mask of a byte per element. Sums need no backward
kernel and are given one, for the reductions of bias and norm gradients that are not listed.

From: the modules of Hugging Face's BERT and GPT-2, recalled; the heads (a classifier for BERT's inference, its pre-training head
for training, the LM head for GPT), fp32 without TF32 and what the timer spans (forward and backward, no optimiser), as the
table's source makes them: sitar-lab/NeuSight, neusight/Tracing/trace.py. Left out: memory allocation. The benchmark empties
PyTorch's cache before every pass; a training pass, which keeps its activations, then waits for the driver at every tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from hwsim.fit.queue import Kernel
from hwsim.kernels.vector import OPERATIONS
from hwsim.op import Array

_SIZE = 4.0
_MASK = 1.0


@dataclass(frozen=True, eq=False)
class Net:
    """Shapes of a network, numbers or arrays of one per row: `causal` is GPT-2's layer and LM head, else BERT's."""

    layers: Array
    hidden: Array
    heads: Array
    inner: Array
    vocab: Array
    causal: bool


@dataclass(frozen=True, eq=False)
class Pass:
    """What runs: `batch` sequences of `seq` tokens, in training or not, compiled or not."""

    batch: Array
    seq: Array
    train: bool = False
    fused: bool = False

    @property
    def tokens(self) -> Array:
        """Tokens of the pass."""
        return self.batch * self.seq


def forward(net: Net, run: Pass) -> list[Kernel]:
    """Kernels of one forward pass, those of all layers folded by their count."""
    layer = [*_attention(net, run), *_feed_forward(net, run)]
    return [*_embedding(net, run), *(replace(one, count=one.count * net.layers) for one in layer), *_head(net, run)]


def backward(net: Net, run: Pass) -> list[Kernel]:
    """Kernels of the backward pass of `forward`, without the optimiser's step."""
    found = [one for kernel in forward(net, run) for one in _gradients(kernel)]
    parameters = net.layers * (4.0 * net.hidden**2 + 2.0 * net.hidden * net.inner) + net.vocab * net.hidden
    return [*found, _stream("sum", parameters, 3.0)]


def _gradients(kernel: Kernel) -> Iterator[Kernel]:
    """The kernels that go back over one of the forward pass."""
    shape = kernel.arguments
    if kernel.family == "gemm":
        m, n, k = shape["m"], shape["n"], shape["k"]
        yield replace(kernel, arguments={**shape, "n": k, "k": n})
        yield replace(kernel, arguments={**shape, "m": n, "n": k, "k": m})
    else:
        yield replace(kernel, arguments={**shape, "bytes": 1.5 * shape["bytes"]})


def _embedding(net: Net, run: Pass) -> Iterator[Kernel]:
    """Look-ups of words and positions (and of segments in BERT), added up."""
    size, tables = run.tokens * net.hidden, 2.0 if net.causal else 3.0
    yield replace(_stream("copy", size, 2.0), count=tables)
    yield replace(_stream("sum", size, 3.0), count=tables - 1.0)
    yield from _dropout(size, run)
    if not net.causal:
        yield _norm(net, run)


def _attention(net: Net, run: Pass) -> Iterator[Kernel]:
    """Projections, scores, weighted sum; queries, keys, values and the result are copied from one order of heads to another."""
    size, pairs, depth = run.tokens * net.hidden, run.batch * net.heads, net.hidden / net.heads
    if net.causal:
        yield _norm(net, run)
        yield _linear(run.tokens, 3.0 * net.hidden, net.hidden)
    else:
        yield replace(_linear(run.tokens, net.hidden, net.hidden), count=3.0)
    yield replace(_stream("copy", size, 2.0), count=4.0)
    yield _batched(pairs, run.seq, run.seq, depth)
    yield from _weights(pairs * run.seq**2, pairs * run.seq, run)
    yield _batched(pairs, run.seq, depth, run.seq)
    yield _linear(run.tokens, net.hidden, net.hidden)
    yield from _residual(net, run)


def _weights(scores: Array, rows: Array, run: Pass) -> Iterator[Kernel]:
    """Scores are divided, masked (the mask is one for all heads) and made to sum to 1 in each row."""
    if not run.fused:
        yield replace(_stream("scale", scores, 2.0), count=2.0)
    yield _stream("softmax", scores, 2.0, rows)
    yield from _dropout(scores, run)


def _feed_forward(net: Net, run: Pass) -> Iterator[Kernel]:
    """The two matrices of the feed-forward network and its activation."""
    if net.causal:
        yield _norm(net, run)
    yield _linear(run.tokens, net.inner, net.hidden)
    yield from _activation(run.tokens * net.inner, net.causal and not run.fused)
    yield _linear(run.tokens, net.hidden, net.inner)
    yield from _residual(net, run)


def _activation(size: Array, written_out: bool) -> Iterator[Kernel]:
    """GELU; as x / 2 (1 + tanh(c (x + a x^3))): a power, a tanh, four scalings and shifts, a sum and a product of two tensors."""
    if not written_out:
        yield _stream("gelu", size, 2.0)
        return
    yield _stream("pow", size, 2.0)
    yield _stream("tanh", size, 2.0)
    yield replace(_stream("scale", size, 2.0), count=4.0)
    yield replace(_stream("sum", size, 3.0), count=2.0)


def _residual(net: Net, run: Pass) -> Iterator[Kernel]:
    """The sum with the layer's input, then BERT's norm."""
    yield from _dropout(run.tokens * net.hidden, run)
    if net.causal or not run.fused:
        yield _stream("sum", run.tokens * net.hidden, 3.0)
    if not net.causal:
        yield _norm(net, run)


def _head(net: Net, run: Pass) -> Iterator[Kernel]:
    """Logits of every token from GPT-2 and from BERT in training; BERT's classifier reads one token and is left out."""
    if net.causal:
        yield _norm(net, run)
    elif run.train:
        yield _linear(run.tokens, net.hidden, net.hidden)
        yield _stream("gelu", run.tokens * net.hidden, 2.0)
        yield _norm(net, run)
    if net.causal or run.train:
        yield _linear(run.tokens, net.vocab, net.hidden)


def _dropout(size: Array, run: Pass) -> Iterator[Kernel]:
    if run.train:
        yield _stream("scale", size, 2.0 + _MASK / _SIZE)


def _norm(net: Net, run: Pass) -> Kernel:
    return _stream("norm", run.tokens * net.hidden, 2.0, run.tokens)


def _stream(kind: str, size: Array, tensors: float, rows: Array = 0.0) -> Kernel:
    """An elementwise kernel, norm or softmax of `size` elements that reads and writes `tensors` of that size."""
    stack = f"pytorch-{kind if kind in ('norm', 'softmax') else 'elementwise'}"
    return Kernel("vector", stack, "fp32", {"bytes": _SIZE * tensors * size, "ops": OPERATIONS[kind] * size, "rows": rows})


def _linear(m: Array, n: Array, k: Array) -> Kernel:
    return _product("fp32", {"m": m, "n": n, "k": k})


def _batched(groups: Array, m: Array, n: Array, k: Array) -> Kernel:
    return _product("fp32_bmm", {"m": m, "n": n, "k": k, "groups": groups})


def _product(format: str, shape: Mapping[str, Array]) -> Kernel:
    return Kernel("gemm", "pytorch", format, {**shape, "a_bytes": _SIZE, "w_bytes": _SIZE, "o_bytes": _SIZE})
