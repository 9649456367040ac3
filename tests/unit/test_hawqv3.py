"""HAWQ-V3's networks and its choice of bits, against what is known of ResNets."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from hwsim.catalogue import load_device, root
from hwsim.claim import Run
from hwsim.cost import price
from hwsim.lowering.convolution import convolution
from hwsim.op import Gemm
from hwsim.placement.policy import homes


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("hawqv3_study", root("studies") / "hawqv3" / "study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("network", "convs", "weights", "macs"), [
    ("resnet18", 19, 11_678_912, 1.8141e9), ("resnet50", 52, 25_502_912, 4.0892e9),
])  # fmt: skip
def test_networks_have_their_published_weights_and_operations(study, network, convs, weights, macs):
    assert len(study.layers(network)) == convs
    ops = [op for op in study._ops(network, 1, ["int8"] * convs, "int8") if isinstance(op, Gemm)]
    assert sum(op.n * op.k for op in ops) == weights  # without biases and batch normalisation
    assert sum(op.ops for op in ops) / 2 == pytest.approx(macs, rel=1e-4)


def test_downsampling_layers_have_the_width_of_their_block(study):
    names = [layer.name for layer in study.layers("resnet18")]
    for limit in ("size", "bops", "latency"):
        wide = dict(zip(names, study._chosen(limit, 0.5), strict=True))
        assert all(wide[f"{stage}.0.1"] == wide[f"{stage}.0.down"] for stage in (1, 2, 3))


def test_a_looser_limit_is_never_more_sensitive_and_never_faster(study):
    runs = [Run(model="bert-base", arch="t4", batch=8, args={"network": "resnet18", "scheme": f"latency-{level}"})
            for level in ("low", "medium", "high")]  # fmt: skip
    assert np.all(np.diff([study.latency(run) for run in runs]) >= 0)
    assert np.all(np.diff([study.size(run) for run in runs]) >= 0)


def test_a_convolution_on_the_t4_by_hand():
    # 3 x 3, 64 to 64 on 56 x 56, batch 8: 392 x 2 tiles of 64 x 32 on 40 SMs are 20 rounds, 9 steps of 64 each
    op = convolution("c", "conv", images=8.0, side=56, channels=64, filters=64, kernel=3, padding=1,
                     weights="int8", activations="int8", stream="int8")  # fmt: skip
    device = load_device("t4").with_stack("tvm")
    compute = 20 * 9 * 2 * 64 * 32 * 64 * 40 / (130e12 * 0.72 * 0.15)
    moved = (2 * 8 * 56 * 56 * 64 + 64 * 64 * 9) / (320e9 * 0.85)
    found = price(op, "tensor", device, homes(device, "tensor"))
    assert found.method == "kernel low_bit"
    assert found.alone_s == pytest.approx(12e-6 + compute + moved, rel=5e-3)  # and the way from the L2
