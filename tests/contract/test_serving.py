"""What every device, network, parallel plan, scheduler and router must keep when it serves requests."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from hwsim.catalogue import load_device, load_model, names
from hwsim.engine import estimate
from hwsim.errors import CapacityError, InputError, PlacementError
from hwsim.host import Host
from hwsim.job import Context, Job
from hwsim.lowering.batch import Sequences
from hwsim.serving import Service, drawn_requests
from hwsim.serving.routers import ROUTERS
from hwsim.serving.schedulers import SCHEDULERS
from hwsim.serving.service import Engine
from hwsim.serving.steps import Step, Steps
from tests.serving_by_hand import watched

MODELS = [
    "gpt2", "llama-3.1-8b", "mistral-7b", "gemma-2b", "falcon-7b", "qwen3-1.7b", "olmoe-1b-7b", "deepseek-v2-lite", "gpt-oss-20b",
    "phi-mini-moe", "llama-3.1-8b-fp8",
]  # fmt: skip
PLANS = [
    ("llama-3.1-8b", "4x-h100", "tp=4"), ("llama-3.1-8b", "4x-h100-ideal", "tp=2,pp=2"), ("gpt2", "4x-a100", "pp=4"),
    ("mixtral-8x7b", "4x-h100", "tp=4,ep=4"), ("mixtral-8x7b", "8x-h100-ideal", "dp=8,ep=8"), ("gpt2", "8x-h100", "dp=8"),
    ("deepseek-v2-lite", "4x-h200", "dp=4,ep=4"), ("mixtral-8x7b", "8x-h200", "tp=2,dp=4,ep=8"),
    ("gpt-oss-20b", "4x-h100", "tp=4"), ("llama-3.1-70b", "8x-h100", "tp=4,pp=2"), ("mixtral-8x7b", "4x-duplex", None),
    ("mixtral-8x7b", "4x-duplex-pe-et", None),
]  # fmt: skip


def compositions(name: str) -> list[tuple[Step, int]]:
    """Random steps, the same for every run of the tests; prompts alone, decodes alone and both, some of them in a row."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    found = []
    for chunks, decodes, n in ((1, 0, 1), (3, 0, 1), (0, 1, 1), (0, 5, 17), (2, 40, 1), (1, 300, 1), (0, 280, 3)):
        several = [
            (int(new), int(past)) for new, past in zip(rng.integers(2, 700, chunks), rng.integers(0, 900, chunks), strict=True)
        ]
        contexts = rng.integers(0, 400 if decodes > 50 else 6000, decodes).astype(float)
        found.append((Step(several, contexts), n))
    return found


def whole(context: Context, step: Step, past: int):
    """`estimate` of a whole pass, `past` steps later."""
    part = 1.0 / context.plan.dp
    batch = [Sequences(part, float(new), float(before)) for new, before in step.chunks]
    batch += [Sequences(part, 1.0, before + past) for before in step.contexts.tolist()]
    return estimate(context.rows(tuple(batch)), context.device)


def dealt(context: Context, step: Step) -> list[tuple[int, int]]:
    """Chunks of the data-parallel rank with most prompt tokens."""
    ranks = context.plan.dp
    return max((step.chunks[rank::ranks] for rank in range(ranks)), key=lambda chunks: sum(new for new, _ in chunks))


def slowest(context: Context, step: Step, past: int):
    """`estimate` of the rank with most prompt tokens; experts of all ranks and their exchange as the mean rank has them."""
    ranks, mean = context.plan.dp, whole(context, step, past)
    if ranks == 1 or not step.chunks:
        return mean
    batch = [Sequences(1.0, float(new), float(before)) for new, before in dealt(context, step)]
    batch += [Sequences(1.0 / ranks, 1.0, before + past) for before in step.contexts.tolist()]
    rows = context.rows(tuple(batch))
    kinds = ("experts", "all_to_all") if context.plan.ep > 1 else ()
    shared = {task.row.op.name: task.row for task in mean.tasks if task.row.op.kind in kinds}
    return estimate([shared.get(row.op.name, row) for row in rows], context.device)


def check(model: str, device: str, job: Job | None = None) -> None:
    """Seconds and joules of steps are those of the whole pass."""
    job = job or Job()
    context = Context(load_model(model), job.configured(load_device(device)), job)
    host = Host(step=1e-3, sequence=1e-5)
    steps, joules = Steps(context, host), {}
    for step, n in compositions(f"{model} {device}"):
        seconds = steps.seconds(step, n)
        steps.ran_for(step, n)
        assert seconds.shape == (n,)
        for past in range(n):
            pass_ = whole(context, step, past)
            latency = float(slowest(context, step, past).latency_s)
            sequences = len(dealt(context, step)) + len(step.contexts) / context.plan.dp
            assert seconds[past] == pytest.approx(latency + 1e-3 + 1e-5 * sequences, rel=1e-9)
            for name, value in pass_.joules().items():
                joules[name] = joules.get(name, 0.0) + float(value)
    spent = steps.joules()
    assert {name for name, value in spent.items() if value} == {name for name, value in joules.items() if value}
    for name, value in joules.items():
        assert spent.get(name, 0.0) == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize("device", names("arch"))
