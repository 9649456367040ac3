"""A liquid state machine (arXiv:2307.00771): leaky integrate-and-fire neurons behind fixed random weights, a crossbar's cells.

    u_t = decay u_{t-1} (1 - s_{t-1}) + scale (W_in x_t + W_rec s_{t-1}),   s_t = [u_t > threshold],   counts = sum over t of s_t

A weight is the difference of two cells whose conductances, in uS, are drawn once: mean and spread as forming leaves them, never
below zero. Each read adds noise of `read_noise` times the conductance of every cell that conducts, taken as normal with the mean
square of the cells; converters clip at +-`full_scale` and round to 2^bits levels. Streams go
through the steps side by side, in parts of which each has a random stream of its own: threads change nothing.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from hwsim.device import Crossbar
from hwsim.errors import InputError
from hwsim.functional.events import Events
from hwsim.lowering.spiking import Encoder

Floats = NDArray[np.float32]
MICRO = 1e6  # siemens to the uS that `scale` multiplies
_TOGETHER = 64  # streams that one thread steps side by side
_SPARSE = 0.3  # part of rows that spike below which gathering them beats a full product


@dataclass(frozen=True, eq=False)
class Cells:
    """Weights in uS on drawn cells: (inputs, neurons) and (neurons, neurons), and what a read does to their sums."""

    into: Floats
    recurrent: Floats
    square: float = 0.0  # mean of G+^2 + G-^2 over pairs, uS^2
    read_noise: float = 0.0
    bits: int = 0  # 0: no converter
    full_scale: float = 0.0


@dataclass(frozen=True)
class Statistics:
    """What values on a crossbar depend on, in SI: cells as formed, noise of a read, converters."""

    conductance: float
    spread: float
    read_noise: float
    adc_bits: float
    full_scale: float

    @staticmethod
    def of(crossbar: Crossbar) -> Statistics:
        """Those of a device. InputError where one is an array of design points, since cells are drawn once."""
        numbers = {part.name: getattr(crossbar, part.name) for part in fields(Statistics)}
        several = next((name for name, value in numbers.items() if np.ndim(value)), None)
        if several:
            raise InputError(f"crossbar.{several}: an array; accepted: one number, since cells are drawn once")
        return Statistics(**{name: float(value) for name, value in numbers.items()})


@dataclass(frozen=True, eq=False)
class Response:
    """What a reservoir did: counts (streams, neurons), and spikes in and fired by (streams, steps)."""

    counts: Floats
    spikes_in: Floats
    fired: Floats

    @property
    def inputs(self) -> float:
        """Mean input spikes of a step."""
        return float(self.spikes_in.mean())

    @property
    def neurons(self) -> float:
        """Mean spikes that a step reads back: those fired in the step before, none in the first one."""
        return float(self.fired[:, :-1].sum() / self.fired.size)

    @property
    def counted(self) -> float:
        """Mean spikes fired in a step."""
        return float(self.fired.mean())


def ideal(encoder: Encoder, seed: int) -> Cells:
    """Weights of the network's own spread on exact cells, as software has them."""
    draw = np.random.default_rng([seed, 10])
    std = np.float32(encoder.weight_std)
    into, recurrent = (
        std * draw.standard_normal((rows, encoder.neurons), np.float32) for rows in (encoder.inputs, encoder.neurons)
    )
    return Cells(into, recurrent)


def formed(encoder: Encoder, statistics: Statistics, seed: int) -> Cells:
    """Weights on cells as they were formed."""
    draw = np.random.default_rng([seed, 10])
    mean, spread = MICRO * statistics.conductance, MICRO * statistics.spread
    pairs, square = [], []
    for rows in (encoder.inputs, encoder.neurons):
        plus, minus = (_cells(draw, mean, spread, (rows, encoder.neurons)) for _ in range(2))
        pairs.append(plus - minus)
        square.append(float(np.mean(plus**2 + minus**2)))
    return Cells(
        pairs[0], pairs[1], square=float(np.mean(square)), read_noise=statistics.read_noise, bits=int(statistics.adc_bits),
        full_scale=MICRO * statistics.full_scale,
    )  # fmt: skip


def _cells(draw: np.random.Generator, mean: float, spread: float, shape: tuple[int, int]) -> Floats:
    drawn: Floats = np.maximum(mean + spread * draw.standard_normal(shape, np.float32), 0).astype(np.float32)
    return drawn


def respond(events: Events, encoder: Encoder, cells: Cells, seed: int = 0) -> Response:
    """Run `events` (streams, steps, inputs) through the reservoir. InputError when they have other inputs than its weights."""
    if events.ndim != 3 or events.shape[2] != len(cells.into):
        raise InputError(f"events: shape {events.shape}; accepted: (streams, steps, {len(cells.into)})")
    parts = [events[first : first + _TOGETHER] for first in range(0, len(events), _TOGETHER)]
    seeds = np.random.SeedSequence([seed, 11]).spawn(len(parts))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda part, of: _respond(part, encoder, cells, np.random.default_rng(of)), parts, seeds))
    return Response(*(np.concatenate(one) for one in zip(*found, strict=True)))


def _respond(events: Events, encoder: Encoder, cells: Cells, draw: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Counts, spikes in and fired of a few streams, which stay in a processor's cache."""
    many, steps, _ = events.shape
    spikes_in = events.sum(axis=2, dtype=np.float32)
    potential = np.zeros((many, cells.recurrent.shape[1]), np.float32)
    spikes, counts = np.zeros_like(potential), np.zeros_like(potential)
    fired = np.zeros((many, steps), np.float32)
    for step in range(steps):
        current = _product(events[:, step], cells.into) + _product(spikes, cells.recurrent)
        rows = spikes_in[:, step] + spikes.sum(axis=1)
        potential *= encoder.decay * (1 - spikes)
        potential += encoder.scale * _read(current, rows, cells, draw)
        spikes = (potential > encoder.threshold).astype(np.float32)
        counts += spikes
        fired[:, step] = spikes.sum(axis=1)
    return counts, spikes_in, fired


def _product(spikes: NDArray[np.generic], weights: Floats) -> Floats:
    """spikes @ weights; only the rows that spike where they are few."""
    if np.count_nonzero(spikes) > _SPARSE * spikes.size:
        dense: Floats = spikes.astype(np.float32) @ weights
        return dense
    from scipy.sparse import csr_array

    sparse: Floats = csr_array(spikes.astype(np.float32)) @ weights
    return sparse


def _read(current: Floats, rows: Floats, cells: Cells, draw: np.random.Generator) -> Floats:
    """What the converters say of exact sums over `rows` cells per column and stream."""
    if cells.read_noise:
        deviation = cells.read_noise * np.sqrt(rows * cells.square)
        current = current + deviation[:, None].astype(np.float32) * draw.standard_normal(current.shape, np.float32)
    if not cells.bits:
        return current
    step = 2 * cells.full_scale / (2**cells.bits - 1)
    read: Floats = np.clip(np.round(current / step) * step, -cells.full_scale, cells.full_scale).astype(np.float32)
    return read
