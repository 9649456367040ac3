"""Laws of tiles, over random networks: what is computed again is never negative, tiles cover the map, both roads agree."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.catalogue import load_device
from hwsim.engine import estimate, simulate
from hwsim.images import image_rows
from hwsim.lowering.convnet import ConvNet, lower_convnet
from hwsim.lowering.convnet_file import read_convnet
from hwsim.op import Convolution, MapOp
from hwsim.placement.tiles import cuts, stage_of

DEVICE = load_device("stm32h743")


def blocks() -> st.SearchStrategy[dict[str, Any]]:
    """Kernels of one pixel have no stride: they would leave pixels out that nobody needs, in tiles only."""
    size = {"kernel": st.sampled_from([3, 5]), "stride": st.sampled_from([1, 1, 2])}
    conv = st.fixed_dictionaries({"conv": st.integers(1, 12), **size})
    pointwise = st.fixed_dictionaries({"pointwise": st.integers(1, 12)})
    inverted = st.fixed_dictionaries({"inverted": st.sampled_from([8, 16]), "expand": st.integers(1, 4), **size})
    return st.one_of(conv, pointwise, inverted)


@st.composite
def networks(draw: st.DrawFn) -> ConvNet:
    image = [draw(st.integers(1, 3)), draw(st.integers(12, 40)), draw(st.integers(12, 40))]
    layers = draw(st.lists(blocks(), min_size=1, max_size=5))
    return read_convnet({"image": image, "layers": [*layers, {"mean": None}, {"dense": 3}]}, "random", "random.yaml")


def maps(net: ConvNet) -> list[MapOp]:
    return [op for op in lower_convnet(net) if isinstance(op, MapOp)]


@settings(max_examples=40, deadline=None)
@given(networks(), st.integers(1, 5), st.data())
def test_clipped_is_between_the_layers_themselves_and_unclipped(net, n, data):
    ops = maps(net)
    able = [last for last in cuts(ops) if min(ops[last].rows_out, ops[last].columns_out) >= n]
    if not able:
        return
    last = data.draw(st.sampled_from(able))
    clipped, whole = (stage_of(ops, last, n, clip) for clip in (True, False))
    assert clipped.base_macs * (1 - 1e-12) <= clipped.macs <= whole.macs * (1 + 1e-12)
    covered = sorted(tile[ops[last].name] for tile in clipped.rows)
    assert covered[0][0] == 0
    assert covered[-1][1] == ops[last].rows_out
    assert all(before[1] == after[0] for before, after in pairwise(covered))
    assert whole.peak >= clipped.peak * (1 - 1e-12)


@settings(max_examples=25, deadline=None)
@given(networks(), st.integers(2, 4))
def test_the_rewritten_list_computes_what_the_stage_counts_and_fits_its_peak(net, n):
    ops = maps(net)
    able = [last for last in cuts(ops) if min(ops[last].rows_out, ops[last].columns_out) >= n]
    if not able:
        return
    stage = stage_of(ops, able[-1], n, clip=True)
    rows = image_rows(net, DEVICE, f"patch:split={ops[able[-1]].name},n={n}")
    tiles = [row.op for row in rows if row.op.block.startswith("tile")]
    assert sum(float(op.macs) for op in tiles if isinstance(op, Convolution)) == pytest.approx(stage.macs)
    assert simulate(rows, DEVICE).latency_s == pytest.approx(float(estimate(rows, DEVICE).latency_s), rel=1e-9)
