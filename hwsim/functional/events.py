"""Synthetic event streams: binary spikes of `inputs` channels over `steps`, in classes that differ by what happens when.

Inputs are `GROUPS` groups of neighbours, time is `SEGMENTS` segments; a class gives every (segment, group) a gain on the mean
rate. A latent vector per class makes these gains through a random mixing that belongs to the modality, so that two modalities of
one class have something in common and new classes lie among the old ones. With `ordered`, every class has the gains of every
group in another order of segments: expected counts are then equal, and only the order in time tells classes apart.

These streams stand in for recordings that do not ship with the project. Nothing measured on them is a result on those recordings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import InputError

Events = NDArray[np.uint8]  # (streams, steps, inputs), 0 or 1
SEGMENTS, GROUPS = 5, 8


@dataclass(frozen=True)
class Modality:
    """What streams of one sort have in common: channels, steps, mean density of spikes, and a seed for its random mixing.

    `contrast` scales the gains, `jitter` is the largest shift in time of a stream, in steps.
    """

    inputs: int
    steps: int
    density: float
    seed: int = 0
    contrast: float = 1.0
    jitter: int = 0
    ordered: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.density <= 1:
            raise InputError(f"density: {self.density!r}; accepted: 0 to 1")


def latents(classes: int, width: int, seed: int) -> NDArray[np.float64]:
    """A latent vector for each class: (classes, width)."""
    return np.random.default_rng([seed, 0]).standard_normal((classes, width))


def streams(labels: NDArray[np.int_], latent: NDArray[np.float64], modality: Modality, seed: int) -> Events:
    """A stream for each label: (streams, steps, inputs). Same seeds, same spikes."""
    rates = _rates(latent, modality)
    draw = np.random.default_rng([seed, 1])
    shifts = draw.integers(-modality.jitter, modality.jitter + 1, len(labels))
    found = np.empty((len(labels), modality.steps, modality.inputs), np.uint8)
    for index, (label, shift) in enumerate(zip(labels, shifts, strict=True)):
        chance = np.roll(rates[label], int(shift), axis=0)
        found[index] = draw.random(chance.shape, np.float32) < chance
    return found


def _rates(latent: NDArray[np.float64], of: Modality) -> NDArray[np.float32]:
    """Chance of a spike by class, step and input."""
    draw = np.random.default_rng([of.seed, 2])
    if of.ordered:
        gains = draw.standard_normal((SEGMENTS, GROUPS))
        gains = np.stack([_reordered(gains, np.random.default_rng([of.seed, 3, index])) for index in range(len(latent))])
    else:
        gains = np.tensordot(latent, draw.standard_normal((latent.shape[1], SEGMENTS, GROUPS)), 1) / np.sqrt(latent.shape[1])
    weight = np.exp(of.contrast * gains)
    weight /= weight.mean(axis=(1, 2), keepdims=True)
    segment = np.arange(of.steps) * SEGMENTS // of.steps
    group = np.arange(of.inputs) * GROUPS // of.inputs
    rates: NDArray[np.float32] = np.minimum(of.density * weight[:, segment][:, :, group], 1.0).astype(np.float32)
    return rates


def _reordered(gains: NDArray[np.float64], draw: np.random.Generator) -> NDArray[np.float64]:
    """The gains of each group in an order of segments of its own."""
    return np.stack([column[draw.permutation(SEGMENTS)] for column in gains.T], axis=1)
