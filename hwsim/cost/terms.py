"""The terms every cost model answers in.

    alone = fixed + max(busy, max over memories of traffic / limit)

`fixed` is time in which the unit neither computes nor moves bytes (kernel launch, hops of a link), `busy` is arithmetic,
`traffic` bytes per memory and `limit` the bytes/s this unit can draw from it alone. Compute and traffic overlap. The event engine
uses the same terms and lets the memories decide how fast the traffic really goes.

An op that a machine runs as a program of instructions has its `program` (cost/streams.py): `fixed` is then what the program takes
beyond its busiest part, and the event engine plays the program instead of these terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from hwsim.cost.streams import Stage
from hwsim.op import Array, larger


@dataclass(frozen=True, eq=False)
class Cost:
    """Seconds, bytes and joules of one op on one unit; `method` says where the time came from."""

    fixed_s: Array
    busy_s: Array
    traffic: Mapping[str, Array]
    limit: Mapping[str, Array]
    joules: Mapping[str, Array]
    method: str
    program: tuple[Stage, ...] = ()

    @cached_property
    def memory_s(self) -> Array:
        """Time of the slowest memory."""
        slowest: Array = 0.0
        for memory, moved in self.traffic.items():
            slowest = larger(slowest, moved / self.limit[memory])
        return slowest

    @property
    def lanes(self) -> dict[str, Array]:
        """Seconds in which each instruction unit of a program is busy; empty without one."""
        total: dict[str, Array] = {}
        for stage in self.program:
            for stream in stage.streams:
                total[stream.unit] = total.get(stream.unit, 0.0) + stage.times * stream.busy_s
        return total

    @cached_property
    def alone_s(self) -> Array:
        """Time on an otherwise idle device."""
        return self.fixed_s + larger(self.busy_s, self.memory_s)
