"""Every file in models/: it loads without a field to spare, says where it comes from, and lowers to ops that add up to it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwsim.catalogue import find, load_convnet, load_model, names, root
from hwsim.files import read_mapping
from hwsim.lowering.batch import Batch, decode, mixed, prefill, sequences, tokens
from hwsim.lowering.convnet import lower_convnet
from hwsim.lowering.convnet_file import is_convnet
from hwsim.lowering.huggingface import unread_fields
from hwsim.lowering.model import Attention, FeedForward, Layer, MixtureOfExperts, Model, Precision
from hwsim.lowering.transformer import lower
from hwsim.op import Op

EVERY = names("models")
CONVNETS = [name for name in EVERY if is_convnet(read_mapping(root("models") / f"{name}.yaml"))]
NAMES = [name for name in EVERY if name not in CONVNETS and isinstance(load_model(name), Model)]  # test_spiking.py has the others
WORDS = {"name", "description", "aliases", "source", "model_type"}
PREFILL, DECODE = prefill(2, 16), decode(2, 16)
MIXED = mixed([(16, 0), (4, 12), (1, 16), (1, 30)])
DATA = Path(os.environ.get("HWSIM_DATA", root("models").parent.parent / "shared" / "data"))
CONFIGS = sorted((DATA / "hf_configs").glob("*.json"))
LINEAR = {"qkv", "out", "ffn", "experts", "shared", "router", "absorb"}


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def written(name: str) -> Any:
    return read_mapping(root("models") / f"{name}.yaml")


def test_the_folder_is_not_empty():
    assert len(NAMES) > 50


def test_says_what_it_is_and_where_its_shapes_come_from(name: str):
    raw = written(name)
    assert raw["name"] == name == name.lower()
    assert raw["description"].strip()
    assert raw["source"].strip()


def test_every_field_is_read(name: str):
    assert unread_fields(written(name), name) <= WORDS


def test_nothing_is_said_to_be_missing(name: str):
    assert not [note for note in load_model(name).notes if "not read" in note]


@pytest.mark.parametrize("name", CONVNETS)
def test_convolutional_networks_say_where_they_come_from_and_add_up(name: str):
    raw, net = written(name), load_convnet(name)
    assert raw["name"] == name == name.lower()
    assert raw["description"].strip()
    assert raw["source"].strip()
    ops = lower_convnet(net)
    assert sum(float(op.ops) for op in ops if op.math == "matmul") == 2 * net.macs
    assert all(float(op.workspace) > 0 for op in ops)


def test_aliases_are_unique_whatever_their_case():
    used = Counter(str(alias).lower() for name in EVERY for alias in [name, *written(name).get("aliases", [])])
    assert [alias for alias, count in used.items() if count > 1] == []


def test_an_alias_finds_its_file(name: str):
    for alias in written(name).get("aliases", []):
        for typed in (str(alias), str(alias).upper()):
            assert find("models", typed).stem == name


@pytest.mark.parametrize("batch", [PREFILL, DECODE, MIXED], ids=["prefill", "decode", "mixed"])
def test_ops_are_finite_and_positive(name: str, batch: Batch):
    for op in lower(load_model(name), batch):
        moved = np.array([float(nbytes) for nbytes in op.bytes.values()])
        assert np.isfinite(op.ops)
        assert op.ops > 0 or op.kind == "embedding"
        assert np.isfinite(moved).all()
        assert (moved >= 0).all()
        assert moved.sum() > 0


@pytest.mark.parametrize("batch", [PREFILL, DECODE], ids=["prefill", "decode"])
def test_resident_weights_are_the_matrices_of_the_model(name: str, batch: Batch):
    model = load_model(name)
    ops = lower(model, batch, precision=Precision())
    resident = sum(float(op.resident.get("weights", 0.0)) * op.repeat for op in ops) / 2
    assert resident == pytest.approx(matrices(model).parameters, rel=2e-3)
    assert matrices(model).parameters == pytest.approx(model.parameters, rel=0.02)


def test_linear_operations_are_two_per_active_parameter_and_token(name: str):
    model = matrices(load_model(name))
    tables = model.vocab * model.hidden * (1 if model.tied or not model.head else 2) + model.positions * model.hidden
    tables += model.patches.parameters(model.hidden) if model.patches else 0
    for batch in (PREFILL, DECODE):
        ops = lower(model, batch)
        assert total(ops, LINEAR) == pytest.approx(2 * tokens(batch) * (model.active_parameters - tables), rel=2e-3)
        assert total(ops, {"head"}) == 2 * sequences(batch) * model.vocab * model.hidden * model.head


def total(ops: list[Op], kinds: set[str]) -> float:
    return sum(float(op.ops) * op.repeat for op in ops if op.kind in kinds)


def matrices(model: Model) -> Model:
    """The model without norms, biases, gates of shared experts, pooler, and a position table that its head does not share."""
    layers = tuple((bare(layer), count) for layer, count in model.layers)
    positions = 0 if model.tied else model.positions
    return replace(model, layers=layers, head_bias=False, extra_parameters=0, final_norms=0, positions=positions)


def bare(layer: Layer) -> Layer:
    attention, network = layer.attention, layer.feed_forward
    if isinstance(attention, Attention):
        attention = replace(attention, qkv_bias=False, out_bias=False, qk_norm=0)
    if isinstance(network, FeedForward):
        return replace(layer, attention=attention, feed_forward=replace(network, bias=False), norms=0)
    return replace(layer, attention=attention, feed_forward=without_bias(network), norms=0)


def without_bias(moe: MixtureOfExperts) -> MixtureOfExperts:
    shared = moe.shared and replace(moe.shared, bias=False)
    return replace(moe, expert=replace(moe.expert, bias=False), shared=shared, router_bias=False, shared_gate=False)


@pytest.mark.parametrize("config", CONFIGS or [None], ids=lambda config: config.stem if config else "none")
def test_equals_the_published_config(config: Path | None):
    if config is None:
        pytest.skip(f"no published configs in {DATA / 'hf_configs'}; set HWSIM_DATA to the folder that holds hf_configs/")
    ours, theirs = load_model(find("models", config.stem).stem), load_model(str(config))
    ours = replace(ours, layers=tuple((_unmeasured(layer), count) for layer, count in ours.layers))
    assert replace(ours, name="", source="", notes=()) == replace(theirs, name="", source="", notes=())
    assert not [note for note in theirs.notes if "not read" in note]


def _unmeasured(layer: Layer) -> Layer:
    """Without the use of its neurons, which no config states."""
    ffn = layer.feed_forward
    return replace(layer, feed_forward=replace(ffn, neurons=None)) if isinstance(ffn, FeedForward) else layer
