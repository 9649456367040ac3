"""Claim: what somebody published or measured, with unit, configuration and provenance, and the run that should give it.

A claims file is a list of claims, or a mapping {runs: {name: run}, claims: [...]}. A run is data; `measure` names what is
compared: a field of the trace or of the model, or a function in the study's study.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Provenance = Literal["text", "table", "code", "secondary", "digitised", "derived", "memory"]

# How far a simulated value may be from the published one: follows from how the value was had, not from the wish.
TOLERANCE: Mapping[str, float] = {
    "text": 0.10, "table": 0.10, "code": 0.10, "derived": 0.10, "secondary": 0.15, "digitised": 0.15, "memory": 0.25,
}  # fmt: skip


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Run(_Data):
    """What to simulate: model, device and job as `hwsim run` takes them, plus `args` for a measure of study.py."""

    model: str
    arch: str | None = None
    phase: str = "generate"
    batch: int = 1
    prompt: int = 1024
    output: int = 128
    weights: str | None = None
    head: str | None = None
    activations: str | None = None
    kv: str | None = None
    routing: str = "uniform"
    seed: int | None = None
    stack: str | None = None
    host: str | None = None
    quirks: Literal["none", "as-published"] | None = None
    policy: str | None = None
    parallel: str | None = None
    mla: Literal["auto", "absorbed", "expanded"] = "auto"
    set: Mapping[str, str] = Field(default_factory=dict)
    args: Mapping[str, Any] = Field(default_factory=dict)


class Source(_Data):
    """Paper, its identifier and where in it."""

    paper: str
    id: str = ""
    where: str = ""


Number = Annotated[float, Field(allow_inf_nan=False)]


class Claim(_Data):
    """One published row. `role`: inputs and rows used for a fit are never counted as reproduced."""

    id: str
    system: str
    claim: str
    metric: str
    value: Number | tuple[Number, ...]
    unit: str
    baseline: str = ""
    workload: str = ""
    config: Mapping[str, Any] = Field(default_factory=dict)
    source: Source
    provenance: Provenance
    note: str = ""
    run: str | Run | None = None
    baseline_run: str | Run | None = None
    measure: str | None = None
    role: Literal["claim", "fitted", "input"] = "claim"
    status: Literal["reproduced", "missed", "not-modelled"] | None = None
    reason: str = ""
    tolerance: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.tolerance is not None and self.tolerance > TOLERANCE[self.provenance]:
            raise ValueError(
                f"tolerance {self.tolerance} is looser than {TOLERANCE[self.provenance]} for provenance {self.provenance}"
            )
        if self.status in ("missed", "not-modelled") and not self.reason:
            raise ValueError(f"status {self.status} needs a reason")
        if (self.run is None) != (self.measure is None):
            raise ValueError("run and measure need each other")
        if self.run is None and self.status in ("reproduced", "missed"):
            raise ValueError(f"status {self.status} needs a run")
        return self

    @property
    def allowed(self) -> float:
        """Relative error up to which the claim counts as reproduced; orderings (unit `bool`) must hold exactly."""
        return 0.0 if self.unit == "bool" else self.tolerance or TOLERANCE[self.provenance]


class ClaimsFile(_Data):
    """Claims and the runs they share."""

    runs: Mapping[str, Run] = Field(default_factory=dict)
    claims: Sequence[Claim]

    @model_validator(mode="after")
    def _check(self) -> Self:
        seen: set[str] = set()
        for claim in self.claims:
            if claim.id in seen:
                raise ValueError(f"claim id {claim.id!r} appears twice")
            seen.add(claim.id)
            for run in (claim.run, claim.baseline_run):
                if isinstance(run, str) and run not in self.runs:
                    raise ValueError(f"claim {claim.id}: no run named {run!r} under `runs`")
        return self
