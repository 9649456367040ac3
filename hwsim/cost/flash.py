"""Ways inside one device: a drive with requests in flight (hwsim/kernels/drive.py), PCIe, a copy in memory.

Long reads one after another leave nothing to wait for: bytes / (bandwidth x efficiency). Ways without a queue take their latency
once, then that. Left out: writes to a drive; of fewer requests than the queue holds, that not all are in flight.
"""

from __future__ import annotations

import numpy as np

from hwsim.cost.terms import Cost
from hwsim.device import Device, Link
from hwsim.kernels.drive import drive
from hwsim.op import Array, Load


def load(op: Load, name: str, device: Device) -> Cost:
    """Cost of `op` over the link `name`, from the memory that it reads into its own."""
    link = device.links[name]
    scattered = link.queue is not None and bool(np.any(np.greater(op.chunk, 0.0)))
    rate = throughput(link, op.chunk) if scattered else link.bandwidth * link.efficiency
    ends = (link.reads, link.memory)
    traffic = {memory: op.moved * ends.count(memory) for memory in ends}
    joules = {memory: moved * device.memories[memory].energy for memory, moved in traffic.items()}
    return Cost(
        fixed_s=link.latency * np.greater(op.moved, 0.0) if link.queue is None else 0.0,
        busy_s=op.moved / rate,
        traffic=traffic,
        limit={memory: np.minimum(rate * ends.count(memory), device.memories[memory].rate) for memory in traffic},
        joules=joules | {name: op.moved * link.energy},
        method="link drive" if scattered else "link",
    )


def throughput(link: Link, chunk: Array) -> Array:
    """Bytes/s of requests of `chunk` bytes, as many in flight as the link's queue holds."""
    queue = link.queue
    assert queue is not None
    numbers = {"latency": link.latency, "stream": queue.stream, "command": queue.command}
    return chunk / drive(chunk=chunk, depth=queue.depth, chip=None, p=numbers | {"bandwidth": link.bandwidth * link.efficiency})
