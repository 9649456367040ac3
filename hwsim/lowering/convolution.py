"""Convolutions -> ops: square maps, kernels and strides, as one product of (output pixels x patch) and (patch x filters)."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwsim.errors import InputError
from hwsim.op import Array, Conv


def convolution(
    name: str, kind: str, *, images: Array, side: int, channels: int, filters: int, kernel: int, stride: int = 1,
    padding: int = 0, groups: int = 1, **rest: Any,
) -> Conv:  # fmt: skip
    """A convolution over `images` maps of side x side x channels; of `groups` each sees its part of channels and filters.

    m = images x out^2 with out = floor((side + 2 padding - kernel) / stride) + 1, n = filters / groups, k = kernel^2 x channels
    / groups. Pixels that no kernel reaches are not read. `rest` are fields of the op. InputError for a kernel beyond the map.
    """
    out = (side + 2 * padding - kernel) // stride + 1
    if out < 1 or channels % groups or filters % groups:
        raise InputError(
            f"{name}: kernel {kernel} on {side} x {side} x {channels}, {filters} filters in {groups} groups; "
            "accepted: a kernel within the padded map, groups that divide channels and filters"
        )
    reached = min(side, out * min(kernel, stride)) if kernel < stride else side
    deep = channels // groups
    return Conv(
        name=name, kind=kind, m=images * float(out**2), n=float(filters // groups), k=float(kernel**2 * deep),
        groups=float(groups), kernel=kernel, side=float(out), inputs=np.multiply(images, float(reached**2 * deep)), **rest,
    )  # fmt: skip
