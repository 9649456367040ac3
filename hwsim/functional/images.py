"""Images that nobody owns: dead leaves, whose statistics are those of natural images.

Opaque discs fall one upon another, with radii of density r^-3 and one colour each. What is left has the power spectrum 1/f^2 and
the heavy-tailed gradients of photographs (Lee, Mumford and Huang, IJCV 41, 2001). Left out: texture, shading, perspective.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DISCS = 600
SMALLEST = 2.0  # pixels


def dead_leaves(count: int, size: tuple[int, int, int], seed: int) -> NDArray[np.float64]:
    """`count` images of (channels, rows, columns), normalised to mean 0 and variance 1 over all of them."""
    rng = np.random.default_rng([seed, 0x1EAF])
    images = np.stack([_image(size, rng) for _ in range(count)])
    return np.asarray((images - images.mean()) / images.std())


def _image(size: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    channels, rows, columns = size
    largest = max(rows, columns) / 2.0
    image = np.tile(rng.random((channels, 1, 1)), (1, rows, columns))
    y, x = np.ogrid[:rows, :columns]
    steepness = 1.0 / SMALLEST**2 - 1.0 / max(largest, SMALLEST + 1.0) ** 2
    for radius in (1.0 / SMALLEST**2 - rng.random(DISCS) * steepness) ** -0.5:
        centre = rng.random(2) * (rows, columns)
        inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
        image[:, inside] = rng.random((channels, 1))
    return image
