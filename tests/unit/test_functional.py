"""Values by hand: integer inference against real numbers, entropy, outliers, the search; images drawn from a seed."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.catalogue import load_convnet, load_device
from hwsim.errors import InputError
from hwsim.functional.convnet import drawn_weights, normalised, quantised, real_maps
from hwsim.functional.images import dead_leaves
from hwsim.functional.search import entropy, outliers, patches_with_outliers, search
from hwsim.lowering.convnet import ConvNet, lower_convnet
from hwsim.lowering.convnet_file import read_convnet
from hwsim.mixed import quantmcu
from hwsim.op import Convolution
from hwsim.placement.mixed import bit_operations, with_bits

LAYERS = [
    {"conv": 8, "stride": 2},
    {"inverted": 8, "expand": 3},
    {"inverted": 16, "expand": 3, "stride": 2},
    {"mean": None},
    {"dense": 5},
]
NET = read_convnet({"image": [3, 16, 16], "layers": LAYERS}, "small", "small.yaml")


def test_a_convolution_pixel_by_pixel():
    """Every result is the sum over its window of the padded map."""
    net = read_convnet({"image": [2, 5, 6], "layers": [{"conv": 3, "stride": 2}]}, "one", "one.yaml")
    weights, image = drawn_weights(net, 1), np.random.default_rng(2).normal(size=(1, 2, 5, 6))
    padded = np.pad(image[0], ((0, 0), (1, 1), (1, 1)))
    by_hand = [
        [[(padded[:, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3] * w).sum() for c in range(3)] for r in range(3)]
        for w in weights["conv"]
    ]
    assert real_maps(net, weights, image)["conv"][0] == pytest.approx(np.clip(by_hand, 0, 6))


def small() -> tuple[ConvNet, np.ndarray, dict, dict]:
    images = dead_leaves(2, NET.image, 3)
    weights, maps = normalised(NET, drawn_weights(NET, 3), images)
    return NET, images, weights, maps


def test_convolutions_are_scaled_to_variance_one():
    _, images, weights, _ = small()
    linear = real_maps(NET, weights, images)["b1.project"]
    assert linear.std(axis=(0, 2, 3)) == pytest.approx(np.ones(8))


def test_integers_follow_real_numbers():
    """Within a few of 255 levels, layer after layer."""
    net, images, weights, maps = small()
    integer = quantised(net, weights, maps)
    for name, values in integer.run(images).items():
        scale = integer.map_scales[name]
        assert np.array_equal(values, np.rint(values))
        assert values.max() - values.min() <= 255
        assert np.abs(values * scale - maps[name]).mean() <= 6 * scale


def test_fewer_bits_are_fewer_levels():
    net, images, weights, maps = small()
    found = quantised(net, weights, maps).run(images, {"b1.expand": 2, "conv": 4})
    assert len(np.unique(found["b1.expand"])) <= 4
    assert len(np.unique(found["conv"])) <= 16


def test_entropy_by_hand():
    """Half zeros, a quarter each of two others, in four levels: 1.5 bit; in two: the quarter at the top joins nobody, 1 bit."""
    values = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 3.0, 3.0])
    assert entropy(values, 2) == pytest.approx(1.5)
    assert entropy(values, 1) == pytest.approx(-(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)))
    assert entropy(np.ones(5), 8) == 0.0


def test_outliers_are_beyond_the_central_mass():
    values = np.random.default_rng(0).normal(size=200_000)
    assert outliers(values, 0.95).mean() == pytest.approx(0.05, abs=0.003)
    with pytest.raises(InputError):
        outliers(values, 1.0)


def test_patches_with_an_outlier():
    values = np.random.default_rng(0).uniform(-1, 1, size=(1, 2, 8, 8))
    values[0, 1, 2, 6] = 50.0
    found = patches_with_outliers(values, [(0, 5), (3, 8)], [(0, 5), (4, 8)], 0.999)
    assert found.tolist() == [[[False, True], [False, False]]]


def test_the_search_weighs_entropy_against_operations():
    rng = np.random.default_rng(0)
    maps = {"flat": rng.uniform(size=(1, 4, 8, 8)), "binary": rng.integers(0, 2, size=(1, 4, 8, 8)).astype(float)}
    macs = {"flat": 100.0, "binary": 100.0}
    assert search(maps, macs, 0.0, 1e9).bits == {"flat": 2, "binary": 2}
    assert search(maps, macs, 1.0, 1e9).bits["flat"] == 8
    assert search(maps, macs, 0.6, 1e9).bits == {"flat": 8, "binary": 2}


def test_memory_lowers_the_larger_map():
    maps = {"large": np.arange(2048.0).reshape(1, 8, 16, 16), "small": np.arange(512.0).reshape(1, 2, 16, 16)}
    macs = dict.fromkeys(maps, 1.0)
    assert search(maps, macs, 1.0, 2560.0).bits == {"large": 8, "small": 8}
    assert search(maps, macs, 1.0, 1536.0).bits == {"large": 4, "small": 8}
    assert search(maps, macs, 1.0, 1.0).bits == {"large": 2, "small": 2}


def test_bit_operations_of_narrow_maps():
    ops = lower_convnet(NET)
    narrow = with_bits(ops, {"conv": 4})
    read = next(op for op in narrow if op.name == "b1.expand")
    assert isinstance(read, Convolution)
    assert read.activations == "int4"
    assert bit_operations(ops) == 64 * NET.macs
    assert bit_operations(narrow) == 64 * NET.macs - 32 * float(read.macs)


def test_one_seed_one_result():
    device = load_device("stm32h743")
    first, again = (quantmcu(NET, device, "b1", 2, phi=0.9, weight=0.2, seed=5) for _ in range(2))
    assert first.found.bits == again.found.bits
    assert np.array_equal(first.kept, again.kept)
    assert first.bitops_ratio >= 1.0
    assert np.array_equal(dead_leaves(1, (3, 8, 8), 1), dead_leaves(1, (3, 8, 8), 1))


def test_tiles_that_are_kept_stay_in_eight_bit():
    found = quantmcu(load_convnet("mcunet-in0"), load_device("stm32h743"), "b1", 2, phi=0.5, weight=0.0)
    assert found.kept.all()
    tiles = [op for op in found.narrow[0] if op.block.startswith("tile")]
    assert {op.stream for op in tiles} == {"int8"}
    assert any(op.stream != "int8" for op in found.narrow[0])
