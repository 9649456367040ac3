"""ONNX files -> convolutional networks. The graph is data from a stranger: bounded, never executed, no file beside it is opened.

Read are convolutions (plain, grouped, quantised), dense layers (Gemm, MatMul with weights), pools and means, sums and products of
two maps, and what only moves elements. Normalisation, activation functions, quantisation and shape arithmetic ride in the layer
before them. Shapes are those of ONNX shape inference; a batch dimension that is open is taken as 1. Values of weights are not
used. An operator that is not listed here is an error that names it and its node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwsim.errors import InputError
from hwsim.lowering.convnet import IMAGE, Activation, ConvNet, Does, MapLayer, Size, checked, window

MAX_BYTES = 600 * 1024**2
MAX_NODES = 20_000

_RIDES = frozenset(
    ("Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid", "HardSwish", "Mish", "Softplus",
     "Gelu", "Tanh", "Softmax", "LogSoftmax", "Identity", "Dropout", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze",
     "QuantizeLinear", "DequantizeLinear", "BatchNormalization", "InstanceNormalization", "LRN", "Erf", "Sqrt", "Exp",
     "Pow", "Neg", "Abs", "Round",
     "Floor")
)  # fmt: skip
_ACTIVATIONS: Mapping[str, Activation] = {"Relu": "relu", "Clip": "relu6"}  # others are taken as linear where values matter
_SHAPES = frozenset(["Constant", "ConstantOfShape", "Shape", "Range"])  # what they make is no map
_POOLS = frozenset(["MaxPool", "AveragePool", "LpPool"])
_WHOLE = frozenset(["GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceSum"])
_TWO: Mapping[str, Does] = {"Add": "add", "Sub": "add", "Mul": "mul", "Div": "mul", "Sum": "add", "QLinearAdd": "add"}
_MOVES = frozenset(
    ("Concat", "Transpose", "Slice", "Split", "Pad", "Resize", "Upsample", "DepthToSpace", "SpaceToDepth", "Gather", "Expand")
)
_WEIGHTS = {  # which inputs are weights and bias
    "Conv": (1, 2), "QLinearConv": (3, 8), "ConvInteger": (1, 9), "Gemm": (1, 2), "MatMul": (1, 9), "QLinearMatMul": (3, 9),
}  # fmt: skip
_KNOWN = frozenset((*_RIDES, *_SHAPES, *_POOLS, *_WHOLE, *_TWO, *_MOVES, *_WEIGHTS))


def read_onnx(path: Path) -> ConvNet:
    """The network in an ONNX file. InputError for what is no such file, too large, or holds an operator that is not modelled."""
    graph = _inferred(path)
    reader = _Reader(graph, str(path))
    for node in graph.node:
        reader.add(node)
    if not reader.layers:
        raise InputError(f"{path}: no layer on feature maps; accepted: a convolutional or dense network")
    return ConvNet(path.stem, reader.image, tuple(reader.layers), f"{path.name}, ONNX")


def _inferred(path: Path) -> Any:
    """The graph with the shapes of all tensors; values of large tensors are dropped before, external data is never looked at."""
    import onnx
    from google.protobuf.message import DecodeError

    _check_file(path)
    try:
        model = onnx.load_model_from_string(path.read_bytes())
        graph = model.graph
        if len(graph.node) > MAX_NODES:
            raise InputError(f"{path}: {len(graph.node)} nodes; accepted: at most {MAX_NODES}")
        _check_operators(graph, str(path))
        del model.functions[:]  # of the file's own; operators that are read need none, and functions that call functions explode
        for tensor in graph.initializer:
            _without_values(tensor)
        _open_batch(graph, str(path))
        return onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (DecodeError, onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: not a readable ONNX model: {' '.join(str(error).split())[:160]}") from error


def _check_operators(graph: Any, where: str) -> None:
    """Before shapes are inferred, so that nothing unknown is looked into."""
    for node in graph.node:
        if node.op_type not in _KNOWN or not node.output:
            name, known = str(node.name or next(iter(node.output), "")), ", ".join(sorted(_KNOWN))
            raise InputError(f"{where}: node {name[:80]!r}: operator {node.op_type[:40]} is not modelled; accepted: {known}")


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file; accepted: an .onnx file")
    if not 0 < path.stat().st_size <= MAX_BYTES:
        raise InputError(f"{path}: {path.stat().st_size / 1024**2:.1f} MiB; accepted: up to {MAX_BYTES // 1024**2} MiB")


def _without_values(tensor: Any) -> None:
    """Shapes are all that is used of weights; small integer tensors (targets of a reshape) are kept."""
    if tensor.data_location == 1 or tensor.ByteSize() > 1024:
        for values in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(values)
        tensor.ClearField("raw_data")
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def _open_batch(graph: Any, where: str) -> None:
    """Open dimensions of the inputs: the first is a batch of 1, others must be known."""
    given = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name in given:
            continue
        for index, dim in enumerate(value.type.tensor_type.shape.dim):
            if index == 0:
                dim.dim_value = 1
            elif dim.dim_value < 1:
                raise InputError(
                    f"{where}: input {value.name[:60]!r}: dimension {index} is open; accepted: a size, fixed at export"
                )


class _Reader:
    """Adds layers node by node; `made` says which layer (or the image) made a tensor."""

    def __init__(self, graph: Any, where: str) -> None:
        self.where = where
        self.weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        self.shapes = {value.name: _dims(value) for value in (*graph.input, *graph.value_info, *graph.output)}
        self.layers: list[MapLayer] = []
        self.places: dict[str, int] = {}
        self.name = "input"
        images = [value.name for value in graph.input if value.name not in self.weights]
        if len(images) != 1:
            raise InputError(f"{where}: {len(images)} inputs; accepted: a network with one input, an image")
        self.made = {images[0]: IMAGE}
        self.image = checked(self._size(images[0]), where)

    def add(self, node: Any) -> None:
        """The layer of one node, or nothing where it rides in another."""
        kind = node.op_type
        reads = [name for name in node.input if name in self.made]
        self.name = self._unique(node)
        if kind in _SHAPES or not reads:
            self._constant(node)
        elif kind in _WEIGHTS:
            self._weighted(node, reads[0])
        elif kind in _POOLS:
            self._window(node, "pool", reads[0], **self._geometry(node))
        elif kind in _WHOLE:
            size = self._size(reads[0])
            self._append(node, "pool", reads[:1], size, self._size(node.output[0]), kernel=size[1:], stride=size[1:])
        elif kind == "Transpose" and self.made[reads[0]] == IMAGE:
            self._ride(node, reads[0])  # pixels in another order
        elif kind in _MOVES or (kind in _TWO and len({self.made[name] for name in reads}) > 1):
            self._together(node, _TWO.get(kind, "copy"), reads)
        else:
            self._ride(node, reads[0])

    def _unique(self, node: Any) -> str:
        """The node's name, or that of what it makes where it has none or another node has it."""
        name = str(node.name) or str(node.output[0])
        return f"{name}/{node.output[0]}" if name in self.places else name

    def _error(self, text: str) -> InputError:
        return InputError(f"{self.where}: node {self.name[:80]!r}: {text}")

    def _constant(self, node: Any) -> None:
        """What does not follow from the image: weights on their way, or shape arithmetic."""
        for name in node.output:
            dims = _tensor(node) or self.shapes.get(name)
            if dims is not None:
                self.weights[name] = dims

    def _ride(self, node: Any, read: str) -> None:
        maker = self.made[read]
        self.made.update(dict.fromkeys(node.output, maker))
        if maker == IMAGE:
            self.image = checked(self._size(node.output[0]), self.where)
            return
        index = self.places[maker]
        layer = self.layers[index]
        if node.op_type.endswith("Normalization"):
            self.layers[index] = replace(layer, norms=layer.norms + 2 * layer.out[0])
        elif node.op_type in _ACTIVATIONS:
            self.layers[index] = replace(layer, activation=_ACTIVATIONS[node.op_type])

    def _weighted(self, node: Any, read: str) -> None:
        weights, bias = _WEIGHTS[node.op_type]
        shape = self.weights.get(node.input[weights]) if len(node.input) > weights else None
        if shape is None:
            raise self._error(f"{node.op_type} of two maps is not modelled; accepted: weights that are constants")
        biased = len(node.input) > bias and bool(node.input[bias])
        if "Conv" in node.op_type:
            self._window(node, "conv", read, bias=biased, **self._geometry(node, shape[2:]))
        else:
            self._dense(node, read, shape, biased)

    def _dense(self, node: Any, read: str, shape: tuple[int, ...], biased: bool) -> None:
        """A product with weights (inputs, outputs): a window of one pixel, once for each row of the input."""
        if len(shape) != 2:
            raise self._error(f"weights of {len(shape)} dimensions; accepted: 2")
        transposed = any(bool(a.i) for a in node.attribute if a.name == "transB")
        outputs, inputs = shape if transposed else shape[::-1]
        channels, rows, columns = self._size(read)
        pixels = channels * rows * columns // max(inputs, 1)
        self._append(node, "conv", [read], (inputs, pixels, 1), (outputs, pixels, 1), bias=biased)

    def _geometry(self, node: Any, kernel: tuple[int, ...] = ()) -> dict[str, Any]:
        """Kernel, stride, padding and, of convolutions, groups."""
        given: dict[str, Any] = {a.name: list(a.ints) or a.i for a in node.attribute}
        if set(given.get("dilations") or [1]) != {1}:
            raise self._error(f"dilations {given['dilations']} are not modelled; accepted: 1")
        pads = given.get("pads") or []
        (top, left), (bottom, right) = (_pair(half, 0) for half in (pads[: len(pads) // 2], pads[len(pads) // 2 :]))
        found = {
            "kernel": _pair(given.get("kernel_shape") or kernel, 1), "stride": _pair(given.get("strides") or (), 1),
            "padding": (top, bottom, left, right),
        }  # fmt: skip
        return found | ({"groups": int(given.get("group", 1))} if kernel else {})

    def _window(self, node: Any, does: Does, read: str, **geometry: Any) -> None:
        into, out = self._size(read), self._size(node.output[0])
        groups = geometry.get("groups", 1)
        if min(*geometry["kernel"], *geometry["stride"], groups) < 1 or into[0] % groups or out[0] % groups:
            raise self._error(f"{geometry}; accepted: kernels and strides from 1, groups that divide channels and filters")
        if out[1:] != window(into, out[0], geometry["kernel"], geometry["stride"], geometry["padding"], self.where)[1:]:
            geometry["padding"] = _padded(into, out, geometry)
        self._append(node, does, [read], into, out, **geometry)

    def _together(self, node: Any, does: Does, reads: list[str]) -> None:
        out = self._size(node.output[0])
        self._append(node, does, reads, out if does != "copy" else self._size(reads[0]), out)

    def _append(self, node: Any, does: Does, reads: list[str], into: Size, out: Size, **geometry: Any) -> None:
        sources = tuple(dict.fromkeys(self.made[name] for name in reads))
        into, out = (
            checked(into, f"{self.where}: node {self.name[:80]!r}"),
            checked(out, f"{self.where}: node {self.name[:80]!r}"),
        )
        self.layers.append(MapLayer(self.name, does, sources, into, out, **geometry))
        self.places[self.name] = len(self.layers) - 1
        self.made.update(dict.fromkeys(node.output, self.name))

    def _size(self, tensor: str) -> Size:
        """(channels, rows, columns) of a tensor with a batch in front; what is missing is 1."""
        dims = self.shapes.get(tensor)
        if dims is None or any(dim < 1 for dim in dims[1:]) or not 2 <= len(dims) <= 4:
            shown = "unknown" if dims is None else " x ".join(map(str, dims))
            raise self._error(f"shape of {tensor[:60]!r} is {shown}; accepted: batch, channels and up to two more")
        channels, rows, columns = (*dims[1:], 1, 1)[:3]
        return channels, rows, columns


def _dims(value: Any) -> tuple[int, ...] | None:
    kind = value.type.tensor_type
    return tuple(dim.dim_value for dim in kind.shape.dim) if kind.HasField("shape") else None


def _tensor(node: Any) -> tuple[int, ...] | None:
    """Dimensions of what a Constant holds."""
    return next((tuple(a.t.dims) for a in node.attribute if a.name == "value"), None)


def _pair(values: Any, default: int) -> tuple[int, int]:
    found = [int(value) for value in values] or [default]
    return (found[0], found[1] if len(found) > 1 else default)


def _padded(into: Size, out: Size, geometry: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Padding that gives the stated size (auto_pad, ceil_mode): what is needed in all, the smaller half in front."""
    needed = [
        max((out[axis + 1] - 1) * geometry["stride"][axis] + geometry["kernel"][axis] - into[axis + 1], 0) for axis in (0, 1)
    ]
    return (needed[0] // 2, needed[0] - needed[0] // 2, needed[1] // 2, needed[1] - needed[1] // 2)
