"""Measures of the Duplex paper that need requests over time: figures 12 and 13, the tails of figure 5 and Duplex-Split.

Requests are served by `hwsim.serving` with the scheduler "mixed" (section II-C: whole prompts beside the decodes of all others,
room for prompt and output reserved), a batch of at most `batch`, experts drawn for every step, and no host.

- lengths: Gaussian around the means, as the authors' public code has it (the paper prints no variance);
- closed loop: a finished request is replaced at once. The first batch starts in flight, each request with a random part of its
  output done, so that completions are spread from the start. It is the warm-up, the second batch is measured, and a third keeps
  the batch full while that ends. Times to first token are those of the second and third batch, times end to end those of the
  second, times between tokens those between the first and the last replacement;
- figure 13: Poisson arrivals for 16 s. The first half is the warm-up; the last arrival ends the measurement. The rate that a
  system keeps up with is that of the closed loop at the largest batch: any higher one makes the queue grow for ever.

A prompt is prefilled by one node: where replicas of the layers outside the experts (data parallel nodes) share a batch, the node
with the prompts is the one that the others wait for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwsim.catalogue import load_device
from hwsim.claim import Run
from hwsim.host import Host
from hwsim.job import Context, Job
from hwsim.lowering.moe import stream
from hwsim.serving.requests import Requests, make_requests
from hwsim.serving.served import Served, measured
from hwsim.serving.service import Engine, Service
from hwsim.serving.steps import Step, Steps

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SPREAD, CUT, WIDEST = 0.4, 0.95, 256  # of lengths: arXiv:2409.01141 code, scheduler
TOKENS = 32_768  # of a step; the paper has no such bound, and after the start no step comes near it
SECONDS = 16.0  # of arrivals in figure 13; a request takes 2 to 9 s


class Case(NamedTuple):
    """One system under one load. `rate` in requests/s, None for a closed loop; `pools`: replicas that prefill, that
    decode. Experts are drawn with a `seed`, otherwise their loads are the expected ones."""

    model: str
    arch: str
    batch: int
    prompt: int
    output: int
    dram: float = 1.0
    rate: float | None = None
    pools: tuple[int, int] | None = None
    seed: int | None = None


class Seen(NamedTuple):
    """What was measured after the warm-up: seconds of each request and of each gap with its weight, and requests/s."""

    t2ft: Floats
    e2e: Floats
    gaps: Floats
    weights: Floats
    requests_per_s: float

    def tbt(self, percent: float) -> float:
        """A percentile of the time between tokens [s]: the smallest gap with that part of all gaps at or below it."""
        order = np.argsort(self.gaps)
        part = np.cumsum(self.weights[order]) / self.weights.sum()
        return float(self.gaps[order][np.searchsorted(part, percent / 100 - 1e-12)])


# ---- measures ------------------------------------------------------------------------------------------------------------------


def saturation(chosen: Run) -> float:
    """Requests/s that a system serves when there are always enough of them."""
    return seen(_case(chosen, str(chosen.arch), chosen.prompt, chosen.output)).requests_per_s


def served_t2ft_reduction(chosen: Run) -> float:
    """Relative reduction of the median time to first token, the mean over all lengths of `args`."""
    return 1 - float(np.mean(_ratios(chosen, _median_t2ft)))


def served_tbt_reduction(chosen: Run) -> float:
    """Relative reduction of the median time between tokens, the mean over all lengths of `args`."""
    return 1 - float(np.mean(_ratios(chosen, _median_tbt)))


def served_tbt_wins(chosen: Run) -> float:
    """1 when the median time between tokens is lower at all lengths and rates of `args`."""
    return float(max(_ratios(chosen, _median_tbt)) < 1)


def served_e2e_factor(chosen: Run) -> float:
    """How many times as long a request takes on the other system, median, largest over all lengths of `args`."""
    return 1 / min(_ratios(chosen, _median_e2e))


def served_tails_equal(chosen: Run) -> float:
    """1 when the median time to first token and the 99th percentile between tokens are equal to a tenth."""
    found = [*_ratios(chosen, _median_t2ft), *_ratios(chosen, _tbt(99))]
    return float(np.max(np.abs(np.array(found) - 1)) <= 0.1)


def served_tail_crosses(chosen: Run) -> float:
    """1 when the 90th percentile between tokens is lower at the lowest rate of `args` and higher at the highest."""
    found = _ratios(chosen, _tbt(90))
    return float(found[0] < 1 < found[-1])


def served_trades_tail(chosen: Run) -> float:
    """1 when median times between tokens and end to end are lower, tails of the former (90, 99 %) and T2FT higher, always."""
    lower = [*_ratios(chosen, _median_tbt), *_ratios(chosen, _median_e2e)]
    higher = [*_ratios(chosen, _median_t2ft), *(ratio for part in (90, 99) for ratio in _ratios(chosen, _tbt(part)))]
    return float(max(lower) < 1 < min(higher))


def served_trades_rate(chosen: Run) -> float:
    """1 when requests/s and the 99th percentile between tokens are both lower, at all lengths of `args`."""
    return float(max(*_ratios(chosen, lambda one: one.requests_per_s), *_ratios(chosen, _tbt(99))) < 1)


def _ratios(chosen: Run, value: Callable[[Seen], float]) -> list[float]:
    """value(system) / value(over) for every length and rate of `args`."""
    return [value(seen(ours)) / value(seen(theirs)) for ours, theirs in _pairs(chosen)]


def _pairs(chosen: Run) -> Iterator[tuple[Case, Case]]:
    """`system` and `over` of `args` at every one of its lengths (that of prompt and output, or a pair) and rates."""
    args = chosen.args
    for rate in args.get("rates", [None]):
        for length in args["lengths"]:
            prompt, output = length if isinstance(length, list) else (length, length)
            ours, theirs = (_case(chosen, args[which], prompt, output)._replace(rate=rate) for which in ("system", "over"))
            pools = args.get("pools")
            yield ours._replace(pools=tuple(pools) if pools else None), theirs


def _case(chosen: Run, arch: str, prompt: int, output: int) -> Case:
    """A closed loop of `batch` requests; `dram` of `args` is the part of DRAM bandwidth that is reached."""
    dram = float(chosen.args.get("dram", 1.0))
    return Case(chosen.model, arch, chosen.batch, prompt, output, dram, seed=chosen.seed)


def _median_t2ft(one: Seen) -> float:
    return float(np.median(one.t2ft))


def _median_e2e(one: Seen) -> float:
    return float(np.median(one.e2e))


def _median_tbt(one: Seen) -> float:
    return one.tbt(50)


def _tbt(percent: float) -> Callable[[Seen], float]:
    return lambda one: one.tbt(percent)


# ---- requests ------------------------------------------------------------------------------------------------------------------


def lengths(many: int, prompt: int, output: int, seed: int) -> tuple[Ints, Ints]:
    """Tokens in and out: x of N(0, 0.4) within 0.95, delta = x (min(256, Lin, Lout) - 1); Lin - delta, Lout + delta."""
    x = stream(seed, "lengths").normal(0.0, SPREAD, 2 * many + 100)
    delta = x[np.abs(x) <= CUT][:many] * (min(WIDEST, prompt, output) - 1)
    return np.rint(prompt - delta).astype(np.int64), np.rint(output + delta).astype(np.int64)


def closed_loop(case: Case, waves: int = 3) -> Requests:
    """`waves` batches of requests, the first in flight: a random part of each output has become prompt, and that is cached."""
    many, seed = waves * case.batch, case.seed or 0
    prompt, output = lengths(many, case.prompt, case.output, seed)
    part = stream(seed, "in_flight").random(case.batch)
    done = (part * output[: case.batch]).astype(np.int64)
    prompt[: case.batch] += done
    output[: case.batch] -= done
    cached = np.where(np.arange(many) < case.batch, prompt - 1, 0)
    return make_requests(np.zeros(many), prompt, output, cached)


def poisson(case: Case, rate: float) -> Requests:
    """Requests of SECONDS with exponential gaps."""
    many, seed = round(rate * SECONDS), case.seed or 0
    gaps = stream(seed, "arrivals").exponential(1 / rate, many)
    prompt, output = lengths(many, case.prompt, case.output, seed)
    return make_requests(np.cumsum(gaps), prompt, output)


# ---- serving -------------------------------------------------------------------------------------------------------------------


class _Stages(Steps):
    """Prices of steps without their energy."""

    def ran_for(self, step: Step, n: int, first: int = 0) -> None:
        """Energy is not asked for."""


def engine(case: Case) -> Engine:
    """The service of a case: whole prompts beside decodes, all memory for weights and cache, room counted by the token."""
    device = load_device(case.arch)
    reached: dict[str, object] = {f"memories.{name}.efficiency": str(case.dram) for name in device.memories}
    service = Service(
        scheduler="mixed", max_seqs=case.batch, max_batched_tokens=TOKENS, kv_fraction=1.0, block=1,
        concurrency=None if case.rate else case.batch, disaggregate=case.pools, host="none",
    )  # fmt: skip
    made = Engine.of(case.model, device, service, Job(weights="fp16", kv="fp16", set=reached))  # room for expected loads
    context = Context(made.context.model, made.context.device, replace(made.context.job, seed=case.seed))
    steps = _Stages(context, Host())
    return replace(made, context=context, steps=steps)


@lru_cache(maxsize=256)
def seen(case: Case) -> Seen:
    """Serve a case and measure it after the warm-up."""
    if case.rate:
        asked = poisson(case, case.rate)
        return after_warm_up(serve(case, asked), len(asked) // 2, len(asked))
    return after_warm_up(serve(case, closed_loop(case)), case.batch, 2 * case.batch)


def serve(case: Case, asked: Requests) -> Served:
    """`asked` by the service of a case."""
    made = engine(case)
    cluster = made.cluster()
    fates = cluster.serve(asked, made.service.concurrency)
    return measured(made.context, made.service.instances, asked, fates, cluster, made.room)


def after_warm_up(served: Served, warm: int, ending: int) -> Seen:
    """What was measured between the arrivals of request `warm` and of the last one; end to end of requests up to `ending`."""
    fates = served.fates
    start, end = float(fates.arrival_s[warm]), float(fates.arrival_s[-1])
    gaps, weights = between_tokens(served, start, end)
    done = (fates.finished_s > start) & (fates.finished_s <= end)
    t2ft, e2e = (times - fates.arrival_s for times in (fates.first_s, fates.finished_s))
    return Seen(t2ft[warm:], e2e[warm:ending], gaps, weights, float(np.count_nonzero(done)) / (end - start))


def between_tokens(served: Served, start: float, end: float) -> tuple[Floats, Floats]:
    """Seconds of the steps of the replicas that decode, and how many tokens followed another one in them.

    Steps in a row that only decode count with their mean. A request that got its first token in a step has no gap there.
    """
    table = served.steps[served.steps["replica"] == served.instances - 1].sort_values("end_s")
    table = table[(table["start_s"] >= start) & (table["end_s"] <= end)]
    began = np.sort(served.fates.first_s)
    counts = [np.searchsorted(began, table["end_s"], side) for side in ("right", "left")]
    many = (table["sequences"] - (counts[0] - counts[1])) * table["steps"]
    return np.asarray((table["end_s"] - table["start_s"]) / table["steps"]), np.asarray(many, dtype=float)
