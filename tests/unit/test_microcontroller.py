"""Microcontroller cores by hand: cycles of one op, bounds, memory of an engine, and networks that fit or do not."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from statistics import fmean

import pytest

from hwsim.catalogue import load_convnet, load_device, root
from hwsim.cost import price
from hwsim.cost.microcontroller import engine_of
from hwsim.errors import CapacityError
from hwsim.images import image_rows, run_images
from hwsim.kernels.microcontroller import microcontroller
from hwsim.lowering.convnet import lower_convnet
from hwsim.op import Convolution
from hwsim.placement.capacity import footprint
from hwsim.placement.patch import as_engine
from hwsim.placement.policy import homes

P = {"conv": 2.0, "depthwise": 4.0, "element": 10.0, "layer": 1000.0, "exponent": 0.5}


def test_cycles_by_hand():
    assert microcontroller(kind="conv", macs=500.0, results=20.0, bits=8.0, p=P) == 1000 + 200 + 1000
    assert microcontroller(kind="conv", macs=500.0, results=20.0, bits=2.0, p=P) == 1000 + 200 + 500
    assert microcontroller(kind="conv", macs=500.0, results=20.0, bits=16.0, p=P) == 1000 + 200 + 1000
    assert microcontroller(kind="add", macs=0.0, results=20.0, bits=8.0, p=P) == 1200


@pytest.mark.parametrize("name", ["stm32h743", "nucleo-l4r5zi", "nucleo-u575zi-q"])
def test_an_op_takes_its_cycles_at_the_clock(name):
    device = load_device(name)
    op = next(op for op in lower_convnet(load_convnet("mcunet-in2")) if op.kind == "depthwise")
    assert isinstance(op, Convolution)
    p, core = engine_of(device).parameters, device.units["core"]
    cycles = p["layer"] + p["element"] * op.results + p["depthwise"] * op.macs
    cost = price(op, "core", device, homes(device, "core"))
    assert cost.alone_s == pytest.approx(cycles / (float(core.clock or 0) * float(core.organisation["ipc"])))


def test_nothing_beats_two_products_a_cycle():
    """16 operands of 2 bit might be multiplied at once by the exponent; the core has no such instruction."""
    device = load_device("stm32h743").with_values({"units.core.organisation.ipc": 100.0})
    op = lower_convnet(load_convnet("resnet-8"), activations="int2")[1]
    assert isinstance(op, Convolution)
    assert price(op, "core", device, homes(device, "core")).alone_s == pytest.approx(float(op.macs) / 2 / 480e6)


def test_engines_hold_maps_as_they_do():
    """In place: 16 + 96 channels where the block expands; apart, its depthwise convolution in and out."""
    net, device = load_convnet("mobilenetv2"), load_device("stm32h743")
    peaks = {
        stack: max(float(op.workspace) for op in as_engine(lower_convnet(net), device.with_stack(stack)))
        for stack in ("tinyengine", "cmsis")
    }
    assert peaks["tinyengine"] == 112**2 * 112 + 4096
    assert peaks["cmsis"] == 96 * (112**2 + 56**2) + 4 * 9 + 120e3


def test_flash_holds_weights_scales_and_code():
    net, device = load_convnet("mcunet-in0"), load_device("stm32h743")
    held = footprint(image_rows(net, device), device)[0, "flash"]["weights"]
    weights = sum(layer.weights for layer in net.layers)
    filters = sum(layer.out[0] for layer in net.layers if layer.does == "conv")
    assert held == weights + 8 * filters + 35e3


def test_what_does_not_fit_is_refused():
    with pytest.raises(CapacityError, match="memory flash"):
        run_images(load_convnet("resnet-18"), load_device("stm32h743"))
    with pytest.raises(CapacityError, match="memory sram"):
        run_images(load_convnet("mobilenetv2:width=0.35,resolution=224"), load_device("stm32h743").with_stack("cmsis"))
    assert run_images(load_convnet("mcunet-in4"), load_device("stm32h743")).latency_s > 0


def test_energy_is_the_boards_power():
    trace = run_images(load_convnet("ds-cnn"), load_device("nucleo-l4r5zi"))
    assert trace.energy_j == pytest.approx(0.052 * trace.latency_s)


MEASURED = Path(os.environ.get("HWSIM_DATA", root("models").parent.parent / "shared" / "data")) / "measured"
ENGINES = {"TinyEngine": "tinyengine", "CMSIS-NN": "cmsis", "X-CUBE-AI": "xcube", "TFLite-Micro": "tflm"}
NETWORKS = {
    "mcunet-in0": "mcunet-in0", "mcunet-in3": "mcunet-in3", "proxyless-w0.3-r64": "proxylessnas:width=0.3,resolution=64",
    "mbv2-w0.3-r64": "mobilenetv2:width=0.3,resolution=64",
}  # fmt: skip
TASKS = {"ic": "resnet-8", "vww": "mobilenetv1-0.25", "kws": "ds-cnn", "ad": "autoencoder"}
SUBMITTED = {  # board and engine of MLPerf Tiny v1.0
    "microtvm_cmsis_nn/NUCLEO_L4R5ZI": ("nucleo-l4r5zi", "cmsis"), "NUCLEO_L4R5ZI": ("nucleo-l4r5zi-1v8", "xcube"),
    "NUCLEO-H7A3ZI-Q": ("nucleo-h7a3zi-q", "xcube"),
}  # fmt: skip


def rows_of(table: str) -> list[dict[str, str]]:
    path = MEASURED / table
    if not path.is_file():
        pytest.skip(f"no {path}; set HWSIM_DATA to the folder that holds measured/")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def seconds(network: str, arch: str, stack: str) -> float:
    return run_images(load_convnet(network), load_device(arch).with_stack(stack)).latency_s


@pytest.mark.parametrize("engine", ENGINES)
def test_latency_of_engines_is_the_measured_one_within_15_percent(engine):
    rows = [row for row in rows_of("mcu_tinyengine.csv") if row["engine"].startswith(engine) and row["model"] in NETWORKS]
    errors = [seconds(NETWORKS[row["model"]], "stm32h743", ENGINES[engine]) / float(row["latency_s"]) - 1 for row in rows]
    assert len(errors) == 4
    assert fmean(map(abs, errors)) < 0.15


@pytest.mark.parametrize("system", SUBMITTED)
def test_latency_and_energy_of_mlperf_tiny_within_15_percent(system):
    arch, stack = SUBMITTED[system]
    submitter = "OctoML" if system.startswith("micro") else "STMicroelectronics"
    found = [
        row for row in rows_of("mlperf_tiny.csv")
        if (row["round"], row["system"], row["submitter"]) == ("v1.0", system, submitter) and row["benchmark"] in TASKS
    ]  # fmt: skip
    ours = {
        row["benchmark"]: run_images(load_convnet(TASKS[row["benchmark"]]), load_device(arch).with_stack(stack)) for row in found
    }
    assert len(ours) == 4
    assert fmean(abs(ours[row["benchmark"]].latency_s / float(row["latency_s"]) - 1) for row in found) < 0.15
    metered = [row for row in found if row["energy_per_inf_uj"]]
    assert fmean(abs(ours[row["benchmark"]].energy_j * 1e6 / float(row["energy_per_inf_uj"]) - 1) for row in metered) < 0.15
