"""Tilings of an output-stationary array: published layers to the cycle and bit, one small layer by hand, points and arrays."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.cost.tiling import Engine, Layer, Tiling, tiling

KIB = 1024 * 8.0


def engine(rows: float, columns: float, factor: float = 1.0, **changes: float) -> Engine:
    halves = {"activations": 128 * KIB, "weights": 64 * KIB, "outputs": 64 * KIB}
    given = {"rows": rows * factor, "columns": columns * factor, **halves, "wire": 1024.0, "read": 0.644304, "write": 0.784104}
    return Engine(**{**given, **changes})


def cycles(found: Tiling) -> float:
    return float(found.first + max(found.compute, found.memory))


# MixPE's released simulator: (images, side, kernel, channels, filters, bits), array, its factor for that width;
# cycles, those without arithmetic, bits read and written
PUBLISHED = [
    ((64, 1, 1, 768, 2304, 4), (64, 64, 2), (14144, 320, 7274496, 2359296)),
    ((64, 1, 1, 3072, 768, 4), (64, 64, 2), (19264, 832, 10223616, 786432)),
    ((64, 1, 1, 96, 18, 8), (64, 64, 1), (178, 82, 83968, 18432)),
    ((64, 14, 16, 3, 768, 8), (64, 64, 1), (1806592, 256, 929562624, 462422016)),
    ((64, 1, 1, 1280, 3840, 4), (32, 32, 2), (77152, 352, 19988480, 3932160)),
    ((64, 1, 1, 1280, 3840, 8), (32, 32, 1), (307224, 24, 235929600, 3932160)),
    ((64, 1, 1, 768, 768, 16), (32, 28, 1), (43448, 440, 10813440, 18874368)),
    ((64, 1, 1, 3072, 768, 16), (32, 28, 1), (172430, 398, 156499968, 786432)),
]


@pytest.mark.parametrize(("shape", "array", "expected"), PUBLISHED)
def test_layers_of_the_released_simulator(shape, array, expected):
    *sizes, bits = map(float, shape)
    found = tiling(Layer(*sizes, bits, bits, 16.0), engine(*array))
    assert (cycles(found), cycles(found) - found.compute, found.activations + found.weights, found.outputs) == expected


def test_a_layer_that_is_one_tile_by_hand():
    # 4 rows, 4 channels, 4 filters, 8 bits, on 4 x 4 elements: 4 cycles; 128 + 128 bits in, before it starts, and 256 out
    found = tiling(Layer(4.0, 1.0, 1.0, 4.0, 4.0, 8.0, 8.0, 16.0), engine(4.0, 4.0, wire=64.0))
    assert (found.compute, found.macs, found.results) == (4.0, 64.0, 16.0)
    assert (found.activations, found.weights, found.outputs) == (128.0, 128.0, 256.0)
    assert cycles(found) == max(4.0, 256 / 64) + 256 / 64


def test_points_are_searched_as_if_alone():
    rows, wires = np.array([1.0, 5.0, 64.0, 5.0]), np.array([[256.0], [1024.0]])
    machine = engine(32.0, 32.0, wire=1.0)._replace(wire=wires)
    many = tiling(Layer(rows, 1.0, 1.0, 512.0, 640.0, 8.0, 4.125, 16.0), machine)
    assert many.compute.shape == (2, 4)
    for at in np.ndindex(2, 4):
        one = tiling(Layer(rows[at[1]], 1.0, 1.0, 512.0, 640.0, 8.0, 4.125, 16.0), machine._replace(wire=wires[at[0], 0]))
        assert [part[at] for part in many] == list(one)


def test_a_wider_wire_is_never_slower():
    layer = Layer(16.0, 1.0, 1.0, 1024.0, 3000.0, 8.0, 4.0, 16.0)
    times = [cycles(tiling(layer, engine(64.0, 64.0, wire=wire))) for wire in (16.0, 64.0, 256.0, 1024.0)]
    assert times == sorted(times, reverse=True)
    assert times[0] > times[-1]


def test_nothing_is_faster_than_its_arithmetic_or_its_bytes():
    for rows in (1.0, 7.0, 64.0, 300.0):
        layer, machine = Layer(rows, 1.0, 1.0, 1000.0, 777.0, 8.0, 4.0, 16.0), engine(32.0, 32.0)
        found = tiling(layer, machine)
        assert cycles(found) >= rows * 1000 * 777 / (32 * 32)
        assert cycles(found) * 1024 >= 8 * rows * 1000 + 4 * 1000 * 777 + 16 * rows * 777


def test_no_tile_fits_a_buffer_smaller_than_one_row():
    assert np.isnan(tiling(Layer(1.0, 1.0, 1.0, 8.0, 8.0, 8.0, 8.0, 16.0), engine(64.0, 64.0, weights=8.0)).compute)
