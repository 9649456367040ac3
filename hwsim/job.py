"""One run, end to end: model, device and a job -> lower, parallelize, place, simulate -> Trace.

Phases
- prefill: `batch` prompts of `prompt` tokens; makes the first token, so its latency is the TTFT.
- decode: one token for each of `batch` sequences with `prompt` tokens in the cache.
- generate: prefill, then `output` - 1 decode steps over growing contexts; TTFT, TPOT (mean time per output token) and all.
- mixed: any (new tokens, context) per sequence in one pass, as continuous batching makes them.
- train: forward and backward pass over `batch` samples, of networks of events.

A convolutional network has no phases: it sees a batch of images in one pass. A network of events (hwsim/spiking.py) has no
tokens: every phase but train is inference on `batch` streams of each modality.

Decode steps of a generation are priced in one broadcast call where no two ops draw on one memory at once (then that is exact, see
engine/estimate.py), and simulated step by step otherwise. With a seed, expert choice is drawn once a step and kind of layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from typing import Literal, get_args

import numpy as np

from hwsim.catalogue import Network, load_device, load_model, load_transformer
from hwsim.device import Compression, Device, Quirks
from hwsim.engine import Estimate, estimate, simulate
from hwsim.engine.record import delayed, summed
from hwsim.errors import InputError
from hwsim.formats import bits
from hwsim.host import Host, launches, load_host
from hwsim.images import run_images
from hwsim.lowering.batch import Batch, decode, mixed, prefill, sequences, tokens
from hwsim.lowering.convnet import ConvNet
from hwsim.lowering.model import Model, Precision, Sparsity
from hwsim.lowering.moe import Routing, read_routing
from hwsim.lowering.published import as_published
from hwsim.lowering.spiking import SpikingNetwork
from hwsim.lowering.transformer import Mla, lower
from hwsim.op import Array, Op
from hwsim.placement import Plan, Policy, Row, Speculation, parallelize, place, read_policy
from hwsim.placement.capacity import check_capacity, held
from hwsim.placement.parallel import read_plan
from hwsim.placement.policy import Rewriting, plan_of, rewriting
from hwsim.spiking import run_spiking
from hwsim.trace import Trace

Phase = Literal["prefill", "decode", "generate", "mixed", "train"]
_CHARGED: Mapping[Quirks, str] = {
    "none": "each operand in its own width, the network's own layers, any number of rows",
    "as-published": "layers, widths and scales are those of the authors' released lists, not what the array would do",
}
_TOKENS_ONLY = (
    "activations",
    "kv",
    "weights",
    "head",
    "quirks",
    "parallel",
    "host",
    "stack",
    "sequences",
)  # options that streams have no use for
MAX_TOKENS = 100_000_000
MAX_OUTPUT = 1_000_000  # decode steps that are priced at once


@dataclass(frozen=True)
class Job:
    """What to run: phase, batch, lengths, number formats, routing, policy, parallel plan, software; as a user types them.

    Formats default to those of the device's file or the model's config, policy, parallel plan, stack and quirks to the device's.
    """

    phase: Phase = "generate"
    batch: int = 1
    prompt: int = 1024
    output: int = 128
    sequences: Sequence[tuple[int, ...]] = ()
    weights: str | None = None
    head: str | None = None
    activations: str | None = None
    kv: str | None = None
    routing: str = "uniform"
    seed: int | None = None
    policy: str | Policy | None = None
    parallel: str | Plan | None = None
    mla: Mla = "auto"
    stack: str | None = None
    host: str | None = None
    quirks: Quirks | None = None
    set: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.phase not in get_args(Phase):
            raise InputError(f"phase: {self.phase!r}; accepted: {', '.join(get_args(Phase))}")
        if self.mla not in get_args(Mla):
            raise InputError(f"mla: {self.mla!r}; accepted: {', '.join(get_args(Mla))}")
        if self.quirks is not None and self.quirks not in get_args(Quirks):
            raise InputError(f"quirks: {self.quirks!r}; accepted: {', '.join(get_args(Quirks))}")
        for name, most in (("batch", MAX_TOKENS), ("prompt", MAX_TOKENS), ("output", MAX_OUTPUT)):
            _whole(name, getattr(self, name), 1, most)
        if self.seed is not None:
            _whole("seed", self.seed, 0, 2**63 - 1)
        if (self.phase == "mixed") != bool(self.sequences):
            raise InputError("phase mixed and a list of sequences (new tokens, context) need each other")

    def configured(self, device: Device) -> Device:
        """The device with the numbers, the software stack and the quirks of this job."""
        configured = device.with_values(self.set).with_stack(self.stack)
        return configured if self.quirks is None else configured.with_quirks(self.quirks)

    def settings(self, tokens: bool = True) -> dict[str, str]:
        """What is not left at its default, for reports; without `tokens` the run was one of images or streams."""
        if not tokens:
            names = ("batch", "policy", "weights", "activations", "stack", "seed")
            given = {name: str(getattr(self, name)) for name in names if name == "batch" or getattr(self, name) is not None}
            return given | ({"phase": "train"} if self.phase == "train" else {})
        if self.phase == "mixed":
            needed = {"phase"}
        else:
            needed = {"phase", "batch", "prompt"} | ({"output"} if self.phase == "generate" else set())
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "sequences"}
        found = {name: str(value) for name, value in shown.items() if name in needed or value != getattr(Job(), name)}
        return found | ({"sequences": ", ".join(map(str, mixed(self.sequences)))} if self.sequences else {})


def _whole(name: str, value: object, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise InputError(f"{name}: {value!r}; accepted: a whole number from {least} to {most}")


def run(model: Network | str, device: Device | str, job: Job | None = None, **changes: object) -> Trace:
    """Simulate `job` (or Job(**changes)) of `model` on `device`; names and files are loaded.

    Raises InputError for what is not understood, CapacityError when it does not fit, PlacementError when a unit is missing.
    """
    model = load_model(model) if isinstance(model, str) else model
    device = load_device(device) if isinstance(device, str) else device
    job = replace(job or Job(), **changes)  # type: ignore[arg-type]
    if isinstance(model, ConvNet):
        trace = run_images(model, job.configured(device), job.policy, job.batch, job.weights, job.activations)
        return replace(trace, model=model.name, arch=device.name, notes=model.notes)
    if isinstance(model, SpikingNetwork):
        _without_tokens(model, job)
        trace = run_spiking(
            model, job.configured(device), job.batch, train=job.phase == "train", seed=job.seed or 0, policy=job.policy
        )
        return replace(trace, model=model.name, arch=device.name, notes=(*model.notes, *trace.notes))
    context = Context(model, job.configured(device), job)
    trace = context.generate() if job.phase == "generate" else context.one_pass()
    return replace(trace, model=model.name, arch=device.name, notes=(*model.notes, *context.notes(trace)))


def _without_tokens(model: SpikingNetwork, job: Job) -> None:
    """Refuse what only makes sense for tokens."""
    given = next((name for name in _TOKENS_ONLY if getattr(job, name)), None)
    if given:
        raise InputError(
            f"{given}: {getattr(job, given)!r:.40}; accepted for {model.name}, which has no tokens: "
            f"batch, seed, policy, set and phase train"
        )


def estimated(model: Model | str, device: Device | str, batch: Batch, job: Job | None = None, draws: int = 0) -> Estimate:
    """One pass over `batch` in closed form, without a host; contexts, counts and device numbers may be arrays.

    With `draws` (and a seed) expert choice is drawn so many times, and latency and energy are arrays over the draws.
    """
    model = load_transformer(model) if isinstance(model, str) else model
    device = load_device(device) if isinstance(device, str) else device
    job = job or Job()
    context = Context(model, job.configured(device), job)
    return estimate(context.rows(batch, replace(context.routing, draws=draws)), context.device)


class Context:
    """A job with everything it names resolved: policy, parallel plan, routing, number formats."""

    def __init__(self, model: Model, device: Device, job: Job) -> None:
        self.model, self.device, self.job = model, device, job
        policy = job.policy or device.policy
        self.policy = read_policy(policy) if isinstance(policy, str) else policy
        self.rewritten = rewriting(policy, device)
        self.speculation: Speculation | None = getattr(self.policy, "speculation", None)
        self.kept = self.speculation.accepted if self.speculation else 1.0
        plan = job.parallel or plan_of(policy) or device.parallel
        self.plan = plan if isinstance(plan, Plan) else read_plan(plan, device, model.experts)
        met = self.plan.dp if self.plan.ep > 1 else 1
        draws = bool(model.experts) or (model.sparse and isinstance(self.policy, Rewriting))
        self.routing = replace(read_routing(job.routing, job.seed if draws else None), replicas=met)
        self.precision = chosen_precision(model, job, device)
        self.host = Host() if job.host is None else load_host(job.host)
        if job.phase == "train":
            raise InputError(
                f"phase: train; accepted for {model.name}: prefill, decode, generate, mixed (training is for networks of events)"
            )
        if not model.causal and job.phase != "prefill":
            raise InputError(f"phase: {job.phase}; accepted for {model.name}, which is an encoder: prefill")

    def notes(self, trace: Trace) -> list[str]:
        """What a reader should know of this run: contexts beyond the network's own, more power than the board may draw."""
        job, longest, found = self.job, self.model.max_context, []
        context = max(
            (sum(one[:2]) for one in job.sequences), default=job.prompt + (job.output if job.phase == "generate" else 0)
        )
        if longest is not None and context > longest:
            found.append(f"context of {context} tokens, but {self.model.name} was made for {longest}")
        found += [f"{array}: quirks: {spec.quirks}: {_CHARGED[spec.quirks]}" for array, spec in self.device.arrays.items()]
        limit = self.device.power_limit
        if limit is not None and trace.latency_s and trace.energy_j > float(limit) * self.device.count * trace.latency_s:
            watts = trace.energy_j / trace.latency_s / self.device.count
            found.append(
                f"mean power of {watts:.0f} W per device is above its limit of {float(limit):.0f} W: real clocks would drop"
            )
        return found

    def one_pass(self) -> Trace:
        """The job's phase as a single pass."""
        job = self.job
        if job.phase == "mixed":
            if self.plan.dp * self.plan.microbatches > 1:
                raise InputError(
                    "parallel: dp and microbatches divide a batch of equal sequences; accepted: tp, pp, ep for phase mixed"
                )
            batch = mixed(job.sequences)
            return replace(self._simulated(batch, "mixed"), tokens=float(tokens(batch)))
        if job.phase == "prefill":
            trace = self._simulated(prefill(self._part(), job.prompt), "prefill")
            return replace(trace, tokens=float(job.batch * job.prompt), marks={"ttft_s": trace.latency_s})
        trace = self._simulated(self._next(job.prompt), "decode")
        return replace(trace, tokens=job.batch * self.kept, marks={"tpot_s": trace.latency_s / self.kept})

    def generate(self) -> Trace:
        """Prefill, then all decode steps."""
        job = self.job
        self._check_last_step()
        first = self._simulated(prefill(self._part(), job.prompt), "prefill")
        steps = math.ceil((job.output - 1) / self.kept)
        trace, marks = first, {"ttft_s": first.latency_s}
        if steps:
            later = self._steps(job.prompt + np.rint(np.arange(steps) * self.kept).astype(np.int64))
            trace, marks = first.then(later), marks | {"tpot_s": later.latency_s / steps / self.kept}
        return replace(trace, tokens=float(job.batch * job.output), marks=marks)

    def rows(self, batch: Batch, routing: Routing | None = None) -> list[Row]:
        """The rows of one pass over `batch`, of one data-parallel replica."""
        return self.placed(self.lowered(batch, routing or self.routing), self.policy)

    def placed(self, ops: list[Op], policy: Policy) -> list[Row]:
        """`ops` on one representative device, rewritten as the job's policy does, where `policy` sends them."""
        return place(self.rewritten(parallelize(ops, self.plan, self.device)), self.device, policy)

    def lowered(self, batch: Batch, routing: Routing) -> list[Op]:
        """The ops of one pass over `batch`; those of a released simulator where the device is charged like it."""
        ops = lower(self.model, batch, self.precision, routing, self.job.mla)
        charged = [array for array in self.device.arrays.values() if array.quirks != "none"]
        return as_published(ops, charged[0]) if charged else ops

    def _next(self, context: Array) -> Batch:
        """A decode step: a token for every sequence, or the drafts that a speculating policy checks."""
        (step,) = decode(self._part(), context)
        return (replace(step, new=self.speculation.draft + 1),) if self.speculation else (step,)

    def _part(self) -> int:
        """Sequences of one microbatch of one replica."""
        parts = self.plan.dp * self.plan.microbatches
        if self.job.batch % parts:
            raise InputError(
                f"batch: {self.job.batch}; accepted: a multiple of dp x microbatches = {parts}, or another --parallel"
            )
        return self.job.batch // parts

    def _simulated(self, batch: Batch, phase: str, routing: Routing | None = None) -> Trace:
        rows = self.rows(batch, routing)
        trace = simulate(rows, self.device)
        trace = delayed(trace, float(self._hosted(rows, batch, trace.latency_s)), self.device)
        return replace(trace, rows=tuple(replace(row, phase=phase) for row in trace.rows), held=held(rows, self.device))

    def _hosted(self, rows: Sequence[Row], batch: Batch, busy: Array) -> Array:
        """Seconds that the host adds to a pass that takes the device `busy` seconds."""
        prompts = any(bool(np.any(np.asarray(group.new) > 1)) for group in batch)
        return self.host.seconds(busy, launches(row.op for row in rows), sequences(batch), prompts) - busy

    def _check_last_step(self) -> None:
        """Refuse at once what would run out of memory on the way."""
        check_capacity(self.rows(self._next(self.job.prompt + self.job.output - 1)), self.device)

    def _steps(self, contexts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Trace:
        steps = len(contexts)
        routing = self.routing if self.routing.seed is None else replace(self.routing, draw=1, draws=steps)
        batch = self._next(contexts.astype(float))
        rows = self.rows(batch, routing)
        whole = estimate(rows, self.device)
        if whole.contended:
            return self._step_by_step(contexts.tolist())
        trace = summed(whole.tasks, whole.starts, whole.ends, steps, self.device)
        waits = np.broadcast_to(self._hosted(rows, batch, whole.latency_s), (steps,))
        trace = delayed(trace, float(np.sum(waits)), self.device, steps)
        return replace(trace, rows=tuple(replace(row, phase="decode") for row in trace.rows), held=held(rows, self.device))

    def _step_by_step(self, contexts: Sequence[int]) -> Trace:
        """Every step by events, its rows after those of the step before."""
        rows, now = [], 0.0
        for index, context in enumerate(contexts):
            step = self._simulated(self._next(context), "decode", replace(self.routing, draw=index + 1))
            rows += [row.shifted(now) for row in step.rows]
            now += step.latency_s
        return Trace(rows=tuple(rows), latency_s=now, held=step.held)


def chosen_precision(model: Model, job: Job, device: Device) -> Precision:
    """The model's own formats, or those of a device that compresses, changed by what the job or else the device's file names.

    New weights alone are weight-only: activations stay what flows between layers.
    """
    precision = compressed(device.compression) if device.compression else model.precision
    weights, activations, kv = (getattr(job, name) or device.formats.get(name) for name in ("weights", "activations", "kv"))
    for name in (weights, job.head, activations, kv):
        if name is not None:
            bits(name)
    if weights == "fp32":  # nobody quantises to it: the whole network runs in 32 bit
        precision = replace(precision.with_weights("fp32"), head="fp32", activations="fp32", stream="fp32", kv="fp32")
    elif weights is not None:
        precision = replace(precision.with_weights(weights), activations=precision.stream)
    if job.head is not None:
        precision = replace(precision, head=job.head)
    if activations is not None:
        precision = replace(precision, activations=activations, everywhere=True)
    return replace(precision, kv=kv) if kv is not None else precision


def compressed(by: Compression) -> Precision:
    """Formats and sparsity of any network on a machine whose flow compresses it."""
    attention = tuple(sorted((float(length), float(part)) for length, part in by.attention.items()))
    kept = Sparsity(float(by.query_key), float(by.value), float(by.out), float(by.feed_forward), attention)
    flowing = Precision(activations=by.activations, stream=by.activations, kv=by.kv, everywhere=True)
    return replace(flowing.with_weights(by.weights), head=by.weights, sparsity=kept)
