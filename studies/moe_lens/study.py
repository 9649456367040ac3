"""MoE-Lens (arXiv:2504.09345): its two-stage model in closed form, and the same passes by events.

Symbols of the paper: p prompt and g generated tokens, M tokens of KV cache that fit, delta the time in which all weights cross
the link. `args` of a run: kv (bytes of KV cache), kv_per_token, link (bytes/s), peak (op/s of the GPU), tokens (of a pass), and
for MoE-Lightning `cpu` (bytes in CPU memory that its plan uses) and `kept` (bytes of weights on the GPU).
"""

from __future__ import annotations

from functools import cache

from hwsim.catalogue import load_device, load_model
from hwsim.claim import Run
from hwsim.engine import simulate
from hwsim.job import Context, Job
from hwsim.lowering.batch import Batch, Sequences, decode, prefill
from hwsim.lowering.model import Attention, MixtureOfExperts
from hwsim.trace import Trace

MICROBATCH = 16_000  # tokens of prompts that the GPU's memory has room for; larger ones take no less time a token
LOADS = [(98, 32), (98, 64), (98, 128), (98, 256), (926, 128)]
CACHES = [70e9, 210e9]


def saturating_tokens(run: Run) -> float:
    """Tokens in a pass whose arithmetic takes as long as the experts' way over the link (equation 2)."""
    moe = _moe(run)
    return float(run.args["peak"]) / float(run.args["link"]) * moe.experts / moe.top_k


def saturating_cache(run: Run) -> float:
    """Bytes of KV cache of that many sequences of `prompt` tokens."""
    return saturating_tokens(run) * run.prompt * float(run.args["kv_per_token"])


def memory_efficiency(run: Run) -> float:
    """Tokens of a pass for each token of KV cache, PME (equation 3)."""
    p, g = run.prompt, run.output
    return 2.0 * (p + g) / ((2.0 * p + g) * g)


def capacity_gain(run: Run) -> float:
    """How much more KV cache prompts that overlap with decoding are worth (equation 7)."""
    return (run.prompt + run.output) / (run.prompt + run.output / 2)


def delta_s(run: Run) -> float:
    """Seconds of all weights over the link, by events: what the link is busy with in a pass."""
    trace = _simulated(run.model, str(run.arch), _batch(1.0, run.prompt, run.output), "hybrid.moe_lens")
    return sum(row.seconds for row in trace.rows if row.kind == "paging")


def delta_beside_attention_s(run: Run) -> float:
    """The same in a pass with all the decode attention that the KV cache allows."""
    trace = _pass(run)
    return sum(row.seconds for row in trace.rows if row.kind == "paging")


def capacity_bound(run: Run) -> float:
    """Prompt and generated tokens/s that the KV cache allows, no bound by the GPU (equation 4)."""
    return memory_efficiency(run) * float(run.args["kv"]) / float(run.args["kv_per_token"]) / delta_s(run)


def gpu_bound(run: Run) -> float:
    """Tokens/s of the GPU, by events: of a pass so large that nothing else matters."""
    many = _batch(run.args["tokens"] / (run.prompt + run.output), run.prompt, run.output)
    trace = _simulated(run.model, str(run.arch), many, "hybrid.moe_lens")
    return float(run.args["tokens"]) / trace.latency_s


def saturating_pass(run: Run) -> float:
    """Tokens of a pass that the GPU needs as long for as the weights need to cross the link."""
    return gpu_bound(run) * delta_s(run)


def gpu_busy(run: Run) -> float:
    """Part of a pass in which the GPU works."""
    return _busy(_pass(run))


def decode_busy(run: Run) -> float:
    """The same for MoE-Lightning, which decodes a batch that fits its plan of CPU memory."""
    return _busy(_decoding(run))


def link_busy_in_prefill(run: Run) -> float:
    """Part of MoE-Lightning's prefill, all prompts in one pass, in which the link works."""
    return delta_s(run) / _prefilling(run)


def memory_bandwidth(run: Run) -> float:
    """Bytes/s of CPU memory for weights and KV cache together (equation 5)."""
    return float(run.args["link"]) * (1.0 + float(run.args["kv_over_weights"]))


