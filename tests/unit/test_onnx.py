"""ONNX files: small networks made here, the real ones where they are, and files that mean no good."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwsim.catalogue import load_convnet, root
from hwsim.errors import InputError
from hwsim.job import run

DATA = Path(os.environ.get("HWSIM_DATA", root("models").parent.parent / "shared" / "data")) / "onnx"
KNOWN = {"mobilenetv2": (300.8e6, 3.5e6), "resnet18": (1.814e9, 11.69e6)}


def tensor(name: str, *dims: int) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.zeros(dims, np.float32), name)


def saved(folder: Path, nodes, weights, into=(1, 3, 8, 8)) -> str:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, into)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], weights,
    )  # fmt: skip
    path = folder / "net.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    return str(path)


def conv(x: str, w: str, y: str, **attributes) -> onnx.NodeProto:
    return helper.make_node("Conv", [x, w], [y], name=f"{y}.node", **attributes)


def test_a_residual_network_by_hand(tmp_path):
    nodes = [
        conv("x", "w1", "a", pads=[1, 1, 1, 1]), helper.make_node("BatchNormalization", ["a", "s", "s", "s", "s"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]), conv("c", "w2", "d", pads=[1, 1, 1, 1], group=4),
        helper.make_node("Add", ["d", "c"], ["e"], name="sum"),
        helper.make_node("MaxPool", ["e"], ["f"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["f"], ["g"]), helper.make_node("Flatten", ["g"], ["h"]),
        helper.make_node("Gemm", ["h", "w3", "s5"], ["y"], transB=1, name="fc"),
    ]  # fmt: skip
    weights = [tensor("w1", 4, 3, 3, 3), tensor("w2", 4, 1, 3, 3), tensor("w3", 5, 4), tensor("s", 4), tensor("s5", 5)]
    net = load_convnet(saved(tmp_path, nodes, weights))
    assert [layer.kind for layer in net.layers] == ["conv", "depthwise", "add", "pool", "pool", "dense"]
    assert net.macs == 64 * 4 * 27 + 64 * 4 * 9 + 20
    assert net.parameters == 4 * 27 + 2 * 4 + 4 * 9 + 20 + 5
    assert net.layers[2].sources == ("d.node", "a.node")
    assert net.layers[3].out == (4, 4, 4)


def test_same_padding_of_tensorflow(tmp_path):
    """8 pixels, kernel 3, stride 2: one pixel of padding, below and to the right."""
    net = load_convnet(saved(tmp_path, [conv("x", "w", "y", auto_pad="SAME_UPPER", strides=[2, 2])], [tensor("w", 4, 3, 3, 3)]))
    assert net.layers[0].padding == (0, 1, 0, 1)
    assert net.layers[0].out == (4, 4, 4)


def test_quantised_weights_are_found_behind_their_scales(tmp_path):
    weights = [
        onnx.numpy_helper.from_array(np.zeros((4, 3, 1, 1), np.int8), "w"),
        onnx.numpy_helper.from_array(np.float32(1), "s"),
    ]
    nodes = [helper.make_node("DequantizeLinear", ["w", "s"], ["v"]), conv("x", "v", "y")]
    assert load_convnet(saved(tmp_path, nodes, weights)).macs == 64 * 12


def test_an_image_with_channels_last(tmp_path):
    """TensorFlow's order of pixels is turned round before the first convolution; nothing moves for it."""
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]), conv("t", "w", "y")]
    net = load_convnet(saved(tmp_path, nodes, [tensor("w", 4, 3, 1, 1)], (1, 8, 6, 3)))
    assert net.image == (3, 8, 6)
    assert [layer.kind for layer in net.layers] == ["pointwise"]


