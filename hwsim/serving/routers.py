"""Routers: which replica takes a request. A router is a function of the replicas and how many requests came before.

- round-robin: one after another
- least-loaded: the one with the fewest requests that wait or run, the first of equals
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hwsim.errors import InputError
from hwsim.serving.replica import Replica

Router = Callable[[Sequence[Replica], int], int]


def round_robin(replicas: Sequence[Replica], before: int) -> int:
    """In turn."""
    return before % len(replicas)


def least_loaded(replicas: Sequence[Replica], before: int) -> int:
    """Fewest requests; what it did before does not matter."""
    return min(range(len(replicas)), key=lambda index: replicas[index].load)


ROUTERS: dict[str, Router] = {"round-robin": round_robin, "least-loaded": least_loaded}


def read_router(name: str) -> Router:
    """A router by name. InputError lists what there is."""
    if name not in ROUTERS:
        raise InputError(f"router: {name[:40]!r}; accepted: {', '.join(ROUTERS)}")
    return ROUTERS[name]
