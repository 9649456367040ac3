"""Convolutional networks by hand: layer sizes, multiply-accumulates, parameters, maps alive, and what files may not say."""

from __future__ import annotations

import pytest

from hwsim.catalogue import load_convnet, load_model, load_transformer
from hwsim.engine import estimate, simulate
from hwsim.errors import InputError
from hwsim.images import image_rows
from hwsim.lowering.convnet import ConvNet, MapLayer, lower_convnet
from hwsim.lowering.convnet_file import read_convnet, scaled
from hwsim.op import Convolution

# multiply-accumulates (M) and parameters (M, weights and biases of convolutions with batch norm folded), as published
TOTALS = {
    "mobilenetv2": (300.77, 3.49), "mobilenetv2:width=0.35,resolution=144": (23.5, 0.744), "mcunet-in0": (6.36, 0.743),
    "mcunet-in1": (12.79, 0.63), "mcunet-in2": (67.29, 0.722), "mcunet-in3": (81.79, 0.73), "mcunet-in4": (125.87, 1.722),
    "mcunet-vww1": (11.58, 0.427), "resnet-18": (1814, 11.69), "resnet-8": (12.5, 0.0777), "ds-cnn": (2.657, 0.0226),
    "mobilenetv1-0.25": (7.49, 0.211), "autoencoder": (0.264, 0.266), "fbnet-a": (244.5, 4.27), "mnasnet-b1": (314.4, 4.36),
}  # fmt: skip


@pytest.mark.parametrize("name", TOTALS)
def test_totals_are_the_published_ones(name):
    net, (macs, parameters) = load_convnet(name), TOTALS[name]
    assert net.macs == pytest.approx(macs * 1e6, rel=0.01)
    assert net.parameters == pytest.approx(parameters * 1e6, rel=0.01)


def residual() -> ConvNet:
    """3 x 8 x 8 -> 4 filters of 3 x 3, another four, and their sum."""
    layers = [{"conv": 4, "kernel": 3}, {"inverted": 4, "expand": 2, "kernel": 3}, {"mean": None}, {"dense": 5}]
    return read_convnet({"image": [3, 8, 8], "layers": layers}, "residual", "residual.yaml")


def test_layers_by_hand():
    found = {layer.name: layer for layer in residual().layers}
    assert list(found) == ["conv", "b1.expand", "b1.depthwise", "b1.project", "b1.add", "mean", "dense"]
    assert found["conv"].macs == 64 * 4 * 3 * 9
    assert found["b1.depthwise"].macs == 64 * 8 * 9
    assert found["b1.add"].sources == ("b1.project", "conv")
    assert found["dense"].parameters == 4 * 5 + 5
    assert [layer.kind for layer in found.values()] == ["conv", "pointwise", "depthwise", "pointwise", "add", "pool", "dense"]


def test_memory_of_a_layer_is_what_it_reads_and_writes_and_what_waits():
    """The input of the block waits while its depthwise convolution and its projection run: 4 x 64 bytes."""
    peaks = {op.name: op.workspace for op in lower_convnet(residual())}
    assert peaks["b1.expand"] == (4 + 8) * 64
    assert peaks["b1.depthwise"] == (8 + 8 + 4) * 64
    assert peaks["b1.project"] == (8 + 4 + 4) * 64
    assert peaks["b1.add"] == (4 + 4 + 4) * 64
    assert peaks["mean"] == 4 * 64 + 4


def test_bytes_and_bit_operations_follow_the_formats():
    op = lower_convnet(residual(), images=2, weights="int8", activations="int4")[1]
    assert isinstance(op, Convolution)
    assert op.bytes == {"weights": 32, "activations": 2 * (4 + 8) * 64 / 2}
    assert op.bit_operations == 2 * 64 * 32 * 8 * 4


@pytest.mark.parametrize(
    ("filters", "width", "found"), [(32, 0.35, 16), (16, 0.35, 8), (24, 0.35, 8), (1280, 0.35, 448), (24, 0.5, 16)]
)
def test_widths_round_to_multiples_of_eight(filters, width, found):
    """11.2 -> 8 would lose more than a tenth, so 16; 8.4 -> 8."""
    assert scaled(filters, width) == found


def test_kinds_of_networks_are_told_apart():
    with pytest.raises(InputError, match="mobilenetv2 is a convolutional network"):
        load_transformer("mobilenetv2")
    with pytest.raises(InputError, match="gpt2 has no feature maps"):
        load_convnet("gpt2")
    with pytest.raises(InputError, match="no convolutional network"):
        load_model("gpt2:width=0.5")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"layers": []}, "layers"),
        ({"layers": [{"fly": 3}]}, "fly"),
        ({"layers": [{"conv": 0}]}, "layers.0"),
        ({"layers": [{"conv": 8, "kernel": "x"}]}, "kernel"),
        ({"layers": [{"conv": 8, "colour": 1}]}, "colour"),
        ({"layers": [{"pointwise": 8, "groups": 2}]}, "groups"),
        ({"layers": [{"conv": 8, "repeat": 99999}]}, "more than"),
        ({"image": [3, 8]}, "image"),
        ({"image": [3, 8, -1]}, "image"),
        ({"width": 0}, "width"),
        ({"colour": 1}, "colour"),
    ],
)
def test_files_that_make_no_sense(change, word):
    raw = {"image": [3, 8, 8], "layers": [{"conv": 4}]} | change
    with pytest.raises(InputError, match=word):
        read_convnet(raw, "x", "x.yaml")


def test_variants_that_make_no_sense():
    for given in ("width=0", "resolution=0", "resolution=10.5", "depth=2"):
        with pytest.raises(InputError):
            load_model(f"mobilenetv2:{given}")


@pytest.mark.parametrize("arch", ["h100-ideal", "h100"])
def test_both_roads_agree(arch):
    from hwsim.catalogue import load_device

    device = load_device(arch)
    rows = image_rows(load_convnet("resnet-8"), device, images=4)
    assert simulate(rows, device).latency_s == pytest.approx(float(estimate(rows, device).latency_s), rel=1e-9)


def test_a_layer_counts_its_norms():
    layer = MapLayer("a", "conv", ("",), (4, 8, 8), (8, 8, 8), norms=16, bias=False)
    assert layer.parameters == 4 * 8 + 16
