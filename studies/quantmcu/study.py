"""Measures of patch-based inference on microcontrollers: memory of engines, tiles, what is computed again, mixed widths.

`args` of a run say the split and the number of tiles; engines are the run's `stack`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, geometric_mean

from hwsim.catalogue import load_convnet, load_device
from hwsim.claim import Run
from hwsim.device import Device
from hwsim.engine import estimate
from hwsim.engine.tasks import tasks
from hwsim.images import image_rows, run_images
from hwsim.lowering.convnet import lower_convnet
from hwsim.mixed import Mixed, quantmcu
from hwsim.op import MapOp
from hwsim.placement import place
from hwsim.placement.capacity import footprint
from hwsim.placement.policy import fastest
from hwsim.placement.tiles import Stage, best_stage, rest_peak, stage_at, stage_of

# MCUNetV2 profiles five networks; two have public tables (MobileNetV2, FBNet-A), the others are searched ones of that class
STUDIED = ("mobilenetv2", "fbnet-a", "mnasnet-b1", "proxylessnas")
OF_2020 = ("mobilenetv2:width=0.35,resolution=64", "proxylessnas:width=0.3,resolution=64", "mnasnet-b1:width=0.2,resolution=96")
OF_2022 = ("mcunet-in0", "mcunet-in1", "mcunet-in2", "mcunet-in3", "mcunet-vww1")  # TinyEngine's README, tables that are known


def _board(chosen: Run, stack: str | None = None) -> Device:
    return load_device(str(chosen.arch)).with_stack(stack or chosen.stack)


def _held(model: str, device: Device) -> dict[str, float]:
    """Bytes per memory, whether they fit or not."""
    found = footprint(image_rows(load_convnet(model), device), device)
    return {memory: float(sum(parts.values())) for (_, memory), parts in found.items()}


def sram_bytes(chosen: Run) -> float:
    """Peak bytes of SRAM: maps, windows and runtime of the engine."""
    return _held(chosen.model, _board(chosen))["sram"]


def flash_bytes(chosen: Run) -> float:
    """Bytes of flash: weights, scales and code."""
    return _held(chosen.model, _board(chosen))["flash"]


def activation_bytes(chosen: Run) -> float:
    """Peak bytes of maps alone, every result a map of its own."""
    return max(float(op.workspace) for op in lower_convnet(load_convnet(chosen.model)))


def inferences_per_s(chosen: Run) -> float:
    """Images a second."""
    return 1.0 / run_images(load_convnet(chosen.model), _board(chosen)).latency_s


def _maps(model: str) -> list[MapOp]:
    """Ops as MCUNetV2's analysis counts them: depthwise results over their input, sums over the map that waits."""
    ops = [op for op in lower_convnet(load_convnet(model)) if isinstance(op, MapOp)]
    summed = {op.source for op in ops if op.kind == "add"}
    return [_over(op, op.name in summed) for op in ops]


def _over(op: MapOp, summed: bool) -> MapOp:
    if op.kind == "depthwise":
        return replace(op, written="channel")
    return replace(op, written="none" if summed or op.kind == "add" else "map")


def _stage(chosen: Run) -> Stage:
    args = chosen.args
    return stage_at(_maps(chosen.model), str(args["split"]), args["n"], bool(args.get("clip", False)))


def _peak(model: str) -> float:
    return max(float(op.workspace) for op in _maps(model))


def layer_peak(chosen: Run) -> float:
    """Bytes of maps, layer by layer in place."""
    return _peak(chosen.model)


def patch_peak(chosen: Run) -> float:
    """Bytes of maps with the first layers on patches: the larger of the stage and of the rest."""
    stage = _stage(chosen)
    return max(stage.peak, rest_peak(_maps(chosen.model), stage))


def peak_ratio(chosen: Run) -> float:
    """How much less the patches need."""
    return layer_peak(chosen) / patch_peak(chosen)


def patch_size(chosen: Run) -> float:
    """Rows of the image that a patch reads."""
    return float(_stage(chosen).window[0])


def stage_overhead(chosen: Run) -> float:
    """Multiply-accumulates computed again, of the stage's."""
    return _stage(chosen).overhead


def total_overhead(chosen: Run) -> float:
    """Multiply-accumulates computed again, of the network's."""
    stage = _stage(chosen)
    return (stage.macs - stage.base_macs) / load_convnet(chosen.model).macs


