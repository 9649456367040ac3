"""Spiking and recurrent networks of events -> ops: encoders stepped through time, counters, a trained head.

Per encoder and step (a block repeated `steps` times, since the recurrence makes steps serial):
    synapses ((inputs + neurons) x neurons, binary) -> neuron (leak, add, compare, reset) -> count
then the head: one linear layer per encoder into a common space, with GELU and normalisation ("projection"), or a linear readout.

Training adds the backward pass of what is trained, operations as in backpropagation: gradients of weights (as many as forward),
of the inputs of a layer where something trained lies before it, and of the loss. An encoder that is trained is unrolled through
time. With `fixed` encoders only the head has a backward pass. Left out: the optimiser's update, dropout, data loading, retrieval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from hwsim.lowering.fields import Fields
from hwsim.op import Array, Counters, Elementwise, Gemm, Op, Synapses

Cell = Literal["lif", "rnn"]
Head = Literal["readout", "projection"]
NEURON_WORK = {"lif": 5, "rnn": 2}  # scale, leak, reset, add, compare; add, tanh
_FORMATS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_ENCODER = ("name", "inputs", "neurons", "steps", "decay", "threshold", "scale", "weight_std", "density")


@dataclass(frozen=True)
class Encoder:
    """A recurrent layer of `neurons` on `inputs` channels over `steps`; weights are `scale` times draws of `weight_std`.

    `density` is the part of inputs that spike in a step of the synthetic streams that stand in for the recordings.
    """

    name: str
    inputs: int
    neurons: int
    steps: int
    decay: float
    threshold: float
    scale: float
    weight_std: float
    density: float

    @property
    def rows(self) -> int:
        """Inputs and recurrent inputs of a neuron."""
        return self.inputs + self.neurons

    @property
    def weights(self) -> int:
        """Input and recurrent weights."""
        return self.rows * self.neurons

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one stream when every row is multiplied."""
        return self.weights * self.steps


