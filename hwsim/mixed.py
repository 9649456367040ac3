"""QuantMCU end to end: a network on patches, its feature maps computed in integers, patches classified, widths searched.

Statistics are those of a network with drawn weights on images of natural statistics (`hwsim.functional`), not of a trained one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.functional.convnet import drawn_weights, normalised, quantised
from hwsim.functional.images import dead_leaves
from hwsim.functional.search import Found, patches_with_outliers, search
from hwsim.lowering.convnet import IMAGE, ConvNet, lower_convnet
from hwsim.op import Convolution, MapOp, Op
from hwsim.placement.mixed import bit_operations, with_bits
from hwsim.placement.patch import as_engine, sram_of, tiled
from hwsim.placement.tiles import Stage, stage_at

IMAGES = 3  # a small calibration batch


@dataclass(frozen=True, eq=False)
class Mixed:
    """What was found: `kept` says per image which tiles stay in 8 bit; op lists per image beside that in 8 bit throughout."""

    stage: Stage
    kept: NDArray[np.bool_]
    found: Found
    eight: Sequence[Op]
    narrow: Sequence[Sequence[Op]]

    @property
    def bitops_ratio(self) -> float:
        """Bit operations of patches in 8 bit over those with the widths found, mean over images."""
        return bit_operations(self.eight) / float(np.mean([bit_operations(ops) for ops in self.narrow]))


def quantmcu(
    net: ConvNet, device: Device, split: str, n: int, phi: float = 0.95, weight: float = 0.5, seed: int = 0,
    everywhere: bool = True,
) -> Mixed:  # fmt: skip
    """VDPC and VDQS for `net` in n x n patches up to `split`.

    `phi` is the central mass of the classification, `weight` the lambda of the search; with `everywhere` maps behind the patches
    are searched too. InputError where the list holds what has no values.
    """
    maps = [op for op in as_engine(lower_convnet(net), device) if isinstance(op, MapOp)]
    stage = stage_at(maps, split, n, clip=True)
    images, values = feature_maps(net, seed)
    kept = patches_with_outliers(images, [one[IMAGE] for one in stage.rows], [one[IMAGE] for one in stage.columns], phi)
    eight = tiled(maps, stage)
    read = _read(eight)
    searched = [op.name for op in (maps if everywhere else stage.ops) if op.name in read]
    found = search({name: values[name] for name in searched}, read, weight, sram_of(device))
    lists = [with_bits(eight, found.bits, set(np.flatnonzero(mask).tolist())) for mask in kept.reshape(len(kept), -1)]
    return Mixed(stage, kept, found, eight, lists)


@cache
def feature_maps(net: ConvNet, seed: int) -> tuple[NDArray[np.float64], Mapping[str, NDArray[np.float64]]]:
    """Images of natural statistics, and the integer maps of the network with drawn weights on them."""
    if any(layer.does == "copy" for layer in net.layers):
        raise InputError(f"{net.name}: a layer that only moves elements has no values here; accepted: windows, sums, products")
    images = dead_leaves(IMAGES, net.image, seed)
    weights, maps = normalised(net, drawn_weights(net, seed), images)
    return images, quantised(net, weights, maps).run(images)


def _read(ops: Sequence[Op]) -> dict[str, float]:
    """Multiply-accumulates that read each map."""
    found: dict[str, float] = {}
    for op in ops:
        if isinstance(op, Convolution):
            found[op.source] = found.get(op.source, 0.0) + float(op.macs)
    return found
