"""Measures of FlightLLM (arXiv:2401.03868). Rates, watts and prices of baselines that were measured come with a run's `args`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from statistics import geometric_mean

import numpy as np

from hwsim.catalogue import load_device, load_transformer
from hwsim.claim import Run
from hwsim.cost.resources import matrix_unit, resources
from hwsim.device import Device
from hwsim.engine.tasks import tasks
from hwsim.job import Context, Job
from hwsim.job import run as simulated
from hwsim.lowering.batch import Batch, decode, prefill
from hwsim.op import Array, Gemm
from hwsim.trace import Trace

CASES = [(prompt, output) for prompt in (128, 512) for output in (512, 1024, 1536)]  # Figure 11
LONGEST = 2048  # tokens that instruction files exist for


@cache
def _traced(model: str, arch: str, host: str | None, prompt: int, output: int, batch: int = 1) -> Trace:
    """`output` tokens after the one that the prompt makes, as the artifact counts them."""
    return simulated(model, arch, Job(batch=batch, prompt=prompt, output=output + 1, host=host))


def _case(chosen: Run) -> Trace:
    return _traced(chosen.model, str(chosen.arch), chosen.host, chosen.prompt, chosen.output, chosen.batch)


def prefill_s(chosen: Run) -> float:
    """Seconds of the prompt."""
    return _case(chosen).marks["ttft_s"]


def decode_s(chosen: Run) -> float:
    """Seconds of all tokens after the prompt's own."""
    return _case(chosen).latency_s - prefill_s(chosen)


def decode_rate(chosen: Run) -> float:
    """Tokens over the seconds of their decode steps."""
    return chosen.batch * chosen.output / decode_s(chosen)


def speedup(chosen: Run) -> float:
    """Measured seconds of a baseline, prompt and tokens (`args.over`, in ms), over ours."""
    return float(sum(chosen.args["over"])) / 1e3 / _case(chosen).latency_s


def mean_speedup(chosen: Run) -> float:
    """Geometric mean of `speedup` over the cases of Figure 11; `args.over` holds a baseline's [prompt, tokens] for each."""
    return geometric_mean(speedup(_with(chosen, case, over)) for case, over in zip(CASES, chosen.args["over"], strict=True))


def mean_rate_ratio(chosen: Run) -> float:
    """Geometric mean of decode rates over the cases of Figure 11, over that of a baseline measured in each (`args.over`)."""
    rates = [decode_rate(_with(chosen, case, [])) for case in CASES]
    return geometric_mean(rates) / geometric_mean(chosen.args["over"])


def mean_rate(chosen: Run) -> float:
    """Geometric mean of tokens/s, prompts included, over the cases of Figure 11."""
    return geometric_mean(output / _case(_with(chosen, (prompt, output), [])).latency_s for prompt, output in CASES)


def _with(chosen: Run, case: tuple[int, int], over: Sequence[float]) -> Run:
    return chosen.model_copy(update={"prompt": case[0], "output": case[1], "args": {"over": over}})


def tokens_per_joule(chosen: Run) -> float:
    """Decoded tokens per joule of the board."""
    return decode_rate(chosen) / _watts(chosen)


def _watts(chosen: Run) -> float:
    trace = _case(chosen)
    return trace.energy_j / trace.latency_s


def energy_ratio(chosen: Run) -> float:
    """Tokens per joule over those of a baseline that was measured: `args` tokens_per_s and watts."""
    return tokens_per_joule(chosen) * chosen.args["watts"] / chosen.args["tokens_per_s"]


def mean_energy_ratio(chosen: Run) -> float:
    """As `energy_ratio`, with prompts, the geometric mean over the cases of Figure 11."""
    return mean_rate(chosen) / _watts(_with(chosen, CASES[0], [])) * chosen.args["watts"] / chosen.args["tokens_per_s"]


def cost_ratio(chosen: Run) -> float:
    """Decoded tokens/s per dollar over those of a baseline that was measured: `args` dollars, tokens_per_s and its own price."""
    args = chosen.args
    return decode_rate(chosen) / args["price"] * args["over_price"] / args["tokens_per_s"]


def rate_ratio(chosen: Run) -> float:
    """Geometric mean of decode rates over the cases, over a baseline's tokens/s (`args.tokens_per_s`)."""
    return geometric_mean(decode_rate(_with(chosen, case, [])) for case in CASES) / chosen.args["tokens_per_s"]


def bandwidth_used(chosen: Run) -> float:
    """Bytes of weights and cache that a decoded token has to read, over the peak bandwidth and its seconds."""
    device = load_device(str(chosen.arch))
    read = sum(size for _, size in _read(chosen, device))
    hbm = device.memories[matrix_memory(device)]
    return read * decode_rate(chosen) / float(hbm.bandwidth)


