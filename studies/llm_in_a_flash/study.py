"""Measures of LLM in a flash (arXiv:2312.11514): the columns of its tables, seconds and bytes per token, and shares of memory.

A run with `args: {draft, drafter, accepted}` is a speculative one: the network `drafter`, which stays in memory, makes `draft`
tokens, a pass checks them and makes one more, and `accepted` of them are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from hwsim.activity import Activity
from hwsim.catalogue import load_device, load_model
from hwsim.claim import Run
from hwsim.job import Context, Job
from hwsim.job import run as simulated
from hwsim.lowering.batch import decode
from hwsim.lowering.model import FeedForward
from hwsim.op import Load
from hwsim.placement.capacity import footprint
from hwsim.placement.rows import Row
from hwsim.trace import Trace, TraceRow

READ, MANAGE, PREDICT = "flash", "cache", "predictor"


def io_s(run: Run) -> float:
    """Seconds of reads from the drive."""
    return _seconds(run, lambda row: row.kind == READ)


def management_s(run: Run) -> float:
    """Seconds of copies in memory."""
    return _seconds(run, lambda row: row.kind == MANAGE)


def io_and_management_s(run: Run) -> float:
    """Both."""
    return io_s(run) + management_s(run)


def compute_s(run: Run) -> float:
    """Seconds of all else, of drafting too."""
    return _seconds(run, _computes) + _drafting(run) / _tokens(run)


def total_s(run: Run) -> float:
    """Seconds of a token: nothing overlaps."""
    return (_trace(run).latency_s + _drafting(run)) / _tokens(run)


def tokens_per_s_of(run: Run) -> float:
    """Tokens per second."""
    return 1.0 / total_s(run)


def reads_per_s(run: Run) -> float:
    """Tokens per second if there were only reads."""
    return 1.0 / io_s(run)


def range_with_speedup(run: Run) -> list[float]:
    """`args.range`, widened as little as it takes to hold the speed-up over `args.naive`."""
    naive = run.model_copy(update={"policy": run.args["naive"]})
    ratio = total_s(naive) / total_s(run)
    low, high = run.args["range"]
    return [min(low, ratio), max(high, ratio)]


def flash_bytes(run: Run) -> float:
    """Bytes read from the drive."""
    return sum(row.bytes["flash"] for row in _trace(run).rows if row.kind == READ) / _tokens(run)


def flash_rate(run: Run) -> float:
    """Bytes/s from the drive."""
    return flash_bytes(run) / io_s(run)


def management_rate(run: Run) -> float:
    """New bytes for each second of memory management."""
    return flash_bytes(run) / management_s(run)


def compute_rate(run: Run) -> float:
    """Bytes of weights for each second of compute."""
    return sum(row.operands.get("weights", 0.0) for row in _trace(run).rows if _computes(row)) / compute_s(run)


def chunk_bytes(run: Run) -> float:
    """Bytes of a request."""
    return max(float(row.op.chunk) for row in _rows(run) if isinstance(row.op, Load))


def predictor_of_time(run: Run) -> float:
    """Part of a token's time that predictors take."""
    return _seconds(run, lambda row: row.kind == PREDICT) / total_s(run)


def predictor_of_weights(run: Run) -> float:
    """Weights of the predictors over those of the network without its embedding."""
    model = load_model(run.model)
    return _held(run, PREDICT) / (_model_bytes(run) * (1.0 - model.vocab * model.hidden / model.parameters))


def weights_in_dram(run: Run) -> float:
    """Bytes of weights that stay in memory."""
    return _in_memory(run)["weights"]


def dram_bytes(run: Run) -> float:
    """Bytes of everything in memory."""
    return sum(_in_memory(run).values())


def model_over_dram(run: Run) -> float:
    """How much larger the network is than what of it stays in memory."""
    return _model_bytes(run) / weights_in_dram(run)


def share_embeddings(run: Run) -> float:
    """Embedding, positions and LM head, of the network."""
    return (_held(run, "embedding") + _held(run, "head")) / _model_bytes(run)