def high_blocks(chosen: Run) -> float:
    """Blocks of the network whose peak is above the mean over blocks."""
    peaks: dict[str, float] = {}
    for op in _maps(chosen.model):
        block = op.name.partition(".")[0]
        peaks[block] = max(peaks.get(block, 0.0), float(op.workspace))
    blocks = [peak for block, peak in peaks.items() if block not in ("pointwise", "mean", "dense")]
    return float(sum(peak > fmean(blocks) for peak in blocks))


def _smallest(model: str) -> tuple[float, float]:
    """(peak layer by layer over the smallest with up to 4 x 4 patches, multiply-accumulates computed again)."""
    ops = _maps(model)
    stage = best_stage(ops, 0.0, (2, 3, 4), clip=True)
    assert stage is not None
    counted = stage_of(ops, len(stage.ops) - 1, stage.n, clip=False)
    again = (counted.macs - counted.base_macs) / load_convnet(model).macs
    return _peak(model) / max(stage.peak, rest_peak(ops, stage)), again


def peak_ratios(chosen: Run) -> Sequence[float]:
    """Least and most of the peak's reduction over the networks studied."""
    found = [_smallest(model)[0] for model in STUDIED]
    return min(found), max(found)


def overheads(chosen: Run) -> Sequence[float]:
    """Least and most that is computed again over the networks studied, at the smallest peak."""
    found = [_smallest(model)[1] for model in STUDIED]
    return min(found), max(found)


def latency_overhead(chosen: Run) -> float:
    """Seconds on patches over seconds layer by layer (as if that fitted), less one."""
    device, net = _board(chosen), load_convnet(chosen.model)
    return run_images(net, device, chosen.policy).latency_s / _seconds(chosen.model, device) - 1.0


def _seconds(model: str, device: Device) -> float:
    """Seconds layer by layer, whether it fits or not."""
    return sum(float(task.cost.alone_s) for task in tasks(image_rows(load_convnet(model), device), device))


def engine_speedups(chosen: Run) -> Sequence[float]:
    """Geometric means of what other engines take, over TinyEngine of 2020: CMSIS-NN, then TF-Lite Micro."""
    return [
        geometric_mean(_of(model, chosen, other) / _of(model, chosen, "tinyengine2020") for model in OF_2020)
        for other in ("cmsis2020", "tflm2020")
    ]


def _of(model: str, chosen: Run, stack: str) -> float:
    return _seconds(model, _board(chosen, stack))


def speedup_range(chosen: Run) -> Sequence[float]:
    """Least and most that other engines take over TinyEngine, over networks and engines."""
    found = [_of(m, chosen, other) / _of(m, chosen, "tinyengine") for m in OF_2022 for other in ("tflm", "cmsis", "xcube")]
    return min(found), max(found)


def memory_range(chosen: Run) -> Sequence[float]:
    """Least and most that other engines' SRAM is over TinyEngine's, over networks and engines."""
    found = [
        _held(m, _board(chosen, other))["sram"] / _held(m, _board(chosen, "tinyengine"))["sram"]
        for m in OF_2022
        for other in ("tflm", "cmsis", "xcube")
    ]
    return min(found), max(found)


def memory_saving(chosen: Run) -> float:
    """SRAM of CMSIS-NN over that of TinyEngine of 2020, geometric mean over networks."""
    return geometric_mean(
        _held(model, _board(chosen, "cmsis2020"))["sram"] / _held(model, _board(chosen, "tinyengine2020"))["sram"]
        for model in OF_2020
    )


def _mixed(chosen: Run) -> list[Mixed]:
    args, device = chosen.args, _board(chosen)
    cases = [(str(model), str(split), int(n)) for model, split, n in args["networks"]]
    return [quantmcu(load_convnet(m), device, split, n, args["phi"], args["lambda"], chosen.seed or 0) for m, split, n in cases]


def bitops_ratio(chosen: Run) -> float:
    """Bit operations of patches in 8 bit over those of the widths that the search finds, mean over networks."""
    return fmean(mixed.bitops_ratio for mixed in _mixed(chosen))


def mixed_latency_ratio(chosen: Run) -> float:
    """Seconds of patches in 8 bit over those of the widths that the search finds, mean over networks."""
    device = _board(chosen)
    return fmean(_gain(mixed, device) for mixed in _mixed(chosen))


def _gain(mixed: Mixed, device: Device) -> float:
    narrow = fmean(float(estimate(place(ops, device, fastest()), device).latency_s) for ops in mixed.narrow)
    return float(estimate(place(mixed.eight, device, fastest()), device).latency_s) / narrow
