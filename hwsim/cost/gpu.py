"""Measured GPUs: kernel models fitted on an architecture generation, picked by what the op is; a roofline where none was fitted.

    alone = max(seconds of the kernel, bytes / datasheet bandwidth, operations / datasheet peak)        energy: cost/power.py

The kernel's own account of tiles, waves and caches decides its time; the traffic that other units see is that of the op. An
attention op is priced as equal sequences that have its tokens and its query-key pairs, experts as classes of equal load. A format
that was not measured takes the numbers of the nearest one, and says so. In a network every layer has its
own weights and cache, which pass through the L2 before they are used again: nothing of them survives (`copies` infinite,
`resident` 0). Collectives over the link between neighbours (NVLink) are those of the library; over others, a link's latency and
bandwidth. Left out: vector ops, whose models are per kind of kernel and library; they are priced as rooflines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.cost.chips import chip_of, nearest, sustained
from hwsim.cost.link import transfer
from hwsim.cost.roofline import roofline
from hwsim.cost.terms import Cost
from hwsim.device import Device, Unit
from hwsim.errors import InputError
from hwsim.formats import bits, group, nbytes
from hwsim.kernels.attention_decode import attention_decode
from hwsim.kernels.attention_prefill import attention_prefill
from hwsim.kernels.chip import Chip
from hwsim.kernels.collective import collective
from hwsim.kernels.gemm import gemm
from hwsim.kernels.low_bit import low_bit
from hwsim.kernels.mla_decode import mla_decode
from hwsim.kernels.mla_prefill import mla_prefill
from hwsim.kernels.moe import moe
from hwsim.kernels.sets import KernelSet, choose
from hwsim.op import Array, AttentionOp, Conv, Experts, Gemm, Move, Op, larger

KERNELS: Mapping[str, Callable[..., Array]] = {
    function.__name__: function for function in (gemm, low_bit, attention_decode, attention_prefill, mla_decode, mla_prefill, moe)
}
_COLLECTIVES = {"all_to_all": "alltoall", "send": "send_recv"}
# whose parameters stand in for a format that was not measured: the same arithmetic first
_NEAR = {
    "bf16": ("fp16", "fp32"), "fp16": ("bf16", "fp32"), "fp32": ("fp16", "bf16"), "fp8": ("int8", "fp8_block"),
    "int8": ("fp8", "fp8_block"), "fp8_block": ("fp8",), "nvfp4": ("fp8",), "mxfp4": ("nvfp4", "fp8"),
    "int4": ("nvfp4", "int8", "fp8"), "int4_int8": ("int8", "fp8", "fp8_block"),
    "fp8_wo": ("int8_wo", "bf16"), "int8_wo": ("bf16",), "int4_wo": ("bf16",),
    "int3_wo": ("int4_wo", "bf16"), "int2_wo": ("int4_wo", "bf16"),
    "int4_24_wo": ("int4_wo", "bf16"), "mxfp4_wo": ("int4_wo", "bf16"),
    "nvfp4_wo": ("int4_wo", "bf16"), "fp8_bf16": ("bf16",), "int8_bf16": ("bf16",), "int4_bf16": ("mxfp4_bf16", "bf16"),
    "mxfp4_bf16": ("bf16",), "nvfp4_bf16": ("mxfp4_bf16", "bf16"), "fp8kv": ("bf16",),
}  # fmt: skip
# eight equally likely values of a normal variable of mean 0 and variance 1
_SPREAD = np.array([-1.663, -0.9617, -0.5298, -0.1705, 0.1705, 0.5298, 0.9617, 1.663])
_SIXTEEN = ("bf16", "fp16", "fp32")


@dataclass(frozen=True)
class Call:
    """A kernel to price: its family, the number format of its parameter set, the one it multiplies in, and its shape.

    `otherwise`: what runs where the stack has no kernel of that family.
    """

    family: str
    format: str
    peak: str
    arguments: Mapping[str, Any]
    when: Array = 1.0  # 0 where another kernel does it
    otherwise: Call | None = None
    launches: int = 0  # plain kernels that a graph launches for it; 0: as it was measured


def gpu(op: Op, name: str, unit: Unit, device: Device, home: Mapping[str, str]) -> Cost:
    """Cost of `op` on a unit of a GPU."""
    cost = roofline(op, name, unit, device, home)
    priced = [(call, found) for call in running(op, device) if (found := _priced(call, device)) is not None]
    if not priced:
        return cost
    first, (_, format) = priced[0]
    seconds = either([(call, seconds) for call, (seconds, _) in priced])
    precision = unit.precision_for(op.precision) or op.precision
    method = f"kernel {first.family}" + ("" if format == first.format else f" as {format}")
    return _taking(larger(seconds, op.ops / unit.peak[precision]), cost, device, method)


def running(op: Op, device: Device) -> list[Call]:
    """The kernels that may do an op with the device's software."""
    return [_of_the_stack(call, device) for call in called(op)]


