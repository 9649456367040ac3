"""Watts of the board while one kernel repeats, from NVIDIA's management library (NVML).

For a second the meter's own window fills, then it is read for half a second more, once in each batch of about 50 ms. Only kernels
over 100 us: for shorter ones the meter shows what ran before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from time import perf_counter
from typing import Any

SHORTEST_S = 100e-6
TOKENS = (16, 256, 1024, 4096)  # of the rows over 100 us only these: each takes one and a half seconds
SETTLE_S = 1.0
READ_S = 0.5
BATCH_S = 0.05


@dataclass(frozen=True)
class Meter:
    """The power meter of one board: `read` gives watts, `limit_w` is where the board throttles."""

    read: Callable[[], float]
    limit_w: float
    driver: str


def meter(uuid: str) -> tuple[Meter | None, str]:
    """The meter of the GPU with this UUID; None and the reason where there is none."""
    try:
        import pynvml
    except ImportError:
        return None, "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
        board = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        limit = pynvml.nvmlDeviceGetEnforcedPowerLimit(board) / 1e3
        found = Meter(lambda: pynvml.nvmlDeviceGetPowerUsage(board) / 1e3, limit, _text(pynvml.nvmlSystemGetDriverVersion()))
        found.read()
    except pynvml.NVMLError as error:
        return None, f"NVML: {error}"
    return found, ""


def watched(
    read: Callable[[], float], launch: Callable[[], object], wait: Callable[[], object], call_s: float, calls: int
) -> tuple[float, float]:
    """Watts, and seconds of one call meanwhile. `launch` starts `calls` calls of about `call_s` each, `wait` waits for them."""
    rounds = max(1, round(BATCH_S / (call_s * calls)))
    watts: list[float] = []
    done, start = 0, perf_counter()
    while (now := perf_counter() - start) < SETTLE_S + READ_S or not watts:
        for _ in range(rounds):
            launch()
        if now >= SETTLE_S:
            watts.append(read())
        wait()
        done += rounds
    return fmean(watts), (perf_counter() - start) / (done * calls)


def _text(raw: Any) -> str:
    return raw.decode() if isinstance(raw, bytes) else str(raw)
