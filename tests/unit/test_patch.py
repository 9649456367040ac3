"""Patch-based inference by hand: MobileNetV2's published tiles, overheads and peaks; small stages pixel by pixel."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from hwsim.catalogue import load_convnet, load_device
from hwsim.engine import estimate, simulate
from hwsim.errors import CapacityError, InputError
from hwsim.images import image_rows, run_images
from hwsim.lowering.convnet import lower_convnet
from hwsim.lowering.convnet_file import read_convnet
from hwsim.op import Convolution, MapOp
from hwsim.placement.patch import patched
from hwsim.placement.tiles import best_stage, cuts, rest_peak, stage_at

KIB = 1024


def maps(name: str) -> list[MapOp]:
    """The ops of a network, with depthwise results over their input and sums over the map that waits, as MCUNetV2 counts."""
    ops = lower_convnet(load_convnet(name))
    summed = {op.source for op in ops if op.kind == "add"}
    over = {
        op.name: "channel" if op.kind == "depthwise" else "none" if op.name in summed or op.kind == "add" else "map" for op in ops
    }
    return [replace(op, written=over[op.name]) for op in ops if isinstance(op, MapOp)]


def test_tiles_of_mobilenetv2_from_image_to_result():
    """4 x 4 tiles of the first 28 x 28 block: the sizes that the authors' code generator gives."""
    stage = stage_at(maps("mobilenetv2"), "b4", 4, clip=False)
    assert stage.window == (75, 75)
    assert [stage.largest(op.name)[0] for op in stage.ops if op.kind != "add"] == [37, 35, 35, 35, 17, 17, 17, 15, 15, 15, 7, 7]


# MACs computed again, percent: of the stage, of the network, of the network with clipped windows
OVERHEADS = {
    ("mobilenetv2", "b4", 4): (75, 41.9, 12.7, 9.3), ("mobilenetv2", "b4", 2): (131, 19.8, 6.0, 2.9),
    ("mobilenetv2", "b5", 4): (91, 108.3, 36.8, 26.3), ("mcunetv2-large", "8", 4): (63, 18.1, 4.1, 3.0),
    ("mcunet-vww1", "5", 2): (47, 17.3, 2.9, 1.4),
}  # fmt: skip


@pytest.mark.parametrize("case", OVERHEADS, ids=str)
def test_what_is_computed_again_is_the_published_share(case):
    name, split, n = case
    net, ops = load_convnet(name), maps(name)
    whole, clipped = stage_at(ops, split, n, clip=False), stage_at(ops, split, n, clip=True)
    found = (100 * whole.overhead, *(100 * (one.macs - one.base_macs) / net.macs for one in (whole, clipped)))
    assert whole.window[0] == OVERHEADS[case][0]
    assert found == pytest.approx(OVERHEADS[case][1:], abs=0.06)


def test_peak_memory_of_mobilenetv2():
    """Layer by layer 112 x 112 x (16 + 96); 28 x 28 x 32 and a tile of 35 x 35 x (16 + 96); then 28 x 28 x (32 + 192 + 1)."""
    ops = maps("mobilenetv2")
    stage = stage_at(ops, "b4", 4, clip=False)
    assert max(float(op.workspace) for op in ops) == 112**2 * 112
    assert stage.peak == 28**2 * 32 + 35**2 * 112
    assert rest_peak(ops, stage) == 28**2 * 225


def chain() -> list[MapOp]:
    layers = [{"conv": 4, "kernel": 3}, {"conv": 6, "kernel": 3, "stride": 2}]
    ops = lower_convnet(read_convnet({"image": [2, 8, 8], "layers": [*layers, {"dense": 3}]}, "chain", "chain.yaml"))
    return [op for op in ops if isinstance(op, MapOp)]


def test_a_chain_pixel_by_pixel():
    """Two of four results need 5 pixels of the middle map, at the border one of them padding, and those 7 pixels of the image."""
    stage = stage_at(chain(), "conv2", 2, clip=True)
    assert [tile["conv"] for tile in stage.rows] == [(0, 4), (3, 8)]
    assert [tile[""] for tile in stage.rows] == [(0, 5), (2, 8)]
    assert stage.macs == 8**2 * 0 + (4 + 5) ** 2 * 4 * 2 * 9 + 4 * 4 * 6 * 4 * 9
    assert stage_at(chain(), "conv2", 2, clip=False).macs == (5 + 5) ** 2 * 4 * 2 * 9 + 4 * 4 * 6 * 4 * 9