def test_squeeze_and_excite_and_branches(tmp_path):
    nodes = [
        conv("x", "w", "a"), helper.make_node("GlobalAveragePool", ["a"], ["b"], name="mean"), conv("b", "v", "c"),
        helper.make_node("Sigmoid", ["c"], ["d"]), helper.make_node("Mul", ["a", "d"], ["e"], name="gate"),
        helper.make_node("Concat", ["e", "a"], ["y"], axis=1, name="join"),
    ]  # fmt: skip
    net = load_convnet(saved(tmp_path, nodes, [tensor("w", 4, 3, 1, 1), tensor("v", 4, 4, 1, 1)]))
    assert [layer.kind for layer in net.layers] == ["pointwise", "pool", "dense", "mul", "copy"]
    assert net.layers[-1].out == (8, 8, 8)
    assert run(net, "stm32h743").latency_s > 0


def test_an_open_batch_is_one(tmp_path):
    net = load_convnet(saved(tmp_path, [conv("x", "w", "y")], [tensor("w", 4, 3, 1, 1)], ("n", 3, 8, 8)))
    assert net.image == (3, 8, 8)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([helper.make_node("Det", ["x"], ["y"], name="odd one")], ["odd one", "Det", "accepted"]),
        ([helper.make_node("MatMul", ["x", "x"], ["y"], name="scores")], ["scores", "two maps"]),
        ([conv("x", "w", "y", dilations=[2, 2])], ["y.node", "dilations"]),
        ([helper.make_node("Relu", ["x"], ["y"])], ["no layer"]),
    ],
)
def test_what_is_not_modelled_is_named(tmp_path, nodes, words):
    with pytest.raises(InputError) as error:
        load_convnet(saved(tmp_path, nodes, [tensor("w", 4, 3, 3, 3)]))
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_an_open_size_is_refused(tmp_path):
    with pytest.raises(InputError, match="dimension 2 is open"):
        load_convnet(saved(tmp_path, [conv("x", "w", "y")], [tensor("w", 4, 3, 1, 1)], (1, 3, "h", 8)))


@pytest.mark.parametrize("data", [b"", b"not a protobuf", b"\x08\x07" + b"\x3a\xff\xff\xff\xff\x0f", bytes(range(256)) * 40])
def test_files_that_are_none(tmp_path, data):
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.onnx"):
        load_convnet(str(path))
    with pytest.raises(InputError, match="no such file"):
        load_convnet(str(tmp_path / "absent.onnx"))


def test_functions_of_the_file_are_not_expanded(tmp_path):
    """Thirty functions that each call the next one twice would be a billion nodes."""
    path = Path(saved(tmp_path, [conv("x", "w", "y")], [tensor("w", 4, 3, 1, 1)]))
    model = onnx.load_model_from_string(path.read_bytes())
    for index in range(30):
        calls = [helper.make_node(f"f{index + 1}", ["a"], [f"b{turn}"], domain="own") for turn in range(2)]
        opsets = [helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", f"f{index}", ["a"], ["b1"], calls, opsets))
    path.write_bytes(model.SerializeToString())
    assert load_convnet(str(path)).macs == 64 * 12
    model.graph.node.append(helper.make_node("f0", ["y"], ["z"], domain="own", name="bomb"))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="bomb"):
        load_convnet(str(path))


@pytest.mark.parametrize("shape", [[2**40], [10**9, 10**9]])
def test_constants_of_any_size_are_not_built(tmp_path, shape):
    given = onnx.numpy_helper.from_array(np.array(shape, np.int64), "s")
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["c"]), conv("x", "w", "y")]
    assert load_convnet(saved(tmp_path, nodes, [given, tensor("w", 4, 3, 1, 1)])).macs == 64 * 12


def test_external_data_is_never_opened(tmp_path):
    weight = tensor("w", 4, 3, 1, 1)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    assert load_convnet(saved(tmp_path, [conv("x", "w", "y")], [weight])).macs == 64 * 12


@pytest.mark.parametrize("name", KNOWN)
def test_real_networks(name):
    path = DATA / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"no {path}; set HWSIM_DATA to the folder that holds onnx/")
    net, (macs, parameters) = load_convnet(str(path)), KNOWN[name]
    assert net.macs == pytest.approx(macs, rel=0.01)
    assert net.parameters == pytest.approx(parameters, rel=0.01)
    assert run(str(path), "h100").latency_s > 0