@dataclass(frozen=True)
class SpikingNetwork:
    """Encoders side by side, each with a head of its own into `outputs` numbers; `fixed` encoders are never trained."""

    name: str
    encoders: tuple[Encoder, ...]
    outputs: int
    head: Head
    cell: Cell = "lif"
    fixed: bool = True
    format: str = "fp16"
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def head_parameters(self) -> int:
        """Weights and biases of the heads."""
        return sum((encoder.neurons + 1) * self.outputs for encoder in self.encoders)

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.head_parameters + sum(encoder.weights for encoder in self.encoders)

    @property
    def trainable_parameters(self) -> int:
        """Those that training changes."""
        return self.head_parameters if self.fixed else self.parameters

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one sample of each modality, encoders only, every row multiplied."""
        return sum(encoder.macs for encoder in self.encoders)


@dataclass(frozen=True, eq=False)
class Activity:
    """Mean spikes per stream and step: of the inputs, those read back by the reservoir, and those counted."""

    inputs: Array
    neurons: Array
    counted: Array


def is_spiking(raw: Mapping[str, Any]) -> bool:
    """Whether the fields of a file describe such a network."""
    return "encoders" in raw


def read_spiking(raw: Mapping[str, Any], name: str, where: str) -> SpikingNetwork:
    """The network of a models/*.yaml with `encoders`. InputError names file, field, value and what is accepted."""
    fields = Fields(raw, where)
    unknown = set(raw) - {*SPIKING_FIELDS, "name", "description", "aliases", "source", "notes"}
    if unknown:
        raise fields.error(sorted(unknown)[0], raw[sorted(unknown)[0]], ", ".join(SPIKING_FIELDS))
    encoders = raw["encoders"]
    if not isinstance(encoders, list) or not encoders or not all(isinstance(one, dict) for one in encoders):
        raise fields.error("encoders", encoders, f"a list of mappings with {', '.join(_ENCODER)}")
    found = tuple(_encoder(one, f"{where}: encoders[{index}]") for index, one in enumerate(encoders))
    if len({encoder.name for encoder in found}) < len(found):
        raise fields.error("encoders", [encoder.name for encoder in found], "a different name for each encoder")
    notes = raw.get("notes", [])
    if not isinstance(notes, list):
        raise fields.error("notes", notes, "a list of sentences")
    return SpikingNetwork(
        name=name, encoders=found, outputs=fields.whole("outputs"), fixed=fields.flag("fixed"), source=fields.text("source"),
        head=_one_of(fields, "head", "readout", ("readout", "projection")), cell=_one_of(fields, "cell", "lif", ("lif", "rnn")),
        format=_FORMATS[_one_of(fields, "torch_dtype", "float16", tuple(_FORMATS))], notes=tuple(map(str, notes)),
    )  # fmt: skip


SPIKING_FIELDS = ("encoders", "outputs", "head", "cell", "fixed", "torch_dtype")


def _encoder(raw: Mapping[str, Any], where: str) -> Encoder:
    fields = Fields(raw, where)
    unknown = set(raw) - set(_ENCODER)
    if unknown:
        raise fields.error(sorted(unknown)[0], raw[sorted(unknown)[0]], ", ".join(_ENCODER))
    name = fields.text("name")
    if not name.isidentifier():
        raise fields.error("name", raw.get("name"), "a word")
    inputs, neurons, steps = (fields.whole(part, most=100_000) for part in ("inputs", "neurons", "steps"))
    return Encoder(name, inputs, neurons, steps, **{part: _number(fields, part, most) for part, most in _MOST.items()})


_MOST = {"decay": 1.0, "threshold": 1e6, "scale": 1e6, "weight_std": 1e6, "density": 1.0}


def _number(fields: Fields, name: str, most: float) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise fields.error(name, value, f"a number from 0 to {most:g}")
    return float(value)


def _one_of(fields: Fields, name: str, default: str, accepted: Sequence[str]) -> Any:
    value = fields.text(name, default=default)
    if value not in accepted:
        raise fields.error(name, value, ", ".join(accepted))
    return value


def lower_spiking(net: SpikingNetwork, activity: Sequence[Activity], streams: Array, *, train: bool = False) -> list[Op]:
    """The ops of `streams` samples of each modality, steps folded; with `train` also their backward pass.

    `activity` has an entry per encoder; its numbers and `streams` may be arrays.
    """
    return _in_a_row(_every_op(net, activity, streams, train))


def _every_op(net: SpikingNetwork, activity: Sequence[Activity], streams: Array, train: bool) -> Iterator[Op]:
    for encoder, spikes in zip(net.encoders, activity, strict=True):
        yield from _steps(net, encoder, spikes, streams)
    for encoder in net.encoders:
        yield from _head(net, encoder, streams)
    if train:
        yield from _loss(net, streams)
        for encoder in net.encoders:
            yield from _backward_head(net, encoder, streams)
        for encoder in () if net.fixed else net.encoders:
            yield from _backward_steps(net, encoder, streams)


def _steps(net: SpikingNetwork, encoder: Encoder, spikes: Activity, streams: Array) -> Iterator[Op]:
    """One step of an encoder, repeated."""
    place: dict[str, Any] = {"block": encoder.name, "repeat": encoder.steps, "stream": net.format}
    n = float(encoder.neurons)
    dense = net.cell == "rnn"  # its states are numbers, none of which is zero for long
    yield Synapses(
        name=f"{encoder.name}.synapses", kind="synapses", m=streams, n=n, k=float(encoder.rows), weights=net.format,
        activations=net.format, fixed=net.fixed, binary=not dense,
        active=float(encoder.rows) if dense else spikes.inputs + spikes.neurons, **place,
    )  # fmt: skip
    yield Elementwise(
        name=f"{encoder.name}.neuron", kind="neuron", tokens=streams, read=2 * n, written=2 * n, work=NEURON_WORK[net.cell] * n,
        **place,
    )  # fmt: skip
    if not dense:
        yield Counters(
            name=f"{encoder.name}.count",
            kind="count",
            tokens=streams,
            read=2 * n,
            written=n,
            work=n,
            fired=spikes.counted,
            **place,
        )


def _head(net: SpikingNetwork, encoder: Encoder, streams: Array) -> Iterator[Op]:
    place: dict[str, Any] = {"block": f"{encoder.name}.head", "stream": net.format}
    yield Gemm(
        name=f"{encoder.name}.{net.head}", kind="head", m=streams, n=float(net.outputs), k=float(encoder.neurons),
        weights=net.format, activations=net.format, **place,
    )  # fmt: skip
    if net.head == "projection":
        yield _elementwise(f"{encoder.name}.gelu", "activation", streams, net.outputs, 8, place)
        yield _elementwise(f"{encoder.name}.unit", "norm", streams, net.outputs, 3, place)


def _elementwise(name: str, kind: str, streams: Array, width: int, work: int, place: Mapping[str, Any]) -> Elementwise:
    n = float(width)
    return Elementwise(name=name, kind=kind, tokens=streams, read=n, written=n, work=work * n, **place)


def _loss(net: SpikingNetwork, streams: Array) -> Iterator[Op]:
    """Cross-entropy of a readout; of projections the similarity of all pairs of a batch, by rows and by columns."""
    place: dict[str, Any] = {"block": "loss", "stream": net.format}
    if net.head == "readout":
        yield _elementwise("loss.softmax", "backward.loss", streams, len(net.encoders) * net.outputs, 6, place)
        return
    matrix: dict[str, Any] = {"weights": net.format, "activations": net.format, "tied": True, "stream": net.format}
    width = float(net.outputs)
    yield Gemm(name="loss.similarity", kind="loss", m=streams, n=streams, k=width, block="loss", **matrix)
    yield Elementwise(
        name="loss.softmax", kind="loss", tokens=streams, read=streams, written=streams, work=12.0 * streams, **place
    )
    for side in ("left", "right"):
        yield Gemm(name=f"loss.{side}", kind="backward.loss", m=streams, n=width, k=streams, block="loss", **matrix)


def _backward_head(net: SpikingNetwork, encoder: Encoder, streams: Array) -> Iterator[Op]:
    name, place = encoder.name, {"block": f"{encoder.name}.backward", "stream": net.format}
    matrix: dict[str, Any] = {"weights": net.format, "activations": net.format, "tied": True, "kind": "backward.head", **place}
    if net.head == "projection":
        yield _elementwise(f"{name}.unit.backward", "backward.norm", streams, net.outputs, 5, place)
        yield _elementwise(f"{name}.gelu.backward", "backward.activation", streams, net.outputs, 12, place)
    yield Gemm(name=f"{name}.head.weights", m=float(encoder.neurons), n=float(net.outputs), k=streams, **matrix)
    if not net.fixed:
        yield Gemm(name=f"{name}.head.inputs", m=streams, n=float(encoder.neurons), k=float(net.outputs), **matrix)


def _backward_steps(net: SpikingNetwork, encoder: Encoder, streams: Array) -> Iterator[Op]:
    """One step back through time, repeated: surrogate gradient, gradient of all weights, gradient of the neurons before."""
    name, n = encoder.name, float(encoder.neurons)
    place: dict[str, Any] = {"block": f"{name}.back", "repeat": encoder.steps, "stream": net.format}
    matrix: dict[str, Any] = {"weights": net.format, "activations": net.format, "tied": True, "kind": "backward.encoder", **place}
    yield _elementwise(f"{name}.neuron.backward", "backward.neuron", streams, encoder.neurons, NEURON_WORK[net.cell], place)
    yield Gemm(name=f"{name}.weights.backward", m=float(encoder.rows), n=n, k=streams, **matrix)
    yield Gemm(name=f"{name}.neurons.backward", m=streams, n=n, k=n, **matrix)


def _in_a_row(ops: Iterator[Op]) -> list[Op]:
    """Every op after the one before it: a step needs the spikes of the step before."""
    found: list[Op] = []
    for op in ops:
        found.append(replace(op, after=(found[-1].name,) if found else ()))
    return found
