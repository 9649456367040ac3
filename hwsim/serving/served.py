"""What a service did, in the numbers that its owner watches.

- TTFT, time to first token: arrival to first token. TPOT, time per output token: (last - first token) / (output - 1).
- TBT, time between tokens: every single gap. E2E: arrival to last token. Queueing: arrival to the first step a request is in.
- rates over the time from the first arrival to the last token; utilisation: part of it in which the engines worked.
- goodput: requests per second that met the objective; energy per token: all joules, static power included, over tokens generated.

Percentiles are those of NumPy's "linear" method; TBT's are weighted by how many sequences had a gap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.job import Context
from hwsim.serving.cache import Room
from hwsim.serving.cluster import Cluster, Fates
from hwsim.serving.log import COLUMNS
from hwsim.serving.objective import Objective
from hwsim.serving.requests import Requests
from hwsim.serving.steps import Floats
from hwsim.trace import STATIC

if TYPE_CHECKING:
    import pandas as pd

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, eq=False)
class Served:
    """Requests and their fates, what the engines did over time, joules by component."""

    model: str
    arch: str
    requests: Requests
    fates: Fates
    steps: pd.DataFrame
    gaps: tuple[Floats, Floats]
    joules: Mapping[str, float]
    room: Room
    instances: int
    notes: tuple[str, ...] = ()

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per request: times in seconds, NaN where it was rejected."""
        import pandas as pd

        fates, asked = self.fates, self.requests
        reasons = [fates.rejected.get(index, "") for index in range(len(asked))]
        return pd.DataFrame({
            "request": np.arange(len(asked)), "arrival_s": fates.arrival_s, "prompt_tokens": asked.prompt,
            "output_tokens": asked.output, "cached_tokens": asked.cached, "queue_s": fates.started_s - fates.arrival_s,
            "ttft_s": fates.first_s - fates.arrival_s, "tpot_s": self._per_token, "e2e_s": fates.finished_s - fates.arrival_s,
            "finished_s": fates.finished_s, "preemptions": fates.preemptions, "replica": fates.replica,
            "status": np.where(np.isnan(fates.finished_s), "rejected", "completed"), "reason": reasons,
        })  # fmt: skip

    @property
    def _per_token(self) -> Floats:
        """Seconds per output token; NaN for a single one."""
        after_first = np.where(self.requests.output > 1, self.requests.output - 1.0, np.nan)
        return np.asarray((self.fates.finished_s - self.fates.first_s) / after_first)

    @property
    def completed(self) -> int:
        """Requests that got all their tokens."""
        return int(np.count_nonzero(~np.isnan(self.fates.finished_s)))

    @property
    def makespan_s(self) -> float:
        """Seconds from the first arrival to the last token; 0 when nothing was completed."""
        return self.fates.makespan_s

    @property
    def tokens(self) -> int:
        """Tokens generated for completed requests."""
        return int(self.requests.output[~np.isnan(self.fates.finished_s)].sum())

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens per second."""
        return self._per_second(self.tokens)

    @property
    def requests_per_s(self) -> float:
        """Completed requests per second."""
        return self._per_second(self.completed)

    def _per_second(self, count: float) -> float:
        return count / self.makespan_s if self.makespan_s else 0.0

    @property
    def energy_j(self) -> float:
        """All joules, static ones included."""
        return float(sum(self.joules.values()))

    @property
    def utilisation(self) -> float:
        """Part of the time in which the engines worked, their mean."""
        busy = float((self.steps["end_s"] - self.steps["start_s"]).sum())
        return busy / (self.makespan_s * self.instances) if self.makespan_s else 0.0

    def met(self, objective: Objective) -> int:
        """Completed requests that met the objective."""
        return int(np.count_nonzero(objective.met(self.table)))

    def goodput(self, objective: Objective) -> float:
        """Requests per second that met the objective."""
        return self._per_second(self.met(objective))

    def summary(self, name: str) -> dict[str, float | None]:
        """Mean and percentiles of "ttft_s", "tpot_s", "e2e_s", "queue_s" or "tbt_s"; None where there is no such time."""
        if name == "tbt_s":
            return _summary(*self.gaps)
        values = self.table[name].dropna().to_numpy()
        return _summary(values, np.ones(len(values)))

    def to_dict(self, objective: Objective | None = None) -> dict[str, Any]:
        """The JSON document of `hwsim serve`."""
        reasons = Counter(self.fates.rejected.values()).most_common(5)
        per_token = self.energy_j / self.tokens if self.tokens and self.energy_j else None
        found = {
            "model": self.model, "arch": self.arch, "requests": len(self.requests), "completed": self.completed,
            "rejected": len(self.fates.rejected), "makespan_s": self.makespan_s,
            **{name: self.summary(name) for name in ("ttft_s", "tpot_s", "tbt_s", "e2e_s", "queue_s")},
            "tokens": self.tokens, "prompt_tokens": int(self.requests.prompt[~np.isnan(self.fates.finished_s)].sum()),
            "tokens_per_s": self.tokens_per_s, "requests_per_s": self.requests_per_s, "energy_j": self.energy_j,
            "energy_per_token_j": per_token, "joules": dict(self.joules),
            "utilisation": self.utilisation, "kv_blocks": self.room.blocks, "kv_block_tokens": self.room.size,
            "kv_peak": float(self.steps["blocks"].max() / self.room.blocks) if len(self.steps) else 0.0,
            "preemptions": int(self.fates.preemptions.sum()), "steps": int(self.steps["steps"].sum()),
            "reasons": [f"{count} request{'s' * (count > 1)}: {reason}" for reason, count in reasons], "notes": list(self.notes),
        }  # fmt: skip
        if objective is not None:
            found |= {"slo": str(objective), "slo_met": self.met(objective), "goodput": self.goodput(objective)}
        return found


def _summary(values: Floats, weights: Floats) -> dict[str, float | None]:
    names = [f"p{percent}" for percent in PERCENTILES]
    if not len(values):
        return dict.fromkeys(["mean", *names])
    found: dict[str, float | None] = {"mean": float(np.average(values, weights=weights))}
    return found | {name: _percentile(values, weights, percent) for name, percent in zip(names, PERCENTILES, strict=True)}


def _percentile(values: Floats, weights: Floats, percent: float) -> float:
    """As np.percentile of every value repeated `weights` times."""
    order = np.argsort(values, kind="stable")
    last = np.cumsum(weights[order])  # rank after each value
    place = percent / 100.0 * (last[-1] - 1.0)
    low, high = (values[order][np.searchsorted(last, rank, side="right")] for rank in (np.floor(place), np.ceil(place)))
    return float(low + (high - low) * (place - np.floor(place)))


def _notes(context: Context, asked: Requests) -> Iterator[str]:
    """What a reader should know: contexts beyond the network's own, pipelines that do not overlap."""
    longest = context.model.max_context
    over = int(np.count_nonzero(asked.prompt + asked.output > longest)) if longest else 0
    if over:
        yield f"{over} of the requests exceed the {longest} tokens that {context.model.name} was made for"
    if context.plan.pp > 1:
        yield "pipeline stages do one step after another; servers that keep several in flight get more out of them"


def measured(context: Context, instances: int, asked: Requests, fates: Fates, cluster: Cluster, room: Room) -> Served:
    """Gather what the replicas logged; static power flows in all of them from the first arrival to the last token."""
    import pandas as pd

    logs, device = [replica.log for replica in cluster.replicas], context.device
    columns = {name: np.concatenate([np.array(log.columns[name]) for log in logs]) for name in COLUMNS}
    columns["replica"] = np.repeat(np.arange(len(logs)), [len(log.columns["start_s"]) for log in logs])
    gaps = [log.between_tokens() for log in logs]
    joules = cluster.joules()
    if device.static_power:
        joules[STATIC] = float(device.static_power) * device.count * instances * fates.makespan_s
    return Served(
        context.model.name, device.name, asked, fates, pd.DataFrame(columns),
        (np.concatenate([one for one, _ in gaps]), np.concatenate([many for _, many in gaps])), joules, room, instances,
        (*context.model.notes, *asked.notes, *_notes(context, asked)),
    )  # fmt: skip
