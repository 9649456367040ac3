"""Links: latency per hop, then bytes at link speed (the alpha-beta model of Hockney 1994).

    time = hops x latency + sent / (bandwidth x efficiency)

`sent` leaves this device while as much arrives, so its memory serves twice that, at twice the link's one-way rate.
Left out: the additions of a reduction and the memory traffic they cause beyond sending and receiving.
"""

from __future__ import annotations

from hwsim.cost.terms import Cost
from hwsim.device import Link, Memory
from hwsim.op import Move


def transfer(op: Move, name: str, link: Link, memory: Memory) -> Cost:
    """Cost of moving `op.sent` bytes per device over `link` in `op.hops` steps, out of and into `memory`."""
    both_ways = 2.0 * op.sent
    return Cost(
        fixed_s=op.hops * link.latency,
        busy_s=0.0,
        traffic={link.memory: both_ways},
        limit={link.memory: 2.0 * link.bandwidth * link.efficiency},
        joules={name: op.sent * link.energy, link.memory: both_ways * memory.energy},
        method="link",
    )
