"""What the serving software adds to a step on its host: scheduling, input preparation, sampling, detokenisation.

    step = seconds of the pass + step + sequence x sequences in the batch                                                     [s]
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """Seconds a step and a sequence, and bytes of device memory that the software keeps for itself."""

    step_s: float = 0.0
    sequence_s: float = 0.0
    reserved: float = 0.0

    def seconds(self, sequences: int) -> float:
        """Seconds that the host adds to a step."""
        return self.step_s + self.sequence_s * sequences