def stage_transfer(run: Run) -> float:
    """Bytes of queries, keys, values and outputs of a stage, in 16 bit (section 6.4)."""
    model = load_model(run.model)
    attention = model.layers[0][0].attention
    assert isinstance(attention, Attention)
    group = attention.heads / attention.kv_heads
    return 2.0 * float(run.args["tokens"]) * model.hidden * (1.0 + 2.0 / group)


def agreement(run: Run) -> float:
    """One less the mean difference of passes by events and the closed form, over five loads and two KV caches."""
    found = [run.model_copy(update={"prompt": p, "output": g, "args": {**run.args, "kv": kv}}) for p, g in LOADS for kv in CACHES]
    limit = gpu_bound(run)
    return 1.0 - sum(abs(rate(one) / min(capacity_bound(one), limit) - 1.0) for one in found) / len(found)


def rate(run: Run) -> float:
    """Prompt and generated tokens/s of steady passes, by events."""
    sequences = _admitted(run)
    return sequences * (run.prompt + run.output) / _pass(run).latency_s


def generation(run: Run) -> float:
    """Generated tokens/s of MoE-Lens, by events."""
    return rate(run) * run.output / (run.prompt + run.output)


def generation_of_lightning(run: Run) -> float:
    """Generated tokens/s of MoE-Lightning on the same machine: one batch, prompts first, then `output` steps, by events."""
    many = _sequences(run)
    return many * run.output / (_prefilling(run) + run.output * _decoding(run).latency_s)


def gain(run: Run) -> float:
    """MoE-Lens over MoE-Lightning."""
    return generation(run) / generation_of_lightning(run)


def mean_gain(run: Run) -> float:
    """Mean gain over `args.loads` (prompt, output, bytes of the baseline's plan) and two KV caches."""
    found = [
        gain(run.model_copy(update={"prompt": p, "output": g, "args": {**run.args, "cpu": cpu, "kv": kv}}))
        for p, g, cpu in run.args["loads"]
        for kv in CACHES
    ]
    return sum(found) / len(found)


def model_bytes(run: Run) -> float:
    """Weights in 16 bit."""
    return 2.0 * load_model(run.model).parameters


def _moe(run: Run) -> MixtureOfExperts:
    found = load_model(run.model).layers[0][0].feed_forward
    assert isinstance(found, MixtureOfExperts)
    return found


def _admitted(run: Run) -> float:
    """Sequences that start with every pass: those that live for g + 1 passes and grow by a token each fill the KV cache."""
    p, g = run.prompt, run.output
    return float(run.args["kv"]) / _kv_bytes(run) / sum(p + j for j in range(g + 1))


def _kv_bytes(run: Run) -> float:
    return 2.0 * load_model(run.model).kv_elements_per_token()


def _sequences(run: Run) -> float:
    """What a plan of MoE-Lightning has room for in CPU memory besides its weights."""
    room = float(run.args["cpu"]) - (model_bytes(run) - float(run.args.get("kept", 0.0)))
    return room / _kv_bytes(run) / (run.prompt + run.output)


def _batch(sequences: float, prompt: int, output: int) -> Batch:
    """A steady pass: so many new prompts, and as many sequences at each of `output` decode steps."""
    return (Sequences(sequences, prompt, 0), Sequences(sequences * output, 1, prompt + output / 2))


def _pass(run: Run) -> Trace:
    return _simulated(run.model, str(run.arch), _batch(_admitted(run), run.prompt, run.output), "hybrid.moe_lens")


def _prefilling(run: Run) -> float:
    """Seconds of all prompts in one pass: weights once, the GPU one microbatch after another."""
    parts = _sequences(run) * run.prompt / MICROBATCH
    trace = _simulated(run.model, str(run.arch), prefill(MICROBATCH / run.prompt, run.prompt), "hybrid.moe_lightning")
    return max(delta_s(run), _busy(trace) * trace.latency_s * parts)


def _decoding(run: Run) -> Trace:
    steps = decode(_sequences(run), run.prompt + run.output / 2)
    return _simulated(run.model, str(run.arch), steps, "hybrid.moe_lightning")


def _busy(trace: Trace) -> float:
    return sum(row.seconds for row in trace.rows if row.unit == "tensor") / trace.latency_s


@cache
def _simulated(model: str, arch: str, batch: Batch, policy: str) -> Trace:
    """One pass by events."""
    context = Context(load_model(model), load_device(arch), Job(policy=policy))
    return simulate(context.rows(batch), context.device)
