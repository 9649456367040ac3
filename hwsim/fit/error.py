"""How far predictions are from measurements, as `hwsim validate` reports it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def errors(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> dict[str, float]:
    """Fractions: mean absolute relative error (`mape`), its `median`, `p90`, mean without the worst tenth (`trimmed_mape`), and
    the median signed error (`bias`)."""
    signed = predicted / measured - 1
    size = np.sort(np.abs(signed))
    kept = size[: max(1, int(np.ceil(0.9 * len(size))))]
    return {
        "mape": float(size.mean()),
        "median": float(np.median(size)),
        "p90": float(np.quantile(size, 0.9)),
        "trimmed_mape": float(kept.mean()),
        "bias": float(np.median(signed)),
    }
