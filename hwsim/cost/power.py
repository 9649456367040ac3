"""Energy of ops on GPUs whose board power was measured: the board's watts while the op runs alone, for as long as it does.

    joules = watts (`hwsim.kernels.power`) x seconds alone

The board at rest is the device's static power, which flows whatever runs; what is over it comes on top. Energies are parts of
the thermal design power, near which the fitted watts level off; kernels' times were measured under that cap too. Another
`power_limit` changes neither: no clock gives way to it, and a run that draws more than it says so in a note. An attention op
draws as prefill or decode, a network's vector ops and collectives as the set of all kernels; a link's own energy is added. The
meter saw a board, not its parts: memories get their bytes at the device file's energy per byte, the unit all else, clocks and
caches included. GPUs without a set have energies per operation and byte (`roofline`). Left out: what an op draws while it waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from hwsim.cost.chips import chip_of
from hwsim.cost.gpu import Call, either, nearest_sets, running
from hwsim.cost.terms import Cost
from hwsim.device import Device
from hwsim.kernels.chip import Chip
from hwsim.kernels.power import power
from hwsim.kernels.sets import ANY, KernelSet
from hwsim.op import Array, Load, Move, Op, larger

_AS = {
    "attention_decode": "decode",
    "mla_decode": "decode",
    "attention_prefill": "prefill",
    "mla_prefill": "prefill",
    "low_bit": "gemm",
}
_TILE = 128.0


def energy(cost: Cost, op: Op, name: str, device: Device) -> Mapping[str, Array]:
    """Joules of `op` on the unit or link `name` by component, static power left out.

    By the board's watts; those of `cost`, an energy per operation and byte, where no power was fitted.
    """
    if not device.kernels.get("power") or device.tdp is None:
        return cost.joules
    calls = running(op, device) or [Call(ANY, op.stream, op.precision, {})]
    watts = [(call, found) for call in calls if (found := _watts_of(call, op, cost, device)) is not None]
    if not watts:
        return cost.joules
    over_rest = larger(either(watts) - device.static_power, 0.0)
    return _divided(over_rest * cost.alone_s, cost, name, isinstance(op, Load | Move))


def _divided(joules: Array, cost: Cost, name: str, link: bool) -> dict[str, Array]:
    """The board's joules: to each memory what its bytes take, as far as it goes, and the rest to the unit."""
    memories = {memory: np.minimum(cost.joules[memory], joules) for memory in cost.traffic}
    wire = cost.joules.get(name, 0.0) if link else 0.0
    return {**memories, name: wire + joules - sum(memories.values())}


def _watts_of(call: Call, op: Op, cost: Cost, device: Device) -> Array | None:
    """Watts of the board; None where the device says too little about its chip."""
    chosen, _ = next(nearest_sets(device, "power", _AS.get(call.family, call.family), call.format), (None, ""))
    chip = chip_of(device, call.peak)
    if chosen is None or chip is None or device.tdp is None:
        return None
    filled = np.minimum(_tiles(call) / chip.sms, 1.0)
    run = (op.ops, sum(cost.traffic.values()), larger(cost.alone_s, 1e-12), device.tdp, filled)
    if chip.plain and all(isinstance(value, float | int) for value in run):
        return _remembered(chosen, chip, *map(float, run))
    return _watts(chosen, chip, *run)


def _watts(chosen: KernelSet, chip: Chip, ops: Array, bytes: Array, seconds: Array, tdp: Array, filled: Array) -> Array:
    return power(ops=ops, bytes=bytes, seconds=seconds, tdp=tdp, filled=filled, chip=chip, p=chosen.parameters)


_remembered = lru_cache(maxsize=65536)(_watts)


def _tiles(call: Call) -> Array:
    """Blocks of threads that can run at once, as the fits counted them (`hwsim.fit.tables.power`); many where they did not."""
    of: Mapping[str, Array] = call.arguments
    if call.family in ("gemm", "low_bit"):
        return of["groups"] * np.ceil(of["m"] / _TILE) * np.ceil(of["n"] / _TILE)
    if call.family == "moe":
        tiles: Array = (of["count"] * np.ceil(of["load"] / _TILE)).sum(axis=0) * np.ceil(of["hidden"] / _TILE)
        return tiles
    if "q_len" in of:
        return of["batch"] * of["heads"] * np.ceil(of["q_len"] / _TILE)
    return of["batch"] * of.get("kv_heads", 1.0) if of else np.inf
