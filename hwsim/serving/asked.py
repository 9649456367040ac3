"""What a user asks of `hwsim serve`: a load, an objective, and what came out of both.

A load is one of
- a trace with arrival times (at its own rate, or with its gaps stretched to `rate`)
- `rate` requests per second, with lengths drawn or, in order, out of a file of lengths
- `concurrency`: so many requests under way at any time, their lengths as above
- nothing but lengths, where the highest rate that keeps an objective is searched
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hwsim.catalogue import load_device, load_transformer
from hwsim.errors import InputError
from hwsim.job import Job
from hwsim.serving.capacity import Capacity, capacity
from hwsim.serving.cluster import Progress
from hwsim.serving.drawn import arrival_times, drawn_requests
from hwsim.serving.objective import Objective, read_objective
from hwsim.serving.requests import LATEST, Requests, has_arrivals, read_lengths, read_trace
from hwsim.serving.served import Served
from hwsim.serving.service import Service, serve

ARRIVALS, PROMPTS, OUTPUTS, MANY, PART = "poisson", "gaussian:mean=1024,sd=256", "gaussian:mean=256,sd=64", 1000, 0.99
SEARCHED = 4000  # requests of a search: fewer keep rates that a longer load does not (hwsim/serving/capacity.py)
_ANY_RATE = 1.0  # where a search begins that was given none
_LONG = 15.0  # times that a request takes; of llama-3.1-8b on an h100, longer loads move the capacity by less than 1 %
_UNUSED = ("phase", "batch", "prompt", "output", "sequences")  # settings of a job that requests replace

Watch = Callable[[str, int], Progress | None]


@dataclass(frozen=True)
class Load:
    """Requests as a user asks for them; None is what was not typed. InputError for what contradicts itself."""

    trace: Path | None = None
    rate: float | None = None
    concurrency: int | None = None
    num_requests: int | None = None
    arrivals: str | None = None
    prompt_dist: str | None = None
    output_dist: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("arrivals", "prompt_dist", "output_dist"):
            if getattr(self, name) == "":
                raise InputError(f"--{name.replace('_', '-')}: ''; accepted: the name of a distribution")
        if self.rate is not None and not 0 < self.rate < 1e9:
            raise InputError(f"--rate: {self.rate:g}; accepted: requests per second above 0 and below 1e9")
        if self.num_requests is not None and self.num_requests < 1:
            raise InputError(f"--num-requests: {self.num_requests}; accepted: a whole number from 1")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed: {self.seed}; accepted: a whole number from 0 to {2**63 - 1}")
        if self.rate is not None and self.concurrency is not None:
            raise InputError(f"--rate {self.rate:g} and --concurrency {self.concurrency}; accepted: one of them")
        if self.trace and (self.prompt_dist or self.output_dist):
            raise InputError(f"--requests {self.trace} has lengths; accepted: without --prompt-dist and --output-dist")
        if self.arrivals and self.concurrency is not None:
            raise InputError(
                f"--arrivals {self.arrivals[:40]}: with --concurrency requests start when others end; accepted: --rate"
            )
        if self.arrivals and self.timed:
            raise InputError(
                f"--arrivals {self.arrivals[:40]}: {self.trace} has arrival times; accepted: a file without arrival_s"
            )

    @cached_property
    def timed(self) -> bool:
        """Whether a trace says when its requests arrive."""
        return self.trace is not None and has_arrivals(self.trace)

    @property
    def complete(self) -> bool:
        """Whether it says when requests start."""
        return self.rate is not None or self.concurrency is not None or self.timed

    @property
    def many(self) -> int:
        """How many are drawn."""
        return self.num_requests or (MANY if self.complete else SEARCHED)

    def requests(self) -> Requests:
        """The requests; at any rate where none is given."""
        if self.timed:
            return self._traced()
        return self._untimed(None if self.concurrency is not None else self.rate or _ANY_RATE)

    def _untimed(self, rate: float | None) -> Requests:
        arrivals = self.arrivals or ARRIVALS
        if self.trace is None:
            prompts, outputs = self.prompt_dist or PROMPTS, self.output_dist or OUTPUTS
            return drawn_requests(self.many, rate, arrivals, prompts, outputs, self.seed)
        prompt, output = (column[: self.num_requests] for column in read_lengths(self.trace))
        self._enough(len(prompt))
        when = np.zeros(len(prompt)) if rate is None else arrival_times(len(prompt), rate, arrivals, self.seed)
        return Requests(when, prompt, output, np.zeros_like(prompt))

    def at(self) -> Callable[[float], Requests]:
        """Its requests at any rate, those that --rate would ask for."""
        if self.timed:
            return replace(self, rate=None).requests().at_rate
        unit = self._untimed(1.0)
        return lambda rate: replace(unit, arrival_s=unit.arrival_s / rate)

    def _traced(self) -> Requests:
        asked = read_trace(str(self.trace), self.num_requests)
        self._enough(len(asked))
        if self.concurrency is not None:
            return replace(
                asked, notes=(*asked.notes, f"arrival times of {self.trace} are not used: requests follow on each other")
            )
        if self.rate is None:
            return asked
        found = asked.at_rate(self.rate)
        if not found.arrival_s[-1] <= LATEST:
            raise InputError(f"--rate: {self.rate:g}; accepted: one at which {len(found)} requests arrive within {LATEST:g} s")
        note = f"arrivals of {self.trace} stretched from {asked.rate:.4g} to {self.rate:g} requests/s"
        return replace(found, notes=(*asked.notes, note))

    def _enough(self, there: int) -> None:
        if there < (self.num_requests or 0):
            raise InputError(f"--num-requests: {self.num_requests}, but {self.trace} has {there}; accepted: at most {there}")

    def files(self) -> list[Path]:
        """Files that are read."""
        drawn = [text or "" for text in (self.prompt_dist, self.output_dist)]
        known = [Path(text.removeprefix("empirical:")) for text in drawn if text.startswith("empirical:")]
        return [*known, *([self.trace] if self.trace else [])]

    def settings(self) -> dict[str, str]:
        """Every number that makes the requests, for reports."""
        found: dict[str, object] = {"requests": self.trace or self.many}
        if self.trace and self.num_requests:
            found["num-requests"] = self.num_requests
        if not self.trace:
            found |= {"prompts": self.prompt_dist or PROMPTS, "outputs": self.output_dist or OUTPUTS}
        if self.concurrency is None and not self.timed:
            found["arrivals"] = self.arrivals or ARRIVALS
        found |= {name: value for name, value in (("rate", self.rate), ("concurrency", self.concurrency)) if value is not None}
        if not self.timed:
            found["seed"] = self.seed
        return {name: f"{value:g}/s" if name == "rate" else str(value) for name, value in found.items()}


@dataclass(frozen=True)
class Goal:
    """An objective, the part of requests that has to keep it, and whether the highest rate is to be found."""

    objective: Objective
    part: float = PART
    search: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.part <= 1:
            raise InputError(f"--slo-part: {self.part:g}; accepted: above 0, at most 1")


def read_goal(slo: str | None, part: float | None, search: bool) -> Goal | None:
    """The goal of --slo, --slo-part and --capacity; None without any. InputError where the latter stand alone."""
    if slo is not None:
        return Goal(read_objective(slo), PART if part is None else part, search)
    if search or part is not None:
        raise InputError(f"{'--capacity' if search else f'--slo-part {part:g}'} without --slo; accepted: --slo ttft=2s,tpot=50ms")
    return None


@dataclass(frozen=True, eq=False)
class Outcome:
    """A run, and where asked for an objective and the search for the highest rate that keeps it."""

    served: Served
    concurrency: int | None = None
    goal: Goal | None = None
    capacity: Capacity | None = None

    @property
    def notes(self) -> list[str]:
        """What a reader should know."""
        return [*self.served.notes, *self._search_notes()]

    @property
    def limit(self) -> str:
        """What the rate that a search found is: "exact", "at most" where a longer load keeps less, "none" where all were kept.

        "unmet" where no rate was.
        """
        if self.goal is None or self.capacity is None or self.capacity.best is None:
            return "unmet"
        if self.capacity.tried[-1][1] >= self.goal.part:
            return "none"
        return "exact" if self._arrive >= _LONG else "at most"

    @property
    def _arrive(self) -> float:
        """How long the requests arrive at the rate that was found, in times that one takes."""
        best = self.capacity.best if self.capacity else None
        if self.capacity is None or best is None:
            return 0.0
        return len(best.requests) / self.capacity.rate / (best.summary("e2e_s")["mean"] or math.inf)

    def _search_notes(self) -> list[str]:
        """What the search found, where it is no capacity, and how to see it again."""
        if self.capacity is None or self.limit == "unmet":
            return []
        if self.limit == "none":
            return ["capacity: even all requests at once keep the objective; more of them (--num-requests) would find a limit"]
        many = len(self.served.requests)
        found = [f"capacity: --rate {self.capacity.rate:g} --num-requests {many} instead of the search serves the same requests"]
        if self.limit == "at most":
            times = f"all requests arrive within {self._arrive:.2g} times as long as one takes"
            found.append(f"capacity: {times}, too soon for a queue to grow; more of them (--num-requests) keep a lower rate")
        return found

    def to_dict(self) -> dict[str, Any]:
        """The JSON document: that of the run, the load, the objective, the search."""
        rate = self.served.requests.rate if self.concurrency is None else None
        found = self.served.to_dict(self.goal.objective if self.goal else None)
        found |= {"rate": rate, "concurrency": self.concurrency, "notes": self.notes}
        if self.goal:
            found["slo_part"] = self.goal.part
        if self.capacity:
            tried = [{"rate": tried, "met": met} for tried, met, _ in self.capacity.tried]
            found["capacity"] = {"rate": self.capacity.rate, "limit": self.limit, "tried": tried}
        return found


def outcome(
    model: str, arch: str, load: Load, service: Service, job: Job, goal: Goal | None = None, watch: Watch | None = None
) -> Outcome:
    """Serve a load, or search the highest rate where the load has none. `watch(title, requests)` follows every run.

    Raises InputError for what is not understood or asks for nothing, CapacityError where weights and cache have no room.
    """
    if goal is None and load.trace and not load.complete:
        raise InputError(
            f"--requests {load.trace}: lengths without arrival_s; accepted: with --rate R or --concurrency N, "
            "or --slo to search the highest rate"
        )
    if goal is None and not load.complete:
        raise InputError(
            "no requests; accepted: --requests FILE, --rate R or --concurrency N, or --slo to search the highest rate"
        )
    if goal and goal.search and load.concurrency is not None:
        raise InputError(f"--capacity: --concurrency {load.concurrency} has no rate to search; accepted: --rate, --requests")
    network, device, asked = load_transformer(model), load_device(arch), load.requests()

    def served(requests: Requests) -> Served:
        title = "serving" if load.concurrency is not None else f"serving {requests.rate:.4g} requests/s"
        return serve(network, device, requests, service, job, watch(title, len(requests)) if watch else None)

    if goal is None or (load.complete and not goal.search):
        return Outcome(served(asked), load.concurrency, goal)
    at, start = load.at(), asked.rate if load.timed else load.rate or _ANY_RATE
    found = capacity(start, lambda rate: served(at(rate)), goal.objective, goal.part)
    run = served(asked) if load.complete else found.best or found.tried[-1][2]
    return Outcome(run, None, goal, found)


def scheduler_of(name: str | None, chunked_prefill: bool | None) -> str:
    """The scheduler that --scheduler and --chunked-prefill ask for together. InputError where they contradict each other."""
    if chunked_prefill is None or name is None:
        return name or ("prefill-first" if chunked_prefill is False else "chunked")
    if chunked_prefill != (name == "chunked"):
        switch = "--chunked-prefill" if chunked_prefill else "--no-chunked-prefill"
        raise InputError(f"{switch}: --scheduler {name[:40]} says otherwise; accepted: one of them")
    return name


def settings(load: Load, service: Service, job: Job, goal: Goal | None) -> dict[str, str]:
    """Everything that was asked for, as reports show it: requests, service, what of the job is not at its default."""
    served = {f.name.replace("_", "-"): getattr(service, f.name) for f in fields(service) if f.repr and f.name != "concurrency"}
    if service.disaggregate:
        served |= {"disaggregate": "{}:{}".format(*service.disaggregate), "replicas": None}
    if service.instances == 1:
        served["router"] = None
    shown = {name: _written(value) for name, value in served.items() if value is not None}
    wanted = {"slo": str(goal.objective), "slo-part": f"{goal.part:g}"} if goal else {}
    return load.settings() | shown | {key: value for key, value in job.settings().items() if key not in _UNUSED} | wanted


def _written(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
