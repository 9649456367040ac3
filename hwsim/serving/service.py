"""One service, end to end: a network on replicas of a device, requests, and what became of them.

`serve(model, device, requests, service)` builds the engines (prices, cache, scheduler), routes, runs and returns a `Served`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from numbers import Integral

from hwsim.catalogue import load_device, load_transformer
from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.host import Host, host_of_stack, load_host
from hwsim.job import Context, Job
from hwsim.lowering.model import Model
from hwsim.placement.policy import Rewriting
from hwsim.serving.cache import Room, room
from hwsim.serving.cluster import Cluster, Pool, Progress
from hwsim.serving.queue import Queue
from hwsim.serving.replica import AHEAD, Replica
from hwsim.serving.requests import Requests
from hwsim.serving.routers import read_router
from hwsim.serving.schedulers import read_scheduler
from hwsim.serving.served import Served, measured
from hwsim.serving.steps import Steps
from hwsim.serving.transfer import Transfer

MAX_REPLICAS = 4096


@dataclass(frozen=True)
class Service:
    """How requests are served, as a user types it.

    `max_seqs` and `max_batched_tokens` are limits of each data-parallel rank, as in vLLM.
    `kv_fraction` of a device's memory holds weights, activations and cache; `concurrency` closes the loop; `disaggregate` is
    (replicas that prefill, replicas that decode). `host` names the software's overheads (arch/hosts/), by default those of the
    job's stack.
    """

    scheduler: str = "chunked"
    max_seqs: int = 256
    max_batched_tokens: int = 8192
    kv_fraction: float = 0.9
    block: int = 16
    prefix_caching: bool = True
    replicas: int = 1
    router: str = "round-robin"
    disaggregate: tuple[int, int] | None = None
    concurrency: int | None = None
    host: str | Host | None = None
    ahead: int = field(default=AHEAD, repr=False)  # 1: step by step, for tests

    def __post_init__(self) -> None:
        read_scheduler(self.scheduler)
        read_router(self.router)
        pools = self.disaggregate or (1, 1)
        counts = {
            "max-seqs": self.max_seqs, "max-batched-tokens": self.max_batched_tokens, "block": self.block,
            "replicas": self.replicas, "disaggregate": min(pools),
            "concurrency": 1 if self.concurrency is None else self.concurrency,
        }  # fmt: skip
        for name, value in counts.items():
            most = MAX_REPLICAS if name in ("replicas", "disaggregate") else 100_000_000
            if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= value <= most:
                raise InputError(f"{name}: {value}; accepted: a whole number from 1 to {most}")
        if sum(pools) > MAX_REPLICAS:
            raise InputError(f"disaggregate: {pools[0]}:{pools[1]}; accepted: at most {MAX_REPLICAS} replicas")
        if not 0 < self.kv_fraction <= 1:
            raise InputError(f"kv-fraction: {self.kv_fraction}; accepted: above 0, at most 1")
        if self.disaggregate and self.replicas > 1:
            raise InputError("disaggregate: says how many replicas there are; accepted: without replicas")

    @property
    def instances(self) -> int:
        """Replicas, those of both pools together."""
        return sum(self.disaggregate) if self.disaggregate else self.replicas


def read_pools(text: str) -> tuple[int, int]:
    """Read "2:3", replicas that prefill and replicas that decode."""
    match = re.fullmatch(r"\s*(\d{1,4}):(\d{1,4})\s*", text)
    if match is None:
        raise InputError(f"disaggregate: {text[:40]!r}; accepted: PREFILL:DECODE, numbers of replicas such as 2:1")
    return int(match[1]), int(match[2])


def serve(
    model: Model | str, device: Device | str, asked: Requests, service: Service | None = None, job: Job | None = None,
    progress: Progress | None = None,
) -> Served:  # fmt: skip
    """Serve `asked` by replicas of `device`. `job` gives number formats, policy, parallel plan, routing and software stack.

    Raises InputError for what is not understood and CapacityError where a replica has no room for weights and a cache.
    """
    service = service or Service()
    engine = Engine.of(model, device, service, job or Job())
    cluster = engine.cluster()
    fates = cluster.serve(asked, service.concurrency, progress)
    return measured(engine.context, service.instances, asked, fates, cluster, engine.room)


@dataclass(frozen=True, eq=False)
class Engine:
    """What all replicas of a service share: prices, room for the cache, and how they are joined."""

    context: Context
    service: Service
    steps: Steps
    room: Room

    @classmethod
    def of(cls, model: Model | str, device: Device | str, service: Service, job: Job) -> Engine:
        """Load what is named and work out the room for the cache."""
        model = load_transformer(model) if isinstance(model, str) else model
        device = load_device(device) if isinstance(device, str) else device
        if not model.causal:
            raise InputError(f"model: {model.name} is an encoder; accepted: a network that generates tokens")
        context = Context(model, job.configured(device), replace(job, phase="generate"))
        if isinstance(context.policy, Rewriting):
            raise InputError(
                f"policy: {str(job.policy)[:40]} reads weights for every pass; accepted for serving: one that keeps them"
            )
        if context.plan.microbatches > 1:
            raise InputError("parallel: microbatches divide one large batch; accepted: tp, pp, dp and ep")
        host = host_of(context.device, service.host or job.host)
        space = room(context, service.block, *_limits(service, context), service.kv_fraction, float(host.reserved))
        return cls(context, service, Steps(context, host), space)

    def cluster(self) -> Cluster:
        """Fresh replicas."""
        service, ahead_s = self.service, float(self.steps.host.request)
        if service.disaggregate is None:
            return Cluster(self._pool(service.replicas), ahead_s=ahead_s)
        first, second = (self._pool(many) for many in service.disaggregate)
        return Cluster(first, second, Transfer.of(self.context), ahead_s)

    def _pool(self, many: int) -> Pool:
        service, scheduler = self.service, read_scheduler(self.service.scheduler)
        limits = _limits(service, self.context)
        queues = [Queue(self.room, *limits, prefix_caching=service.prefix_caching) for _ in range(many)]
        return Pool(tuple(Replica(self.steps, queue, scheduler, service.ahead) for queue in queues), read_router(service.router))


def _limits(service: Service, context: Context) -> tuple[int, int]:
    """Sequences and tokens of a step of all data-parallel ranks of an engine together."""
    return service.max_seqs * context.plan.dp, service.max_batched_tokens * context.plan.dp


def host_of(device: Device, named: str | Host | None) -> Host:
    """The software's overheads: as given, else those of the device's stack where its kernels were measured, else none."""
    if isinstance(named, Host):
        return named
    if named is not None:
        return load_host(named)
    return host_of_stack(device.stack) if "gemm" in device.kernels else Host()