def matrix_memory(device: Device) -> str:
    """The memory that weights come from."""
    return next(unit.memory for unit in device.units.values() if "matmul" in unit.does)


def _read(chosen: Run, device: Device) -> list[tuple[str, float]]:
    rows = Context(load_transformer(chosen.model), device, Job()).rows(decode(1, chosen.prompt))
    return [(row.op.name, sum(row.op.bytes.get(kind, 0.0) for kind in ("weights", "kv")) * row.op.repeat) for row in rows]


def bandwidth_used_by_each(chosen: Run) -> list[float]:
    """`bandwidth_used` of each machine of `args.archs`."""
    return [bandwidth_used(chosen.model_copy(update={"arch": arch})) for arch in chosen.args["archs"]]


def bandwidth_mean(chosen: Run) -> float:
    """Mean of `bandwidth_used` over the machines of `args.archs`."""
    return float(np.mean(bandwidth_used_by_each(chosen)))


def linear_weight_bytes(chosen: Run) -> float:
    """Bytes of the weights of all products, LM head included, as the machine stores them."""
    rows = Context(load_transformer(chosen.model), load_device(str(chosen.arch)), Job()).rows(decode(1, 1))
    return sum(float(row.op.resident["weights"]) * row.op.repeat for row in rows if isinstance(row.op, Gemm))


def resource(chosen: Run) -> float:
    """Blocks of `args.kind` (dsp, uram, bram) that the cores take; the part of all that the chip has with `args.share`."""
    device = load_device(str(chosen.arch))
    taken = resources(device)[chosen.args["kind"]]
    whole = float(matrix_unit(device)[1].organisation[chosen.args["kind"]]) if chosen.args.get("share") else 1.0
    return taken / whole


def instructions(chosen: Run, batch: Batch, per_instruction: float = 1.0) -> Array:
    """Bytes of the instructions of one pass for one core; `per_instruction` channels are served by one load or store."""
    plain = load_device(str(chosen.arch))
    name, _ = matrix_unit(plain)
    device = plain.with_values({f"units.{name}.organisation.channels_per_instruction": per_instruction})
    rows = Context(load_transformer(chosen.model), device, Job()).rows(batch)
    return sum((task.scale * task.cost.traffic["ddr"] for task in tasks(rows, device)), 0.0)


def decode_instructions(chosen: Run) -> float:
    """Mean bytes over contexts of 1 to 2,048."""
    return float(np.mean(instructions(chosen, decode(1, np.arange(1.0, LONGEST + 1)))))


def prefill_instructions(chosen: Run) -> float:
    """Mean bytes over prompts of 1 to 2,048."""
    return float(np.mean(instructions(chosen, prefill(1, np.arange(1.0, LONGEST + 1)))))


def instructions_for_every_length(chosen: Run) -> float:
    """Bytes of decodes and prompts of 1 to 2,048 tokens, for each core its own."""
    cores = float(matrix_unit(load_device(str(chosen.arch)))[1].cores or 1)
    return cores * LONGEST * (decode_instructions(chosen) + prefill_instructions(chosen))


def instructions_for_buckets(chosen: Run) -> float:
    """Bytes of a file for each bucket of lengths, one for all cores; `args.merged` channels are served by one load or store."""
    size = matrix_unit(load_device(str(chosen.arch)))[1].organisation
    merged = float(chosen.args.get("merged", 1))
    lengths = {kind: np.arange(size[kind], LONGEST + 1.0, size[kind]) for kind in ("decode_bucket", "prefill_bucket")}
    decodes = instructions(chosen, decode(1, lengths["decode_bucket"]), merged)
    return float(np.sum(decodes) + np.sum(instructions(chosen, prefill(1, lengths["prefill_bucket"]), merged)))


def instruction_saving(chosen: Run) -> float:
    """`instructions_for_every_length` over `instructions_for_buckets`."""
    return instructions_for_every_length(chosen) / instructions_for_buckets(chosen)


def shrinking_batches(chosen: Run) -> list[float]:
    """Smallest and largest batch of `args.batches` up to which the decode rate over that of `args.over` falls all the way."""
    batches = chosen.args["batches"]
    ratios = []
    for batch in batches:
        rates = [
            decode_rate(chosen.model_copy(update={"arch": arch, "batch": batch})) for arch in (chosen.arch, chosen.args["over"])
        ]
        ratios.append(rates[0] / rates[1])
    falling = next((i for i in range(1, len(ratios)) if ratios[i] >= ratios[i - 1]), len(ratios))
    return [float(batches[0]), float(batches[falling - 1])]