def _of_the_stack(call: Call, device: Device) -> Call:
    if call.otherwise is None or any(nearest_sets(device, call.family, device.stack, call.format)):
        return call
    return call.otherwise


def either(values: Sequence[tuple[Call, Array]]) -> Array:
    """What the kernel that does it gives: the first, or a later one `when` that does it."""
    (_, found), *others = values
    for call, other in others:
        found = np.where(call.when, other, found)
    return found


def nearest_sets(device: Device, family: str, stack: str, format: str) -> Iterator[tuple[KernelSet, str]]:
    """Parameter sets for a number format, the nearest that was measured first, and that format."""
    for name in (format, *_NEAR.get(format, ())):
        chosen = choose(device.kernels.get(family, ()), stack, name)
        if chosen is not None:
            yield chosen, name


def _priced(call: Call, device: Device) -> tuple[Array, str] | None:
    """Seconds of a kernel by the nearest number format that was measured, and that format."""
    for chosen, format in nearest_sets(device, call.family, device.stack, call.format):
        rates = sustained if call.family == "low_bit" else chip_of
        chip = rates(device, "fp8" if chosen.parameters.get("matrix_bits") == 8 else call.peak)
        if chip:
            return _seconds(call, _in_a_graph(chosen, call.launches, device), chip), format
    return None


def _in_a_graph(chosen: KernelSet, launches: int, device: Device) -> KernelSet:
    """The set of a quantised linear layer as a network runs it, launched like the stack's 16-bit kernels.

    One launch where static scales let the kernel before it (norm, activation) leave its operands quantised, two with a quantise
    pass of its own. The measured calls did more around it: dynamic scales, hosts that could not keep up.
    """
    plain = choose(device.kernels.get("gemm", ()), device.stack, "bf16") if launches else None
    if plain is None:
        return chosen
    key = ("in a graph", id(chosen), launches)
    if key not in device.remembered:
        quantised = {"passes": 0.0, "row": 0.0} if launches == 1 else {}
        launch = min(chosen.parameters["launch"], launches * plain.parameters["launch"])
        device.remembered[key] = replace(chosen, parameters={**chosen.parameters, **quantised, "launch": launch})
    found: KernelSet = device.remembered[key]
    return found


def measured_transfer(op: Move, name: str, device: Device) -> Cost:
    """Cost of a move over the link `name`: by the collectives measured between neighbours, elsewhere by the link alone."""
    link = device.links[name]
    cost = transfer(op, name, link, device.memories[link.memory])
    named = _COLLECTIVES.get(op.kind, op.kind)
    chosen = choose(device.kernels.get("collective", ()), device.stack, named)
    chip = chip_of(device, "fp4") if chosen else None  # any peak does: it computes nothing
    if chosen is None or chip is None or link is not nearest(device):
        return cost
    both = float(max(op.ranks, 2))  # a send names one rank, and has a receiver
    seconds = collective(name=named, bytes=op.message, devices=both, chip=chip, p=chosen.parameters)
    return _taking(seconds, cost, device, "link collective")


