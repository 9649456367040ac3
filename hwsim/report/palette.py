"""One colour per op kind, bound and component over all figures.

Hues of Okabe and Ito (2008) and of Paul Tol's muted scheme, which stay apart for colour-blind readers; elementwise ops are grey.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

GREY = "#9a9fa5"
OTHER = "other"

_KINDS = {
    "attention.prefill": "#0072B2", "attention.decode": "#56B4E9", "qkv": "#009E73", "out": "#44AA99", "absorb": "#117733",
    "ffn": "#E69F00", "experts": "#D55E00", "shared": "#DDCC77", "router": "#F0E442", "head": "#CC79A7", "embedding": "#AA4499",
    "all_reduce": "#882255", "all_gather": "#AA6688", "reduce_scatter": "#661133", "all_to_all": "#332288", "send": "#6655AA",
    "flash": "#6699CC", "paging": "#6699CC", "cache": "#997700", "predictor": "#CC6677",
    "norm": "#8a8f95", "rope": "#b4b8bc", "add": "#6a6f75", "activation": "#50545a", "static": "#d0d3d6", OTHER: "#e4e6e8",
}  # fmt: skip
_BOUNDS = {
    "compute": "#D55E00", "memory": "#0072B2", "latency": "#9a9fa5", "link": "#882255", "shared": "#E69F00", "static": "#d0d3d6",
}  # fmt: skip
_MEASURES = {
    "ttft": "#0072B2", "tpot": "#009E73", "tbt": "#CC79A7", "e2e": "#D55E00",
    "p50": "#56B4E9", "p90": "#0072B2", "p99": "#332288",
    "prompt and output tokens": "#56B4E9", "output tokens": "#D55E00", "sequences in a step": "#0072B2",
    "requests that wait": "#E69F00", "KV cache in use": "#009E73", "met": "#0072B2", "capacity": "#D55E00",
}  # fmt: skip
_SPARE = ("#117733", "#999933", "#CC6677", "#88CCEE", "#44AA99", "#AA4499", "#DDCC77", "#332288")


def kind_colour(kind: str) -> str:
    """The same kind has the same colour in every figure of every report."""
    return _KINDS.get(kind) or _SPARE[zlib.crc32(kind.encode()) % len(_SPARE)]


def bound_colour(bound: str) -> str:
    """Compute is warm, memory is cool, waiting is grey."""
    return _BOUNDS.get(bound, GREY)


def measure_colour(name: str) -> str:
    """What a service is measured by."""
    return _MEASURES[name]


def component_colours(components: Iterable[str]) -> dict[str, str]:
    """Memories, units and links in the order of their names; static power is always light grey."""
    hues = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", *_SPARE)
    names = sorted(set(components) - {"static"})
    return {name: hues[i % len(hues)] for i, name in enumerate(names)} | {"static": _KINDS["static"]}


def kind_order(kinds: Iterable[str]) -> list[str]:
    """Known kinds as a network runs them, then the others by name."""
    known = list(_KINDS)
    return sorted(set(kinds), key=lambda kind: (known.index(kind) if kind in known else len(known), kind))
