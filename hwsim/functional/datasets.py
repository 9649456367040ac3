"""Recordings from files: N-MNIST (ATIS .bin) and N-TIDIGITS18 (HDF5), as binary event streams. Neither ships with the project.

N-MNIST: 5 bytes an event, big-endian: x, y, one bit of polarity, 23 bits of microseconds (34 x 34 pixels; Orchard 2015).
N-TIDIGITS18: groups {split}_addresses and {split}_timestamps with a data set for each recording, named by {split}_labels
(Anumula 2018): addresses of 64 channels, seconds. What is recalled of these layouts is tested on small files of the same form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import InputError
from hwsim.functional.events import Events

SIDE, CROP, CHANNELS = 34, 16, 64
MAX_BYTES = 64 * 1024**2


def read_nmnist(path: Path, steps: int = 50, polarity: int = 0) -> Events:
    """One recording as (1, steps, 256): the centre 16 x 16 pixels of one polarity, in equal bins of time, clipped."""
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: no such file, or more than {MAX_BYTES // 1024**2} MiB; accepted: an N-MNIST .bin file")
    raw = np.fromfile(path, np.uint8)
    if raw.size % 5 or not raw.size:
        raise InputError(f"{path}: {raw.size} bytes; accepted: events of 5 bytes each, at least one")
    x, y, high, middle, low = raw.reshape(-1, 5).astype(np.int64).T
    if max(x.max(), y.max()) >= SIDE:
        raise InputError(f"{path}: pixel ({x.max()}, {y.max()}); accepted: 0 to {SIDE - 1} (N-MNIST has {SIDE} x {SIDE} pixels)")
    time, first = ((high & 0x7F) << 16) | (middle << 8) | low, (SIDE - CROP) // 2
    column, row = x - first, y - first
    kept = (high >> 7 == polarity) & (np.minimum(column, row) >= 0) & (np.maximum(column, row) < CROP)
    return _binned(time[kept], (row * CROP + column)[kept], int(time.max()) + 1, steps, CROP**2)


def read_ntidigits(path: Path, split: str = "train", steps: int = 129) -> tuple[Events, list[str]]:
    """Single digits as (recordings, steps, 64), and what was said ("z", "1" to "9", "o"). Needs h5py: InputError without it."""
    try:
        import h5py
    except ImportError:
        raise InputError(
            "N-TIDIGITS18 is an HDF5 file; accepted: an installation with h5py (pip install hwsim[events])"
        ) from None
    try:
        with h5py.File(path, "r") as file:
            names = [name.decode() if isinstance(name, bytes) else str(name) for name in file[f"{split}_labels"]]
            single = [name for name in names if len(name.split("-")[-1]) == 1]
            found = [_recording(file, split, name, steps) for name in single]
    except (OSError, KeyError) as error:
        raise InputError(f"{path}: {error}; accepted: N-TIDIGITS18 with {split}_labels, _addresses and _timestamps") from error
    if not found:
        raise InputError(f"{path}: no single digits in {split}_labels")
    return np.concatenate(found), [name.split("-")[-1] for name in single]


def _recording(file: Any, split: str, name: str, steps: int) -> Events:
    address = np.asarray(file[f"{split}_addresses"][name], np.int64)
    milliseconds = np.floor(1e3 * np.asarray(file[f"{split}_timestamps"][name], np.float64)).astype(np.int64)
    return _binned(milliseconds, address, int(milliseconds.max(initial=0)) + 1, steps, CHANNELS)


def _binned(time: NDArray[np.int64], channel: NDArray[np.int64], end: int, steps: int, channels: int) -> Events:
    """Events in `steps` equal parts of 0 to `end`, several of one channel in a part counting once."""
    found = np.zeros((1, steps, channels), np.uint8)
    found[0, time * steps // end, channel] = 1
    return found