def _taking(seconds: Array, cost: Cost, device: Device, method: str) -> Cost:
    """`cost` with another time: bytes at the rate that fills it where the roofline is bound by memory, arithmetic where not."""
    peak = {memory: device.memories[memory].bandwidth for memory in cost.traffic}
    if type(seconds) is float and type(cost.memory_s) is float and type(cost.busy_s) is float:
        streams = cost.memory_s >= cost.busy_s
        limit = {m: min(b / seconds, peak[m]) if streams and b else peak[m] for m, b in cost.traffic.items()}
        return replace(cost, fixed_s=0.0, busy_s=min(cost.busy_s, seconds) if streams else seconds, limit=limit, method=method)
    bound = np.greater_equal(cost.memory_s, cost.busy_s)
    limit = {m: np.where(bound & np.greater(b, 0.0), np.minimum(b / seconds, peak[m]), peak[m]) for m, b in cost.traffic.items()}
    return replace(
        cost, fixed_s=0.0, busy_s=np.where(bound, np.minimum(cost.busy_s, seconds), seconds), limit=limit, method=method
    )


def _seconds(call: Call, chosen: KernelSet, chip: Chip) -> Array:
    try:
        return _asked(call, chosen, chip)
    except (ArithmeticError, KeyError) as error:
        accepted = "numbers that the family can compute with"
        raise InputError(f"kernels.{call.family}: {chosen.fitted[:60]!r}: {error!r}; accepted: {accepted}") from error


def _asked(call: Call, chosen: KernelSet, chip: Chip) -> Array:
    arguments = tuple(sorted(call.arguments.items()))
    if chip.plain and all(isinstance(value, float | int) for _, value in arguments):
        return _remembered(call.family, chosen, chip, arguments)
    return KERNELS[call.family](**call.arguments, chip=chip, p=chosen.parameters)


@lru_cache(maxsize=65536)
def _remembered(family: str, chosen: KernelSet, chip: Chip, arguments: tuple[tuple[str, float], ...]) -> float:
    """Layers and steps ask for the same shapes again and again."""
    return float(KERNELS[family](**dict(arguments), chip=chip, p=chosen.parameters))


@singledispatch
def called(op: Op) -> list[Call]:
    """The kernels that may do an op; none for those without a kernel model."""
    return []


@called.register
def _(op: Gemm) -> list[Call]:
    """A plain product, or where weights are integers a kernel that unpacks them, if the stack has one."""
    weight_only = op.activations in _SIXTEEN and bits(op.weights) < 16
    name = _product(op.weights, op.activations)
    block = op.weights == "fp8_block"  # scales lie beside the tiles: a step of the main loop is 128 whole elements
    shape = {
        "m": op.m, "n": op.n, "k": op.k, "groups": op.groups, "a_bytes": nbytes(op.activations) * _read_once(op),
        "w_bytes": nbytes("fp8" if block else op.weights), "o_bytes": nbytes(op.stream),
    }  # fmt: skip
    peak = op.activations if weight_only else op.precision
    launches = 0 if name in _SIXTEEN or weight_only else 1 if name in ("fp8", "int8") else 2
    plain = Call("gemm", name, peak, shape | {"scaled": 128.0 if block else float("inf")}, launches=launches)
    if not op.weights.startswith("int"):
        return [plain]
    return [Call("low_bit", name, peak, shape | {"group": float(group(op.weights) or "inf")}, otherwise=plain)]


def _read_once(op: Gemm) -> Array:
    """Elements that a product reads over those that it multiplies: pixels of a convolution belong to several rows."""
    return op.inputs / (op.m * op.k) if isinstance(op, Conv) else 1.0


def _product(weights: str, activations: str) -> str:
    """The name of a kind of product in parameter sets: int4_wo, int4_24_wo (2:4 sparse), int4_int8, int8, fp8_block ..."""
    plain, read = (name.split("_", maxsplit=1)[0] for name in (weights, activations))
    if activations in _SIXTEEN and bits(weights) < 16:
        return f"{plain}_24_wo" if weights.endswith("_24") else f"{plain}_wo"
    if plain.startswith("int") and read.startswith("int"):
        return plain if plain == read else f"{plain}_{read}"
    return weights


