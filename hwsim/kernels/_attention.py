"""What the attention families share: how terms overlap, what stays in L2, causal tiles, and one decode and one prefill kernel.

A decode kernel reads each cached token once for a group of query rows; a prefill kernel walks a row tile of queries over the keys
that its mask lets through. Multi-head, grouped-query and latent attention differ only in the bytes per token and the operations
per query row and token, which the callers give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hwsim.kernels.chip import Chip
from hwsim.op import Array

OVERLAP = 3.0  # exponent of the soft maximum of two resources that are busy at once
READ_BLOCK = 128.0  # cached tokens that a decode kernel loads at once
STEADY_DRAM = 0.9  # part of the DRAM peak that a prefill kernel's streams reach (assumed: 0.85 to 0.95 changes no error by 0.2 %)

Parameters = Mapping[str, float]


def overlapped(*terms: Array) -> Array:
    """Soft maximum: at least the largest term, at most their sum."""
    return sum(term**OVERLAP for term in terms) ** (1.0 / OVERLAP)


def spilled(used: Array, kept: Array, order: float) -> Array:
    """Part of `used` bytes that comes from DRAM when about `kept` bytes survive in L2 from the call before; 1 where none do."""
    return used**order / (used**order + kept**order)


def seen(kv_len: Array, window: Array) -> Array:
    """Cached tokens that a query sees: all, or a sliding window of them (0: no window)."""
    return np.where(np.greater(window, 0.0), np.minimum(kv_len, window), kv_len) * 1.0


@dataclass(frozen=True)
class Reader:
    """How a decode kernel cuts its work: `units` times `splits` thread blocks in `waves` on `busy` multiprocessors."""

    units: Array
    splits: Array
    waves: Array
    busy: Array


def cut(units: Array, blocks: Array, most: Array, chip: Chip) -> Reader:
    """Flash decoding: caches are cut until all multiprocessors work, `most` times at the most; thread blocks run in waves."""
    splits = np.clip(chip.sms / units, 1.0, np.minimum(blocks, most))
    waves = units * splits / np.minimum(units * splits, chip.sms)
    whole = np.where(waves < 4.0, np.ceil(waves - 0.01), waves)
    return Reader(units, splits, whole, units * splits / whole)


def decoded(
    reader: Reader, *, block: Array, read: Array, compute: Array, once: Array, resident: Array, chip: Chip, p: Parameters
) -> Array:
    """Seconds of a decode kernel: `block` s per thread block, `read` bytes out of L2, `compute` s if all multiprocessors work,
    `once` distinct bytes, of which those that did not survive in L2 come from DRAM.
    """
    kept = p["kept"] * chip.l2 * resident
    cold = spilled(once, kept, 4.0)
    port = p["port"] * chip.clock * reader.busy
    serial = reader.waves * block + np.maximum(read / port, compute * chip.sms / reader.busy)
    merge = np.where(reader.splits > 1.01, p["merge"], 0.0)
    turnover = p["ramp"] * chip.l2 / chip.dram * cold * np.minimum(1.0, once / (p["kept"] * chip.l2))
    return p["launch"] + merge + turnover + overlapped(serial, once * cold / (p["dram"] * chip.dram))


@dataclass(frozen=True)
class Tiles:
    """Row tiles of one causal sequence and head: how many, the keys they visit in all, and the keys of the longest."""

    count: Array
    keys: Array
    longest: Array


def causal(q_len: Array, kv_len: Array, window: Array, rows: Array, step: Array) -> Tiles:
    """Causal tiles of `rows` queries that visit keys in steps of `step`; the queries are the last `q_len` of `kv_len` tokens."""
    count = np.ceil(q_len / rows)
    past = kv_len - q_len
    span = np.where(np.greater(window, 0.0), np.ceil((window + rows - 1.0) / step) * step, np.inf)
    end = np.minimum(kv_len, span)
    rising = np.clip(np.floor((end - past) / rows), 0.0, count)
    keys = rising * past + rows * rising * (rising + 1.0) / 2.0 + (count - rising) * end
    ragged = count * (step - np.minimum(rows, step)) / 2.0
    return Tiles(count, np.maximum(keys + ragged, count * step), np.maximum(np.ceil(end / step) * step, step))


def tile_key(ops: Array, chip: Chip, p: Parameters) -> Array:
    """Seconds for a row tile to visit one key: `ops` matrix operations and one softmax term per row, which take turns."""
    return p["tile"] * (ops * chip.sms / (p["compute"] * chip.peak) + 1.0 / (p["exponentials"] * chip.clock))


def prefilled(
    tiles: Tiles, *, sequences: Array, key: Array, moved: Array, extra: Array, chip: Chip, resident: Array, p: Parameters
) -> Array:
    """Seconds of a prefill kernel: `key` s for a row tile to visit one key on one multiprocessor, `moved` bytes of Q, K, V and
    result, `extra` bytes of the passes around the kernel. The last wave leaves `tail` of a longest tile idle.
    """
    blocks = sequences * tiles.count
    longest = tiles.longest * key + p["unit"]
    shared = (sequences * tiles.keys * key + blocks * p["unit"]) / chip.sms
    work = np.maximum(shared, longest) + p["tail"] * longest * np.minimum(1.0, blocks / chip.sms)
    cold = spilled(moved, p["kept"] * chip.l2 * resident, 3.0)
    per_byte = cold / (STEADY_DRAM * chip.dram)
    port = 1.0 / (p["port"] * chip.clock * chip.sms)
    return p["launch"] + extra * (per_byte + port) + overlapped(work, moved * (per_byte + port))
