"""What every kernel model needs: the chip's datasheet numbers, and how a fitted parameter describes itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwsim.op import Array


@dataclass(frozen=True, eq=False)
class Chip:
    """A GPU as its datasheet describes it, all SI; any number may be an array over rows.

    `peak` is dense op/s in the number format of the kernel (tensor cores where the chip has them for that format), `vector` fp32
    op/s outside tensor cores, `sms` streaming multiprocessors or compute units, `l2` bytes of last-level cache, `link` B/s to the
    other GPUs, per GPU and direction.
    """

    sms: Array
    clock: Array
    peak: Array
    vector: Array
    dram: Array
    l2: Array
    link: Array = 0.0

    @cached_property
    def plain(self) -> bool:
        """Whether no number is an array."""
        return not any(isinstance(value, np.ndarray) for value in vars(self).values())


@dataclass(frozen=True)
class Parameter:
    """One fitted number: its SI unit ("" for a fraction or exponent), where a fit starts and may go, and what it means."""

    name: str
    unit: str
    start: float
    low: float
    high: float
    meaning: str