def test_one_tile_is_the_layers_themselves():
    stage = stage_at(maps("mobilenetv2"), "b4", 1, clip=True)
    assert stage.macs == stage.base_macs


def test_the_rewritten_list_does_what_the_stage_says():
    device, ops = load_device("stm32h743-qspi"), maps("mobilenetv2")
    clipped = stage_at(ops, "b4", 4, clip=True)
    found = [op for op in patched(lower_convnet(load_convnet("mobilenetv2")), device, "b4", 4) if isinstance(op, Convolution)]
    assert sum(float(op.macs) for op in found) == pytest.approx(clipped.macs + 300_774_272 - clipped.base_macs)
    assert sum(float(op.resident["weights"]) for op in found if op.tied) == 0
    assert Counter(op.block for op in found)["tile 15"] == 12


def test_memory_of_the_rewritten_list_is_the_peak_of_the_plan():
    device, net = load_device("stm32h743-qspi"), load_convnet("mobilenetv2")
    ops = [op for op in patched(lower_convnet(net), device, "b4", 4, 1) if isinstance(op, MapOp)]
    planned = [op for op in patched(lower_convnet(net), device, "b4", 1, 1) if isinstance(op, MapOp)]
    assert max(float(op.workspace) for op in ops) < max(float(op.workspace) for op in planned) / 6


def test_auto_takes_what_fits_and_computes_least_again():
    ops = maps("mobilenetv2")
    stage = best_stage(ops, 256 * KIB, range(2, 9), clip=True)
    assert stage is not None
    assert max(stage.peak, rest_peak(ops, stage)) <= 256 * KIB
    every = [stage_at(ops, ops[last].name, n, clip=True) for last in cuts(ops) for n in range(2, 8) if ops[last].rows_out >= n]
    fitting = [one for one in every if max(one.peak, rest_peak(ops, one)) <= 256 * KIB]
    assert stage.macs - stage.base_macs == min(one.macs - one.base_macs for one in fitting)
    assert best_stage(ops, 2000 * KIB, range(2, 9), clip=True) is None


def test_patches_let_a_network_run_that_does_not_fit():
    net, device = load_convnet("mobilenetv2:width=0.35,resolution=224"), load_device("stm32f746")
    with pytest.raises(CapacityError, match="memory sram"):
        run_images(net, device)
    assert run_images(net, device, "patch:auto").latency_s > 0
    with pytest.raises(CapacityError, match="memory flash"):
        run_images(load_convnet("mobilenetv2"), device, "patch:auto")


@pytest.mark.parametrize("policy", ["patch:split=b4,n=3", "patch:b4,n=3", "patch:auto", "patch.layers"])
def test_both_roads_agree(policy):
    device = load_device("stm32h743")
    rows = image_rows(load_convnet("mobilenetv2:width=0.35,resolution=144"), device, policy)
    assert simulate(rows, device).latency_s == pytest.approx(float(estimate(rows, device).latency_s), rel=1e-9)


@pytest.mark.parametrize(
    "policy",
    [
        "patch:nowhere",
        "patch:split=b4,n=99",
        "patch:split=b4,n=2.5",
        "patch:split=999",
        "patch:split=b4,n=2,clip=3",
        "patch:b4,k=2",
    ],
)
def test_policies_that_make_no_sense(policy):
    with pytest.raises(InputError):
        run_images(load_convnet("mcunet-in0"), load_device("stm32h743"), policy)


def test_transformers_have_no_tiles():
    from hwsim.job import run

    with pytest.raises(InputError, match="convolutional"):
        run("gpt2", "h100", policy="patch:auto")


def test_memory_over_the_schedule_is_drawn():
    """The figure's highest bar is the peak that the capacity check saw, and the report holds it."""
    from hwsim.placement.capacity import footprint
    from hwsim.report.html import html_report
    from hwsim.report.memory import memory_caption, memory_figure

    net, device = load_convnet("mobilenetv2:width=0.35,resolution=144"), load_device("stm32f746")
    trace = run_images(net, device, "patch:b4,n=3")
    peak = footprint(image_rows(net, device, "patch:b4,n=3"), device)[0, "sram"]["activations"]
    figure = memory_figure(trace, device)
    assert max(max(bars.y) for bars in figure.data) == peak == trace.marks["peak_activation_bytes"]
    assert sum(len(bars.y) for bars in figure.data) == len(trace.rows) - 1
    assert "327.7 kB" in memory_caption(trace, device)
    assert "Memory over the schedule" in html_report([(trace, device)], "title", {})
