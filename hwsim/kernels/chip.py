"""What every kernel model needs: the chip's datasheet numbers, and how a fitted parameter describes itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hwsim.op import Array
from hwsim.quantity import show


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
    """One fitted number: its SI unit ("" for a fraction or exponent), where a fit starts and may go, and what it means.

    `off` says that 0 stands for a part that a kernel does not have, though a fit stays above.
    """

    name: str
    unit: str
    start: float
    low: float
    high: float
    meaning: str
    off: bool = False

    @property
    def accepted(self) -> str:
        """The numbers that a set may hold, in words: above `high` a fit never goes, but a person may."""
        low = f"{show(self.low, self.unit)} or more" if self.low <= 0.0 else "0 or more" if self.off else "more than 0"
        return f"{low}; a fit stays within {show(self.low, self.unit)} and {show(self.high, self.unit)}"

    def accepts(self, number: float) -> bool:
        """Whether a set may hold `number`: a rate, part or exponent that a fit keeps above 0 divides, or is lost without."""
        return number > 0.0 or (number >= self.low if self.low <= 0.0 else self.off and number == 0.0)