@called.register
def _(op: AttentionOp) -> list[Call]:
    """Sequences of unequal length become equal ones that have as many new tokens, cached tokens and query-key pairs together."""
    few, new = _equal(op)
    name = "fp8" if bits(op.kv) <= 8 else "bf16"
    shape = {"batch": few, "kv_len": op.kv_tokens / few, "heads": op.heads, "resident": 0.0}
    latent = {"latent": float(op.latent), "rope": float(op.rope)}
    if op.expanded:
        per_head = {"nope": float(op.qk_dim - op.rope), "value": float(op.v_dim), "q_len": new}
        return [Call("mla_prefill", name, "bf16", shape | latent | per_head)]
    if op.latent:  # absorbed: one latent for all heads
        return [Call("mla_decode", name, "bf16", shape | latent | {"kv_bytes": nbytes(op.kv)})]
    shape |= {"kv_heads": op.kv_heads, "head_dim": float(op.qk_dim), "kv_bytes": nbytes(op.kv), "window": op.window}
    decoding = np.less_equal(op.q_tokens, op.sequences)
    decode = Call("attention_decode", name, "bf16", shape, decoding)
    prefill = Call("attention_prefill", "fp8kv" if name == "fp8" else name, "bf16", shape | {"q_len": new})
    return [decode] if np.all(decoding) else [prefill, decode] if np.any(decoding) else [prefill]


def _equal(op: AttentionOp) -> tuple[Array, Array]:
    """How many equal causal sequences, and their new tokens: q new ones of kv have q kv - q (q - 1) / 2 pairs.

    An encoder's sequences count as half as many of twice the length. A window bounds the pairs, so that the mean stands there.
    """
    few = larger(op.sequences, 1e-9)
    if op.window:
        return few, op.q_tokens / few
    tokens = larger(op.q_tokens, 1e-9)
    new = larger((op.pairs / tokens - 0.5) / (op.kv_tokens / tokens - 0.5), 1.0)
    return tokens / new, new


@called.register
def _(op: Experts) -> list[Call]:
    """Experts of equal load are one class; the first axis is that of the classes."""
    classes, first, count = np.unique(op.tokens_per_expert, axis=0, return_index=True, return_counts=True)
    hit = op.hit[first]
    load, many = classes / np.maximum(hit, 1e-12), count.reshape(-1, *[1] * (classes.ndim - 1)) * hit
    if not (op.counted or op.balanced) and len(load) < len(_SPREAD):  # many different means spread by themselves
        load, many = _scattered(op, classes, hit), np.repeat(many / len(_SPREAD), len(_SPREAD), axis=0)
    sixteen = op.activations in _SIXTEEN
    name = op.weights if not sixteen or op.weights in _SIXTEEN else f"{op.weights.split('_', maxsplit=1)[0]}_bf16"
    return [Call(
        "moe", name, op.activations if sixteen else op.precision,
        {
            "load": load, "count": many, "tokens": op.tokens, "topk": op.pairs / op.tokens, "hidden": float(op.hidden),
            "inter": op.inner, "matrices": float(op.matrices), "local": float(op.experts),
            "weight_bytes": nbytes(op.weights), "activation_bytes": nbytes(op.activations),
        },
    )]  # fmt: skip


def _scattered(op: Experts, expected: NDArray[np.float64], hit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Loads of experts that are hit as tokens scatter them, eight for each class: else all of them fill a tile at once.

    Tokens choose on their own, so that an expert's number of them is binomial; given that it has any, of mean E / hit and
    variance (E (1 - E / tokens) + E^2) / hit - (E / hit)^2. No expert that is hit has less than one.
    """
    mean = expected / np.maximum(hit, 1e-12)
    square = (expected * (1.0 - expected / op.tokens) + expected**2) / np.maximum(hit, 1e-12)
    reach = np.minimum(np.sqrt(np.maximum(square - mean**2, 0.0)), np.maximum(mean - 1.0, 0.0) / _SPREAD[-1])
    steps = np.reshape(_SPREAD, (-1, *[1] * (mean.ndim - 1)))
    return np.concatenate([one + steps * far for one, far in zip(mean, reach, strict=True)])
