"""Convolutions as products, by hand; the patches of ViT."""

from __future__ import annotations

import pytest

from hwsim.catalogue import load_model
from hwsim.errors import InputError
from hwsim.lowering.batch import prefill
from hwsim.lowering.convolution import convolution
from hwsim.lowering.transformer import lower
from hwsim.op import Conv


def conv(**changes) -> Conv:
    shape = {"images": 8.0, "side": 56, "channels": 64, "filters": 128, "kernel": 3, "stride": 2, "padding": 1} | changes
    return convolution("c", "conv", weights="int8", activations="int8", stream="int8", **shape)


def test_a_strided_convolution_by_hand():
    op = conv()
    assert (op.side, op.m, op.n, op.k) == (28, 8 * 28 * 28, 128, 9 * 64)
    assert op.ops == 2 * 8 * 28 * 28 * 128 * 9 * 64
    assert op.bytes == {"weights": 128 * 9 * 64, "activations": 8 * 56 * 56 * 64 + 8 * 28 * 28 * 128}


def test_a_pixel_that_no_kernel_reaches_is_not_read():
    op = conv(kernel=1, padding=0)
    assert op.bytes["activations"] == 8 * 28 * 28 * 64 + 8 * 28 * 28 * 128


def test_groups_share_channels_and_filters():
    op = conv(groups=64, filters=64, stride=1)  # depthwise
    assert op.ops == 2 * 8 * 56 * 56 * 64 * 9
    assert op.bytes["activations"] == 2 * 8 * 56 * 56 * 64


def test_what_does_not_divide_is_refused():
    with pytest.raises(InputError, match="groups that divide"):
        conv(groups=3)
    with pytest.raises(InputError, match="kernel 9 on 4 x 4"):
        conv(kernel=9, side=4, padding=0)


def test_vit_embeds_patches_and_has_its_published_parameters():
    model = load_model("vit-base")
    assert model.parameters == 86_567_656
    first = lower(model, prefill(2, 197))[0]
    assert isinstance(first, Conv)
    assert (first.m, first.n, first.k) == (2 * 196, 768, 768)
    assert load_model("vit-huge").max_context == 257
