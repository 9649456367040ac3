"""The reservoir by hand on few neurons, noise and converters, what its counts are good for, and files of recordings."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hwsim.catalogue import load_device, root
from hwsim.errors import InputError
from hwsim.functional.datasets import read_nmnist, read_ntidigits
from hwsim.functional.events import Modality, latents, streams
from hwsim.functional.readout import Projection, Scale, contrastive, loss, retrieval, ridge_accuracy
from hwsim.functional.reservoir import Cells, Statistics, formed, ideal, respond
from hwsim.lowering.spiking import Encoder
from hwsim.spiking import crossbar_of

TWO = Encoder("two", inputs=1, neurons=2, steps=4, decay=0.5, threshold=1.0, scale=1.0, weight_std=1.0, density=0.5)
ARRAY = crossbar_of(load_device("rram-40nm"))
STATISTICS = Statistics.of(ARRAY)


def cells(into, recurrent, **more) -> Cells:
    return Cells(np.array(into, np.float32), np.array(recurrent, np.float32), **more)


def events(*steps: int) -> np.ndarray:
    return np.array(steps, np.uint8).reshape(1, -1, 1)


def test_leak_threshold_and_reset_by_hand():
    # 0.8, then 0.4 + 0.8 = 1.2: fires and is reset; 0.8; 0.4
    found = respond(events(1, 1, 1, 0), TWO, cells([[0.8, 0.0]], np.zeros((2, 2))))
    assert found.counts.tolist() == [[1, 0]]
    assert found.fired.tolist() == [[0, 1, 0, 0]]
    assert found.spikes_in.tolist() == [[1, 1, 1, 0]]


def test_a_spike_arrives_a_step_later():
    found = respond(events(1, 0, 0, 0), TWO, cells([[2.0, 0.0]], [[0.0, 3.0], [0.0, 0.0]]))
    assert found.fired.tolist() == [[1, 1, 0, 0]]
    assert found.counts.tolist() == [[1, 1]]
    assert found.inputs == 0.25
    assert found.neurons == found.counted == 0.5
    last = respond(events(0, 0, 0, 1), TWO, cells([[2.0, 0.0]], np.zeros((2, 2))))
    assert (last.neurons, last.counted) == (0.0, 0.25)  # nobody reads the spike of the last step


def test_a_reservoir_with_wrong_inputs_is_refused():
    with pytest.raises(InputError, match=r"accepted: \(streams, steps, 1\)"):
        respond(np.zeros((1, 4, 2), np.uint8), TWO, cells([[1.0, 1.0]], np.zeros((2, 2))))


def test_streams_do_not_see_each_other():
    encoder = replace(TWO, inputs=16, neurons=32)
    held = ideal(encoder, 0)
    many = streams(np.arange(150) % 3, latents(3, 2, 0), Modality(16, 4, 0.4), 0)
    together = respond(many, encoder, held).counts
    alone = [respond(many[i : i + 1], encoder, held).counts[0] for i in range(150)]
    assert np.mean(together == np.array(alone)) > 0.999  # sums in another order of rows may differ in the last bit


def test_converters_round_and_clip():
    from hwsim.functional.reservoir import _read

    held = cells([[1.0]], [[1.0]], bits=3, full_scale=7.0)  # levels are 2 apart
    draw = np.random.default_rng(0)
    read = _read(np.array([[0.9, 1.1, 6.8, 99.0, -99.0]], np.float32), np.zeros(1, np.float32), held, draw)
    assert read.tolist() == [[0.0, 2.0, 6.0, 7.0, -7.0]]


def test_read_noise_is_that_of_the_cells_that_conduct():
    from hwsim.functional.reservoir import _read

    held = cells([[1.0]], [[1.0]], square=2 * 60.0**2, read_noise=0.01)
    rows = np.full(2000, 25, np.float32)
    read = _read(np.zeros((2000, 8), np.float32), rows, held, np.random.default_rng(0))
    assert np.std(read) == pytest.approx(0.01 * np.sqrt(25 * 2) * 60, rel=0.03)


def test_cells_are_drawn_as_the_device_says():
    encoder = replace(TWO, inputs=300, neurons=300)
    held = formed(encoder, STATISTICS, 0)
    assert np.std(held.into) == pytest.approx(np.sqrt(2) * 4.7, rel=0.02)
    assert held.square == pytest.approx(2 * (60**2 + 4.7**2), rel=0.01)
    assert np.array_equal(held.into, formed(encoder, STATISTICS, 0).into)
    assert not np.array_equal(held.into, formed(encoder, STATISTICS, 1).into)


def test_drawing_cells_of_many_designs_is_refused():
    many = ARRAY.model_copy(update={"spread": np.array([1e-6, 2e-6])})
    with pytest.raises(InputError, match=r"crossbar\.spread: an array"):
        Statistics.of(many)


def test_synthetic_streams_keep_their_density_and_seed():
    modality = Modality(64, 50, 0.05, seed=1, ordered=True)
    labels = np.arange(200) % 10
    drawn = streams(labels, latents(10, 1, 0), modality, 3)
    assert drawn.shape == (200, 50, 64)
    assert drawn.mean() == pytest.approx(0.05, rel=0.03)
    assert np.array_equal(drawn, streams(labels, latents(10, 1, 0), modality, 3))
    with pytest.raises(InputError, match="density"):
        Modality(64, 50, 1.5)


def test_ordered_classes_have_equal_expected_counts():
    modality = Modality(64, 50, 0.05, seed=1, contrast=1.5, ordered=True)
    labels = np.repeat(np.arange(2), 500)
    drawn = streams(labels, latents(2, 1, 0), modality, 3)
    first, second = (drawn[labels == one].sum(axis=1).mean(axis=0) for one in (0, 1))
    assert first == pytest.approx(second, abs=6 * np.sqrt(2 * first.max() / 500))


def test_gradients_of_the_contrastive_loss():
    draw = np.random.default_rng(0)
    one, other = draw.standard_normal((5, 4)), draw.standard_normal((5, 6))
    sides = [Projection(draw.standard_normal((n, 3)), draw.standard_normal(3), Scale.of(x)) for n, x in ((4, one), (6, other))]
    _, gradients = loss(one, other, *sides, temperature=0.5)
    for side, gradient in zip(sides, gradients, strict=True):
        for name in ("weights", "bias"):
            held = getattr(side, name)
            where = (1, 2)[-held.ndim :]
            slopes = []
            for change in (1e-5, -1e-5):
                moved = held.copy()
                moved[where] += change
                setattr(side, name, moved)
                slopes.append(loss(one, other, *sides, temperature=0.5)[0])
            setattr(side, name, held)
            assert (slopes[0] - slopes[1]) / 2e-5 == pytest.approx(gradient[name][where], rel=1e-5)


def test_retrieval_and_ridge_on_what_is_plain():
    points = np.repeat(np.eye(3), 4, axis=0)
    labels = np.repeat(np.arange(3), 4)
    assert ridge_accuracy(points, labels, points, labels, ridge=0.1) == 1.0
    assert retrieval(points, labels, points, labels) == 1.0
    assert retrieval(points, labels, np.eye(3), np.array([1, 2, 0])) == 0.0


def test_projections_bring_pairs_together():
    draw = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 20)
    hidden = draw.standard_normal((6, 5))[labels]
    one, other = (hidden @ draw.standard_normal((5, n)) + 0.1 * draw.standard_normal((120, n)) for n in (12, 9))
    left, right = contrastive(one, other, labels, 8, seed=0, epochs=40)
    assert retrieval(left.embed(one), labels, right.embed(other), labels) > 0.9


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("rram_study", root("studies") / "rram_lsm" / "study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reservoir_separates_what_raw_counts_cannot(study):
    found = [study.accuracies(each=40, seed=seed) for seed in range(3)]
    for one in found:
        assert one["reservoir"] > 3 * one["chance"] == pytest.approx(0.3)
        assert one["raw counts"] < 2 * one["chance"]


def test_noise_and_coarse_converters_cost_accuracy(study):
    plain = study.accuracies(each=40, seed=1)["reservoir"]
    assert study.accuracies(each=40, seed=1, read_noise=0.5)["reservoir"] < plain - 0.1
    assert study.accuracies(each=40, seed=1, adc_bits=2)["reservoir"] < plain - 0.1


def test_the_sweep_and_its_figure(study):
    from hwsim.report.accuracy import accuracy_page

    rows = pd.DataFrame(study.sweep(seeds=1, each=4))
    assert set(rows["parameter"]) == {"read_noise", "adc_bits", "neurons"}
    assert rows["accuracy"].between(0, 1).all()
    page = accuracy_page(rows)
    assert page.count("Streams are drawn, not recorded") == 3


def test_unseen_classes_are_paired_across_modalities(study):
    found = study.zero_shot()
    assert found["seen"] > 4 * found["chance.seen"]
    assert found["unseen"] > 1.5 * found["chance.unseen"]


def nmnist(*recorded: tuple[int, int, int, int]) -> bytes:
    """Events (x, y, polarity, microseconds) as N-MNIST writes them."""
    return b"".join(bytes([x, y, (p << 7) | (t >> 16), (t >> 8) & 255, t & 255]) for x, y, p, t in recorded)


def test_an_nmnist_file(tmp_path):
    path = tmp_path / "00001.bin"
    path.write_bytes(nmnist((9, 9, 0, 0), (24, 24, 0, 99_999), (10, 9, 0, 70_000), (10, 9, 1, 5), (0, 0, 0, 7), (9, 9, 0, 3)))
    found = read_nmnist(path, steps=10)
    assert found.shape == (1, 10, 256)
    assert np.argwhere(found[0]).tolist() == [[0, 0], [7, 1], [9, 255]]  # centre crop from pixel 9 on, one polarity, clipped
    assert read_nmnist(path, steps=10, polarity=1).sum() == 1


@pytest.mark.parametrize("raw", [b"", b"123", nmnist((40, 0, 0, 0))])
def test_what_is_no_nmnist_file_is_refused(tmp_path, raw):
    path = tmp_path / "bad.bin"
    path.write_bytes(raw)
    with pytest.raises(InputError, match="accepted"):
        read_nmnist(path)
    with pytest.raises(InputError, match="no such file"):
        read_nmnist(tmp_path / "none.bin")


def test_an_ntidigits_file(tmp_path):
    h5py = pytest.importorskip("h5py", reason="N-TIDIGITS18 is HDF5: needs h5py (hwsim[events])")
    path = tmp_path / "n-tidigits.hdf5"
    with h5py.File(path, "w") as file:
        names = ["ac-a-z", "ac-a-1", "ac-a-12"]
        file["train_labels"] = [name.encode() for name in names]
        for name in names:
            file[f"train_addresses/{name}"] = [3, 63, 3]
            file[f"train_timestamps/{name}"] = [0.0001, 0.0095, 0.0002]
    found, said = read_ntidigits(path, steps=10)
    assert said == ["z", "1"]  # single digits only
    assert np.argwhere(found[0]).tolist() == [[0, 3], [9, 63]]
    with pytest.raises(InputError, match="test_labels"):
        read_ntidigits(path, "test")


@pytest.mark.skipif(importlib.util.find_spec("h5py") is not None, reason="h5py is installed")
def test_without_h5py_a_line_says_so(tmp_path):
    with pytest.raises(InputError, match="h5py"):
        read_ntidigits(tmp_path / "n-tidigits.hdf5")