def share_attention(run: Run) -> float:
    """Projections of the attention, of the network."""
    return (_held(run, "qkv") + _held(run, "out")) / _model_bytes(run)


def share_predictor(run: Run) -> float:
    """Predictors, of the network without them."""
    return _held(run, PREDICT) / _model_bytes(run)


def share_ffn(run: Run) -> float:
    """Feed-forward networks, of the network."""
    model = load_model(run.model)
    inner = sum(n * layer.feed_forward.parameters(model.hidden) for layer, n in model.layers)
    return inner / model.parameters


def cached_of_ffn(run: Run) -> float:
    """Neurons in memory at the end of a token, of all neurons."""
    activity, k = _activity(run), _window(run)
    return float(activity.touched(k))


def cached_of_model(run: Run) -> float:
    """The neuron cache, of the network."""
    return _held(run, "ffn") / _model_bytes(run)


def share_resident(run: Run) -> float:
    """All weights in memory, of the network."""
    return weights_in_dram(run) / _model_bytes(run)


def new_of_ffn(run: Run) -> float:
    """Neurons read for a token, of all neurons."""
    return float(_activity(run).missing(_window(run)))


def used_of_ffn(run: Run) -> float:
    """Neurons that the predictor finds active, of all neurons."""
    return float(_activity(run).used)


def kv_of_model(run: Run) -> float:
    """The KV cache, over the network."""
    return _in_memory(run)["kv"] / _model_bytes(run)


def _computes(row: TraceRow) -> bool:
    return row.kind not in (READ, MANAGE)


def _seconds(run: Run, wanted: Callable[[TraceRow], bool]) -> float:
    return sum(row.seconds for row in _trace(run).rows if wanted(row)) / _tokens(run)


def _drafting(run: Run) -> float:
    """Seconds of the draft tokens of a pass."""
    if "draft" not in run.args:
        return 0.0
    one = Run(model=run.args["drafter"], arch=run.arch, phase="decode", prompt=run.prompt, policy="fastest")
    return float(run.args["draft"]) * _trace(one).latency_s


def _tokens(run: Run) -> float:
    return float(run.args.get("accepted", 1.0))


def _job(run: Run) -> Job:
    shared = {name: getattr(run, name) for name in ("weights", "activations", "kv", "policy", "set")}
    return Job(phase="decode", prompt=run.prompt, **shared)


def _trace(run: Run) -> Trace:
    return _simulated(run.model_dump_json())


@cache
def _simulated(text: str) -> Trace:
    run = Run.model_validate_json(text)
    return simulated(run.model, str(run.arch), _job(run))


def _rows(run: Run) -> list[Row]:
    """The rows of a pass, with the ops behind them."""
    job = _job(run)
    context = Context(load_model(run.model), job.configured(load_device(str(run.arch))), job)
    return context.rows(decode(1, run.prompt))


def _held(run: Run, kind: str) -> float:
    """Bytes of weights that ops of a kind keep in memory."""
    kept = [row.op for row in _rows(run) if row.op.kind == kind and not isinstance(row.op, Load)]
    return float(sum(op.resident.get("weights", 0.0) * op.stays * op.repeat for op in kept))


def _in_memory(run: Run) -> dict[str, float]:
    """Bytes in memory, by operand."""
    device = _job(run).configured(load_device(str(run.arch)))
    found = footprint(_rows(run), device)
    memory = next(iter(device.units.values())).memory
    return {operand: float(size) for operand, size in found[0, device.stored_in(memory)].items()}


def _model_bytes(run: Run) -> float:
    """Bytes of the network in its own format."""
    bytes_of = {"fp32": 4.0, "int4": 0.5}
    return load_model(run.model).parameters * bytes_of.get(run.weights or "", 2.0)


def _activity(run: Run) -> Activity:
    return next(row.op.neurons for row in _rows(run) if row.op.neurons)


def _window(run: Run) -> float:
    """Tokens whose neurons a policy keeps besides those of the current one."""
    assert isinstance(load_model(run.model).layers[0][0].feed_forward, FeedForward)
    return float((run.policy or "").partition("k=")[2].partition(",")[0] or 0)