def test_every_device_prices_steps_as_whole_passes(device):
    reasons = []
    for model in ("qwen3-1.7b", "gpt2"):
        try:
            return check(model, device)
        except (CapacityError, PlacementError) as error:
            reasons.append(str(error))
    return pytest.skip(reasons[-1])


@pytest.mark.parametrize("device", ["h100-ideal", "h200"])
@pytest.mark.parametrize("model", MODELS)
def test_networks_of_all_kinds_are_priced_as_whole_passes(model, device):
    check(model, device)


@pytest.mark.parametrize(("model", "device", "parallel"), PLANS)
def test_parallel_plans_are_priced_as_whole_passes(model, device, parallel):
    check(model, device, Job(parallel=parallel))


@pytest.mark.parametrize(
    "job", [Job(mla="absorbed"), Job(mla="expanded"), Job(weights="fp8"), Job(kv="fp8"), Job(routing="zipf:s=1.2")]
)
def test_jobs_are_priced_as_whole_passes(job):
    check("deepseek-v2-lite", "h100-ideal", job)


def test_encoders_are_refused():
    with pytest.raises(InputError, match="encoder"):
        Engine.of("bert-base", "h100-ideal", Service(), Job())


@pytest.mark.parametrize("device", names("arch"))
def test_every_device_serves_a_small_network(device):
    try:
        engine = Engine.of("gpt2", device, Service(max_seqs=16, max_batched_tokens=256), Job())
    except (CapacityError, PlacementError) as error:
        pytest.skip(str(error))
    fates = engine.cluster().serve(ASKED)
    assert not fates.rejected
    assert np.all(fates.finished_s >= fates.first_s)
    assert np.all(fates.first_s > fates.arrival_s)


ASKED = drawn_requests(60, 200.0, "gamma:cv=3", "lognormal:mean=100,sd=100", "gaussian:mean=30,sd=20", 7)


@pytest.mark.parametrize("router", sorted(ROUTERS))
@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
@pytest.mark.parametrize(("replicas", "pools"), [(1, None), (3, None), (1, (2, 1))])
@pytest.mark.parametrize("concurrency", [None, 12])
def test_every_scheduler_and_router_keeps_the_limits(scheduler, router, replicas, pools, concurrency):
    """With a cache of 60 blocks, so that preemption happens; the limits are checked at every step (see serving_by_hand.py)."""
    service = Service(
        scheduler=scheduler, router=router, replicas=replicas, disaggregate=pools, max_seqs=16, max_batched_tokens=256
    )  # fmt: skip
    engine = Engine.of("gpt2", "h100-ideal", service, Job())
    cluster, seen = engine.cluster(), []
    for replica in cluster.replicas:
        replica.queue.room = type(engine.room)(60, 16)
        replica.scheduler = watched(replica.scheduler, seen, whole_prompts=scheduler != "chunked")
    fates = cluster.serve(ASKED, concurrency)
    assert (~np.isnan(fates.finished_s)).sum() + len(fates.rejected) == len(ASKED)
    assert set(fates.rejected) == set(np.flatnonzero(ASKED.prompt + ASKED.output - 1 > 60 * 16))
    assert {index for step in seen for index, _ in step} == set(range(len(ASKED))) - set(fates.rejected)
    if replicas == 1 and not pools:
        started = fates.started_s[~np.isnan(fates.started_s)]
        assert np.all(np.diff(started) >= 0)
        assert (fates.preemptions.sum() > 0) == (scheduler != "mixed")
    if router == "round-robin" and not pools and concurrency is None:
        served = [index for index in range(len(ASKED)) if index not in fates.rejected]
        assert fates.replica[served].tolist() == [turn % replicas for turn in range(len(served))]


@pytest.mark.parametrize("seed", [None, 3])
def test_a_prompt_of_one_data_parallel_rank_is_exchanged_once(seed):
    """Over slow links the exchange is all that takes time: an eighth of it where one rank of eight has a prompt."""
    slow = ("links.nvlink.bandwidth", "100 MB/s")
    job = Job(parallel="tp=1,dp=8,ep=8", set=dict([slow]), seed=seed)
    engine = Engine.of("deepseek-v2-lite", "8x-h100-ideal", Service(), job)
    one, all_ = (float(engine.steps.seconds(Step([(1024, 0)] * many, np.array([])))[0]) for many in (1, 8))
    assert one == pytest.approx(all_ / 8, rel=0.05)
