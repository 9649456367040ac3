"""Board power of a GPU while one kernel repeats: watts from its operations, bytes and seconds.

    P = TDP x soft(idle + active x spread part x (1 - exp(-(u + b) / knee)) + op x u + byte x b)                      [W]
    u = operations / seconds / peak        b = bytes / seconds / DRAM bandwidth        soft(x) = x / (1 + x^sharp)^(1/sharp)
    spread part = (part of the SMs that have a tile)^spread

All energies are parts of the thermal design power, so that a GPU of the same generation needs its datasheet only: an
operation costs op x TDP / peak joules, a byte byte x TDP / bandwidth joules. `active` is what clocks, caches and schedulers
draw as soon as the chip works at all; `idle` is the board doing nothing. The power cap is soft: near TDP the clock gives way
before the board does.

A set of parameters stands for one kernel family and number format (`gemm`, `moe`, `prefill`, `decode`). Fitted on gemm_power,
attention_power and moe_power, rows over 100 us; shorter ones remember the previous kernel in the meter's window. Left out:
temperature, the data's own switching activity, voltage and frequency steps, and that window (rows at idle power while the
kernel streams at 0.75 of the DRAM bandwidth are in the tables and cannot be right).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwsim.kernels.chip import Chip, Parameter
from hwsim.op import Array

PARAMETERS: tuple[Parameter, ...] = (
    Parameter("idle", "", 0.2, 0.05, 0.4, "board doing nothing, of TDP; the least that was measured, not fitted with the others"),
    Parameter("active", "", 0.2, 0.0, 0.7, "a chip that works at all, of TDP"),
    Parameter("knee", "", 0.1, 0.003, 1.0, "use of the roofs at which `active` has come in by 63 %"),
    Parameter("op", "", 1.2, 0.0, 5.0, "arithmetic at the datasheet's peak, of TDP"),
    Parameter("byte", "", 0.4, 0.0, 2.0, "DRAM traffic at the datasheet's bandwidth, of TDP"),
    Parameter("sharp", "", 5.0, 1.5, 20.0, "how suddenly the power cap sets in"),
    Parameter("spread", "", 0.3, 0.0, 1.5, "how `active` grows with the SMs in use: 0 = not at all, 1 = in proportion"),
)


def power(
    *, ops: Array, bytes: Array, seconds: Array, tdp: Array, filled: Array = 1.0, chip: Chip, p: Mapping[str, float]
) -> Array:
    """Watts. `filled` is the part of the SMs that have work, `tdp` the board's power limit in watts."""
    used = ops / seconds / chip.peak
    streamed = bytes / seconds / chip.dram
    active = p["active"] * filled ** p["spread"] * (1.0 - np.exp(-(used + streamed) / p["knee"]))
    wanted = p["idle"] + active + p["op"] * used + p["byte"] * streamed
    watts: Array = tdp * wanted / (1.0 + wanted ** p["sharp"]) ** (1.0 / p["sharp"])
    return watts
