"""Measures of the Duplex paper (arXiv:2409.01141) that are more than one run: stage mixes, sets of cases, EDAP, capacity.

Throughput follows section III: in a closed loop a stage is mixed (one prompt beside the decodes of all others) with probability
batch / output length, otherwise decoding only, at a context of prompt + half the output. Both stages are priced in closed form
over drawn expert choices; `throughput_by_events` simulates sampled stages instead. Where there are several nodes (Grok-1) they
share the prompt of a mixed stage here; one of them would prefill it while the other waits, up to a fifth longer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from hwsim.catalogue import load_device, load_transformer
from hwsim.claim import Run
from hwsim.cost import price
from hwsim.engine import Estimate
from hwsim.errors import CapacityError
from hwsim.job import Job, estimated
from hwsim.job import run as simulated
from hwsim.lowering.batch import Batch, Sequences, decode
from hwsim.op import Gemm
from hwsim.placement.parallel import read_plan
from hwsim.placement.policy import homes

SEED = 2409
DRAWS = {"decode": 128, "mixed": 16}  # thousands of tokens of a mixed stage scatter less
# figure 11 and 15: devices, then (prompt, output) lengths; every batch of 32, 64 and 128 (section VI)
CASES: dict[str, tuple[int, tuple[int, ...]]] = {
    "mixtral-8x7b": (4, (256, 1024, 4096)), "glam-143b": (8, (512, 1024, 2048)), "grok-1": (16, (256, 1024, 4096)),
}  # fmt: skip
BATCHES = (32, 64, 128)
COUNTED = ("qkv", "out", "ffn", "router", "experts", "attention.prefill", "attention.decode")  # what figure 15 adds up


def throughput(chosen: Run) -> float:
    """Tokens/s of one case."""
    return chosen.batch / _stage_mix(chosen)


def decode_stage(chosen: Run) -> float:
    """Seconds of a decoding-only stage: the median time between tokens."""
    return float(np.mean(_stages(_key(chosen))[0].latency_s))


def mixed_stage(chosen: Run) -> float:
    """Seconds of a mixed stage: the time to first token of a request that is admitted at once."""
    return float(np.mean(_stages(_key(chosen))[1].latency_s))


def energy_per_token(chosen: Run) -> float:
    """DRAM and compute joules of FC, attention and MoE per generated token, as in figure 15; links and vector work left out."""
    device = load_device(str(chosen.arch))
    spent = []
    for stage in _stages(_key(chosen)):
        parts = stage.joules(COUNTED)
        spent.append(float(np.mean(sum(value for part, value in parts.items() if part not in device.links))))
    share = _mixed_share(chosen)
    return ((1 - share) * spent[0] + share * spent[1]) / chosen.batch


def decode_ratio(chosen: Run) -> float:
    """Speed-up of a decoding-only stage at `batch` and a cache of `prompt` tokens."""
    at = chosen.model_copy(update={"output": 2})
    ours, theirs = (decode_stage(_system(at, which, chosen)) for which in ("system", "over"))
    return theirs / ours


def throughput_by_events(chosen: Run, stages: int = 40) -> float:
    """Tokens/s from simulated stages, every layer of each with its own draw of experts; the share of mixed ones stratified."""
    share, batches = _mixed_share(chosen), _batches(chosen)
    decoding, mixed = (
        np.mean([_simulated(chosen, batch, SEED + index) for index in range(stages // 2)]) for batch in batches
    )  # fmt: skip
    return float(chosen.batch / ((1 - share) * decoding + share * mixed))


def _simulated(chosen: Run, batch: Batch, seed: int) -> float:
    """Seconds of one stage by events."""
    sequences = [(int(g.new), int(g.past)) for g in batch for _ in range(int(g.count))]
    return simulated(
        str(chosen.model), str(chosen.arch), replace(_job(chosen), phase="mixed", sequences=sequences, seed=seed)
    ).latency_s


# ---- sets of cases -------------------------------------------------------------------------------------------------------------


def ratios(chosen: Run, measure: Callable[[Run], float] = throughput) -> list[float]:
    """measure(system) / measure(over) for every case of `args`: models, batches and lengths, by default those of figure 11."""
    return [measure(_system(case, "system", chosen)) / measure(_system(case, "over", chosen)) for case in _cases(chosen)]


def ratio_max(chosen: Run) -> float:
    """The largest throughput ratio."""
    return max(ratios(chosen))


def ratio_mean(chosen: Run) -> float:
    """The arithmetic mean of the throughput ratios."""
    return float(np.mean(ratios(chosen)))


def wins_most(chosen: Run) -> float:
    """1 when the ratio is above one in more than half of the cases."""
    return float(np.mean(np.array(ratios(chosen)) > 1) > 0.5)


def wins_all(chosen: Run) -> float:
    """1 when the ratio is above one in every case."""
    return float(min(ratios(chosen)) > 1)


def saving_max(chosen: Run) -> float:
    """The largest relative energy saving."""
    return 1 - min(ratios(chosen, energy_per_token))


def saving_mean(chosen: Run) -> float:
    """The mean relative energy saving."""
    return 1 - float(np.mean(ratios(chosen, energy_per_token)))


def best_of_all(chosen: Run) -> float:
    """1 when `system` has the highest throughput of all `against`, in every case."""
    return float(all(min(ratios(_with(chosen, over=other))) >= 1 for other in chosen.args["against"]))


def smaller_gain(chosen: Run) -> float:
    """1 when the mean gain of the first model is below those of all others."""
    gains = [ratio_mean(_with(chosen, models=[name])) for name in chosen.args["models"]]
    return float(gains[0] < min(gains[1:]))


def saving_trend(chosen: Run) -> float:
    """1 when savings fall with batch for Mixtral and Grok-1, less than half as much for GLaM, and grow with length for all."""
    saved = {
        name: 1 - np.array(ratios(_with(chosen, models=[name]), energy_per_token)).reshape(len(BATCHES), -1) for name in CASES
    }
    by_batch = {name: table.mean(axis=1) for name, table in saved.items()}
    falls = all(np.all(np.diff(by_batch[name]) < 0) for name in ("mixtral-8x7b", "grok-1"))
    stays = np.ptp(by_batch["glam-143b"]) < np.ptp(by_batch["mixtral-8x7b"]) / 2
    grows = all(np.all(np.diff(table.mean(axis=0)) > 0) for table in saved.values())
    return float(falls and stays and grows)


# ---- the paper's arithmetic ----------------------------------------------------------------------------------------------------


def edap(chosen: Run) -> list[float]:
    """Energy x delay x area of a weight-stationary GEMM on the PIM, over the worst of `against`, for each Op/B of `args`."""
    every = np.array([_edap(name, chosen.args["op_b"]) for name in chosen.args["against"]])
    found: list[float] = (_edap(str(chosen.arch), chosen.args["op_b"]) / every.max(axis=0)).tolist()
    return found


def edap_crossing(chosen: Run) -> list[float]:
    """The two neighbouring Op/B between which `arch` becomes better than the other."""
    ours, theirs = (_edap(name, chosen.args["op_b"]) for name in (str(chosen.arch), chosen.args["against"][0]))
    first = int(np.argmax(ours < theirs))
    return [float(chosen.args["op_b"][first - 1]), float(chosen.args["op_b"][first])]


def _edap(arch: str, op_b: list[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    device = load_device(arch)
    op = Gemm(
        name="gemm",
        kind="edap",
        m=np.array(op_b, dtype=float),
        n=4096.0,
        k=16384.0,
        weights="fp16",
        activations="fp16",
        stream="fp16",
    )
    cost = price(op, "pim", device, homes(device, "pim"))
    return np.asarray(cost.alone_s * sum(cost.joules.values()) * sum(device.units["pim"].area.values()))


def area(chosen: Run) -> float:
    """Square metres that the PIM adds to one stack, of the `parts` of `args` or all; over `of` where that is given."""
    parts = load_device(str(chosen.arch)).units["pim"].area
    added = sum(float(parts[name]) for name in chosen.args.get("parts", parts)) / chosen.args["stacks"]
    return added / float(chosen.args.get("of", 1.0))


def peak_per_stack(chosen: Run) -> float:
    """op/s of the PIM of one stack."""
    return float(load_device(str(chosen.arch)).units["pim"].peak["fp16"]) / float(chosen.args["stacks"])


def bandwidth_gain(chosen: Run) -> float:
    """What the organisation gives: eight banks of a bundle every tCCD_L against one bank every tCCD_S."""
    dram = load_device(str(chosen.arch)).memories["hbm"].organisation
    bundle = dram["banks"] / dram["bundles_per_rank"]
    return float(bundle * dram["t_ccd_s_ns"] / dram["t_ccd_l_ns"])


def op_b_range(chosen: Run) -> list[float]:
    """Lowest and highest Op/B of `kind` over the models and batches of `args`, weights or cache only, as section III counts."""
    found = []
    for name in chosen.args["models"]:
        for batch in chosen.args["batches"]:
            job = Job(phase="decode", batch=batch, prompt=chosen.prompt, routing="balanced", parallel="tp=1")
            stage = estimated(name, _unbounded(chosen.args["on"]), decode(batch, chosen.prompt), job)
            op = next(task.row.op for task in stage.tasks if task.row.op.kind == chosen.args["kind"])
            found.append(float(op.ops / max(op.bytes.get("weights", 0.0), op.bytes.get("kv", 0.0))))
    return [min(found), max(found)]


def utilisation(chosen: Run) -> float:
    """Highest compute utilisation of `kind` on the GPU over the models and batches of `args`: Op/B over the ridge point."""
    device = load_device(str(chosen.args["on"]))
    ridge = device.units["tensor"].peak["fp16"] / device.memories["hbm"].bandwidth
    return op_b_range(chosen)[1] / float(ridge)


def largest_batch(chosen: Run) -> float:
    """Requests that fit with prompt + output tokens reserved for each, by halving."""
    return float(_largest(lambda batch: _fits(chosen, batch)))


def _largest(fits: Callable[[int], bool]) -> int:
    low, high = 0, 4096
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _fits(chosen: Run, batch: int) -> bool:
    try:
        estimated(chosen.model, str(chosen.arch), decode(batch, chosen.prompt + chosen.output - 1), _job(chosen))
    except CapacityError:
        return False
    return True


def _unbounded(arch: str) -> Any:
    """The device with room for anything, for counting operations and bytes."""
    return load_device(arch).with_values({"memories.hbm.capacity": 1e15})


# ---- stages --------------------------------------------------------------------------------------------------------------------


def _stage_mix(chosen: Run) -> float:
    share = _mixed_share(chosen)
    return (1 - share) * decode_stage(chosen) + share * mixed_stage(chosen)


def _mixed_share(chosen: Run) -> float:
    return min(1.0, chosen.batch / chosen.output)


def _batches(chosen: Run) -> tuple[Batch, Batch]:
    """A decoding-only and a mixed stage, all replicas together."""
    context = chosen.prompt + chosen.output // 2
    return decode(chosen.batch, context), (Sequences(1, chosen.prompt, 0), Sequences(chosen.batch - 1, 1, context))


@lru_cache(maxsize=1024)
def _stages(key: str) -> tuple[Estimate, Estimate]:
    chosen = Run.model_validate_json(key)
    model, device = load_transformer(chosen.model), load_device(str(chosen.arch))
    replicas = read_plan(chosen.parallel or device.parallel, device, model.experts).dp
    decoding, mixed = (tuple(replace(group, count=group.count / replicas) for group in batch) for batch in _batches(chosen))
    job = replace(_job(chosen), seed=SEED)
    return (
        estimated(model, device, decoding, job, draws=DRAWS["decode"]),
        estimated(model, device, mixed, job, draws=DRAWS["mixed"]),
    )


def _key(chosen: Run) -> str:
    return chosen.model_copy(update={"args": {}}).model_dump_json()


def _job(chosen: Run) -> Job:
    return Job(policy=chosen.policy, parallel=chosen.parallel, set=chosen.set, weights="fp16", kv="fp16")


def _cases(chosen: Run) -> Iterator[Run]:
    """Every model, batch and length of `args`; a length is that of prompt and output, or a pair of them."""
    args = chosen.args
    for name in args.get("models", CASES):
        lengths = args.get("lengths", CASES[name][1] if name in CASES else ())
        for batch in args.get("batches", BATCHES):
            for length in lengths:
                prompt, output = length if isinstance(length, list) else (length, length)
                yield chosen.model_copy(update={"model": name, "batch": batch, "prompt": prompt, "output": output})


def _system(case: Run, which: str, chosen: Run) -> Run:
    """A case on one of the two systems compared: "duplex-pe" on as many devices as the model has, "2x NAME" on twice as many,
    "2x-hetero" that system. `dram` is the part of DRAM bandwidth that is reached, the same for all memories of both."""
    text = str(chosen.args[which])
    if not re.match(r"\d+x-", text):
        twice, name = text.startswith("2x "), text.removeprefix("2x ")
        count = CASES[case.model][0] if case.model in CASES else int(chosen.args.get("devices", 4))
        text = f"{count * (1 + twice)}x-{name}"
    dram = chosen.args.get("dram", 1.0)
    reached = {f"memories.{name}.efficiency": str(dram) for name in load_device(text).memories}
    return case.model_copy(update={"arch": text, "set": {**case.set, **reached}})


def _with(chosen: Run, **args: Any) -> Run:
    return chosen.model_copy(update={"args": {**chosen.args, **args}})
