"""What is trained behind a reservoir: a ridge readout of classes, and projections of two modalities by a contrastive loss.

    ridge:        W = (F'F + ridge I)^-1 F'Y on standardised features F and classes Y in +-1
    contrastive:  e = GELU(F W + b) / |.|,  S = e_a e_b' / temperature,  loss = mean cross-entropy of S by rows and by columns
                  (as CLIP), where S has its pairs on the diagonal; Adam over batches

Features are standardised by the training set.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, softmax

Floats = NDArray[np.float64]
Labels = NDArray[np.int_]


@dataclass(frozen=True, eq=False)
class Scale:
    """Mean and deviation of training features; features that never vary stay zero."""

    mean: Floats
    deviation: Floats

    @staticmethod
    def of(features: NDArray[np.floating]) -> Scale:
        """The scale of `features` (samples, width)."""
        deviation = features.std(axis=0)
        return Scale(features.mean(axis=0), np.where(deviation > 0, deviation, np.inf))

    def __call__(self, features: NDArray[np.floating]) -> Floats:
        """Features with the training set's mean 0 and deviation 1."""
        return np.asarray((features - self.mean) / self.deviation, float)


def ridge_accuracy(
    train: NDArray[np.floating], labels: Labels, test: NDArray[np.floating], wanted: Labels, ridge: float = 100.0
) -> float:
    """Part of `test` that a ridge readout trained on `train` names rightly."""
    scale = Scale.of(train)
    features = _with_one(scale(train))
    targets = np.where(labels[:, None] == np.arange(labels.max() + 1), 1.0, -1.0)
    weights = np.linalg.solve(features.T @ features + ridge * np.eye(features.shape[1]), features.T @ targets)
    return float(np.mean(np.argmax(_with_one(scale(test)) @ weights, axis=1) == wanted))


def _with_one(features: Floats) -> Floats:
    return np.hstack([features, np.ones((len(features), 1))])


@dataclass(eq=False)
class Projection:
    """One linear layer with GELU into the common space, and the state of its optimiser."""

    weights: Floats
    bias: Floats
    scale: Scale
    _moments: dict[str, tuple[Floats, Floats]] = field(default_factory=dict)

    def embed(self, features: NDArray[np.floating]) -> Floats:
        """Unit vectors (samples, width) of features."""
        return _forward(self.scale(features), self)[0]

    def update(self, gradients: dict[str, Floats], rate: float, turn: int) -> None:
        """One step of Adam (0.9, 0.999)."""
        for name, gradient in gradients.items():
            first, second = self._moments.get(name, (np.zeros_like(gradient), np.zeros_like(gradient)))
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            self._moments[name] = (first, second)
            change = (first / (1 - 0.9**turn)) / (np.sqrt(second / (1 - 0.999**turn)) + 1e-8)
            setattr(self, name, getattr(self, name) - rate * change)


def contrastive(
    one: NDArray[np.floating], other: NDArray[np.floating], labels: Labels, width: int, *, seed: int, epochs: int = 60,
    rate: float = 1e-3, temperature: float = 0.1,
) -> tuple[Projection, Projection]:  # fmt: skip
    """Projections of two modalities trained on pairs (rows of `one` and `other`) of `labels`; a batch has each class once."""
    draw = np.random.default_rng([seed, 20])
    sides = tuple(_started(features, width, draw) for features in (one, other))
    scaled = tuple(side.scale(features) for side, features in zip(sides, (one, other), strict=True))
    turn = 0
    for _ in range(epochs):
        for batch in _batches(labels, draw):
            turn += 1
            _, gradients = loss(scaled[0][batch], scaled[1][batch], sides[0], sides[1], temperature)
            for side, gradient in zip(sides, gradients, strict=True):
                side.update(gradient, rate, turn)
    return sides[0], sides[1]


def _started(features: NDArray[np.floating], width: int, draw: np.random.Generator) -> Projection:
    size = features.shape[1]
    return Projection(draw.standard_normal((size, width)) / np.sqrt(size), np.zeros(width), Scale.of(features))


def _batches(labels: Labels, draw: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """Indices with one sample of each class, until the smallest class is used up."""
    order = [draw.permutation(np.flatnonzero(labels == name)) for name in np.unique(labels)]
    for turn in range(min(map(len, order))):
        yield np.array([indices[turn] for indices in order])


def loss(
    one: Floats, other: Floats, left: Projection, right: Projection, temperature: float
) -> tuple[float, tuple[dict[str, Floats], dict[str, Floats]]]:
    """The symmetric cross-entropy of a batch of pairs, standardised features (pairs, width), and its gradients."""
    (a, *kept_a), (b, *kept_b) = _forward(one, left), _forward(other, right)
    similar = a @ b.T / temperature
    by_row, by_column = softmax(similar, axis=1), softmax(similar, axis=0)
    pairs = len(one)
    value = -float(np.mean(np.log(np.diag(by_row) * np.diag(by_column) + 1e-300))) / 2
    slope = (by_row + by_column - 2 * np.eye(pairs)) / (2 * pairs * temperature)
    return value, (_backward(slope @ b, one, a, *kept_a), _backward(slope.T @ a, other, b, *kept_b))


def _forward(features: Floats, side: Projection) -> tuple[Floats, Floats, Floats]:
    """Unit embeddings, their lengths before, and what went into GELU."""
    before = features @ side.weights + side.bias
    active = before * _normal(before)
    length = np.linalg.norm(active, axis=1, keepdims=True) + 1e-12
    return active / length, length, before


def _backward(slope: Floats, features: Floats, unit: Floats, length: Floats, before: Floats) -> dict[str, Floats]:
    """Gradients of weights and bias from those of the unit embeddings."""
    inside = (slope - unit * np.sum(slope * unit, axis=1, keepdims=True)) / length
    inside = inside * (_normal(before) + before * np.exp(-(before**2) / 2) / np.sqrt(2 * np.pi))
    return {"weights": features.T @ inside, "bias": inside.sum(axis=0)}


def _normal(x: Floats) -> Floats:
    """The cumulative normal distribution, which GELU multiplies its input by."""
    return np.asarray((1 + erf(x / np.sqrt(2))) / 2)


def retrieval(queries: Floats, wanted: Labels, gallery: Floats, names: Labels) -> float:
    """Part of `queries` whose nearest unit vector in `gallery` is of the class `wanted`."""
    return float(np.mean(names[np.argmax(queries @ gallery.T, axis=1)] == wanted))
