"""Measures of the resistive-memory liquid state machine (arXiv:2307.00771): operations, weights, accuracy on streams.

Training cost is operations of the backward pass, as in the group's paper on graphs (doi:10.1038/s42256-023-00609-5).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hwsim.catalogue import load_device, load_model
from hwsim.claim import Run
from hwsim.device import Device
from hwsim.functional.events import Events, Modality, latents, streams
from hwsim.functional.readout import contrastive, retrieval, ridge_accuracy
from hwsim.functional.reservoir import Statistics, formed, respond
from hwsim.job import run as simulated
from hwsim.lowering.spiking import Activity, Encoder, SpikingNetwork, lower_spiking
from hwsim.spiking import crossbar_of

SILENT = Activity(0.0, 0.0, 0.0)  # the backward pass is dense: spikes do not matter


def backward_ops(chosen: Run) -> float:
    """Operations of the backward pass, of a sample of each modality."""
    net = _network(chosen.model)
    ops = lower_spiking(net, [SILENT] * len(net.encoders), float(chosen.batch), train=True)
    return sum(float(op.ops) * op.repeat for op in ops if op.kind.startswith("backward")) / chosen.batch


def encoder_macs(chosen: Run) -> float:
    """Multiply-accumulates of one stream through the encoder of `args`, every row multiplied."""
    return float(_encoder(chosen).macs)


def encoder_weights(chosen: Run) -> float:
    """Fixed weights of the encoder of `args`."""
    return float(_encoder(chosen).weights)


def weight_std(chosen: Run) -> float:
    """Deviation of weights on drawn cells, in siemens."""
    cells = formed(_encoder(chosen), _statistics(load_device(str(chosen.arch))), chosen.seed or 0)
    return float(np.std(cells.into)) * 1e-6


def energy_range(numbers: dict[str, list[dict[str, str]]], model: str, arch: str, over: str) -> dict[str, list[float]]:
    """Energy of `over` on the same model by that of `arch`, for each setting of assumed numbers, one group at a time."""
    base = simulated(model, over).energy_j
    return {name: [base / simulated(model, arch, set=one).energy_j for one in settings] for name, settings in numbers.items()}


# ---- accuracy on synthetic streams, which says nothing of recordings -----------------------------------------------------------


def accuracies(
    neurons: int = 200, *, read_noise: float | None = None, adc_bits: int | None = None, classes: int = 10, each: int = 100,
    seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Accuracy of a ridge readout on counts of the reservoir and on raw counts of its inputs; classes differ by order alone."""
    device = load_device("rram-40nm").with_values(_changed(read_noise, adc_bits))
    given = _network("lsm-nmnist").encoders[0]
    encoder = Encoder(**{**vars(given), "neurons": neurons})
    modality = Modality(encoder.inputs, encoder.steps, encoder.density, seed=seed, contrast=1.5, jitter=2, ordered=True)
    labels = np.arange(2 * each * classes) % classes
    events = streams(labels, latents(classes, 1, seed), modality, seed)
    counts = respond(events, encoder, formed(encoder, _statistics(device), seed), seed).counts
    return {"reservoir": _halves(counts, labels), "raw counts": _halves(events.sum(axis=1), labels), "chance": 1 / classes}


def sweep(seeds: int = 5, **fixed: Any) -> Iterator[dict[str, Any]]:
    """Rows (parameter, value, what, accuracy) over read noise, converter bits and neurons, the others as in the device file.

    Accuracies are means over drawn classes, streams and cells.
    """
    axes = {"read_noise": (0.0, 0.01, 0.03, 0.1, 0.3), "adc_bits": (2, 3, 4, 5, 6, 8, 10), "neurons": (25, 50, 100, 200, 400)}
    for name, values in axes.items():
        for value in values:
            found = [accuracies(**{**fixed, name: value}, seed=seed) for seed in range(seeds)]
            yield from (
                {"parameter": name, "value": value, "what": what, "accuracy": float(np.mean([one[what] for one in found]))}
                for what in found[0]
            )


def zero_shot(classes: int = 20, unseen: int = 4, each: int = 40, seed: int = 0) -> dict[str, float]:
    """Retrieval of images by sounds through contrastive projections, on new samples of seen and on unseen classes; chance."""
    labels = np.repeat(np.arange(classes), each)
    image, audio = (_features(encoder, labels, classes, seed + i) for i, encoder in enumerate(_network("lsm-atv").encoders))
    late = np.arange(len(labels)) % each >= 3 * each // 4
    parts = {
        "train": (labels < classes - unseen) & ~late,
        "seen": (labels < classes - unseen) & late,
        "unseen": labels >= classes - unseen,
    }
    left, right = contrastive(audio[parts["train"]], image[parts["train"]], labels[parts["train"]], 64, seed=seed)
    found = {
        name: retrieval(left.embed(audio[part]), labels[part], right.embed(image[part]), labels[part])
        for name, part in parts.items()
    }
    return found | {"chance.seen": 1 / (classes - unseen), "chance.unseen": 1 / unseen}


def _features(encoder: Encoder, labels: np.ndarray[Any, np.dtype[np.int_]], classes: int, seed: int) -> Any:
    modality = Modality(encoder.inputs, encoder.steps, encoder.density, seed=seed, jitter=2)
    events: Events = streams(labels, latents(classes, 4, 3), modality, seed)
    return respond(events, encoder, formed(encoder, _statistics(load_device("rram-40nm-2")), seed), seed).counts


def _halves(features: Any, labels: Any) -> float:
    half = len(labels) // 2
    return ridge_accuracy(features[:half], labels[:half], features[half:], labels[half:])


def _changed(read_noise: float | None, adc_bits: int | None) -> dict[str, object]:
    given = {"read_noise": read_noise, "adc_bits": adc_bits}
    return {f"units.crossbar.crossbar.{name}": float(value) for name, value in given.items() if value is not None}


def _network(name: str) -> SpikingNetwork:
    net = load_model(name)
    assert isinstance(net, SpikingNetwork)
    return net


def _encoder(chosen: Run) -> Encoder:
    return next(one for one in _network(chosen.model).encoders if one.name == chosen.args["encoder"])


def _statistics(device: Device) -> Statistics:
    found = crossbar_of(device)
    assert found is not None
    return Statistics.of(found)
