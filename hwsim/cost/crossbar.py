"""A crossbar of resistive cells: a layer is read where its weights are, in as many macros as it covers.

    macros of a layer = ceil(rows / macro rows) x ceil(columns / pairs of a row);  rounds = ceil(those / macros there are)
    busy   = streams x rounds x reads x (pulse + ceil(columns of a macro / converters) x conversion)
    joules = cells: active rows x columns x 2 G V^2 x pulse          drivers: active rows x macros across x energy of a row
             converters: columns x energy of a conversion, for each macro down where sums are added behind converters

Only rows whose input spikes are driven, in ops that are gated; time does not depend on how many. Left out: wires and their drops,
leakage of idle macros, selection of columns, calibration. Products with other operands than fixed cells are not for a crossbar.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwsim.cost.roofline import by_memory
from hwsim.cost.terms import Cost
from hwsim.device import Crossbar, Device, Unit
from hwsim.errors import InputError, PlacementError
from hwsim.op import Array, Op, Synapses


def crossbar(op: Op, name: str, unit: Unit, device: Device, home: Mapping[str, str]) -> Cost:
    """Cost of a step of a spiking layer. PlacementError for another op, InputError for a unit without `crossbar`."""
    if unit.crossbar is None:
        raise InputError(f"{device.name}: units.{name}.crossbar: missing; every unit with cost crossbar needs it")
    if not isinstance(op, Synapses) or op.weights != "analog":
        raise PlacementError(
            f"{device.name}: unit {name} cannot compute {op.name}; it has cells for fixed weights of spiking layers"
        )
    array = unit.crossbar
    traffic = by_memory(op, home)
    joules: dict[str, Array] = {memory: moved * device.memories[memory].energy for memory, moved in traffic.items()}
    return Cost(
        fixed_s=unit.overhead,
        busy_s=_seconds(op, array) / unit.efficiency,
        traffic=traffic,
        limit={memory: unit.limit(memory, device.memories) for memory in traffic},
        joules=joules | energies(op, array),
        method="crossbar",
    )


def _tiles(op: Synapses, array: Crossbar) -> tuple[Array, Array]:
    """Macros that a layer covers, down and across."""
    return np.ceil(op.k / array.rows), np.ceil(op.n / array.pairs)


def _seconds(op: Synapses, array: Crossbar) -> Array:
    down, across = _tiles(op, array)
    rounds = np.ceil(down * across / array.macros)
    seconds: Array = op.m * rounds * array.seconds(np.minimum(op.n, array.pairs))
    return seconds


def energies(op: Synapses, array: Crossbar) -> dict[str, Array]:
    """Joules of cells, row drivers and converters."""
    down, across = _tiles(op, array)
    driven = op.m * array.reads * (op.active if op.gated else op.k)
    conversions = op.m * array.reads * op.n * (down if array.sums == "digital" else 1.0)
    pair = 2.0 * array.conductance * array.read_voltage**2 * array.read_time
    return {
        "cells": driven * op.n * pair,
        "drivers": driven * across * array.row_energy,
        "converters": conversions * array.conversion_energy,
    }
