"""What an engine did over time, a row for every run of equal steps, and the time between tokens of every decoding sequence."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import numpy as np

from hwsim.serving.queue import Queue
from hwsim.serving.steps import Floats, Step

COLUMNS = ("start_s", "end_s", "steps", "sequences", "tokens", "blocks")


class Log:
    """Columns of numbers that grow; compact, since an hour of traffic has a million steps."""

    def __init__(self) -> None:
        self.columns: Mapping[str, array[float]] = {name: array("d") for name in COLUMNS}
        self.lengths: array[float] = array("d")  # seconds between two tokens ...
        self.counts: array[int] = array("q")  # ... and how many sequences had just that

    def steps(self, start: float, ends: Floats, step: Step, queue: Queue) -> None:
        """A run of steps; `queue` as it was when the last one ended, blocks of what leaves still taken."""
        row = (start, float(ends[-1]), len(ends), step.sequences, step.tokens, queue.used)
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(value)

    def gap(self, seconds: float) -> None:
        """One token that came so long after the one before it."""
        self.lengths.append(seconds)
        self.counts.append(1)

    def gaps(self, start: float, ends: Floats, steady: int, all: int) -> None:
        """Tokens of a run of steps: of the first one those of `steady` sequences, of later ones those of `all`."""
        if steady:
            self.lengths.append(float(ends[0]) - start)
            self.counts.append(steady)
        if len(ends) > 1:
            self.lengths.extend(np.diff(ends).tolist())
            self.counts.extend([all] * (len(ends) - 1))

    def between_tokens(self) -> tuple[Floats, Floats]:
        """All times between two tokens [s], and how often each was had."""
        return np.array(self.lengths), np.array(self.counts, dtype=float)
