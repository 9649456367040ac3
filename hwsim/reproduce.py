"""`hwsim check`: published against simulated, one verdict per claim.

A verdict is recomputed every time. A check fails when a row marked reproduced no longer is, or a row marked missed now passes, so
that claims files stay true. Measures are fields of the trace (latency_s, energy_j, tokens_per_s, ttft_s, tpot_s), of the model
(parameters, active_parameters, kv_bytes_per_token, weight_bytes), or functions run -> SI number in Python files of a study that
ships with hwsim; a stranger's file never runs code. With a baseline_run the measure is the ratio to it
(for the speed-up of a time, the baseline's over ours).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from hwsim.catalogue import load_convnet, load_model, load_transformer, names, root
from hwsim.claim import Claim, ClaimsFile, Run
from hwsim.device import validated
from hwsim.errors import HwsimError, InputError
from hwsim.files import read_yaml
from hwsim.formats import nbytes
from hwsim.job import Job, run
from hwsim.quantity import in_unit

Measure = Callable[[Run], float | Sequence[float]]

_OF_MODEL: Mapping[str, Measure] = {
    "parameters": lambda r: float(load_model(r.model).parameters),
    "active_parameters": lambda r: float(load_transformer(r.model).active_parameters),
    "macs": lambda r: float(load_convnet(r.model).macs),
    "kv_bytes_per_token": lambda r: (
        load_transformer(r.model).kv_elements_per_token() * nbytes(r.kv or load_transformer(r.model).precision.kv)
    ),
    "weight_bytes": lambda r: load_model(r.model).parameters * nbytes(r.weights or load_transformer(r.model).precision.stream),
}
_UNITS = {"latency_s": "s", "ttft_s": "s", "tpot_s": "s", "energy_j": "J", "kv_bytes_per_token": "B", "weight_bytes": "B"}
_OF_TRACE = ("latency_s", "energy_j", "tokens_per_s", "ttft_s", "tpot_s")


@dataclass(frozen=True)
class Verdict:
    """One claim, checked. `error` is relative; `ok` is False when the file's own status is no longer true."""

    id: str
    system: str
    metric: str
    published: float | list[float]
    simulated: float | list[float] | None
    error: float | None
    tolerance: float
    provenance: str
    verdict: str
    role: str
    reason: str
    unit: str = ""
    ok: bool = True


@dataclass(frozen=True)
class Report:
    """All verdicts of one check."""

    verdicts: tuple[Verdict, ...]
    files: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """True when every claims file says what is so."""
        return all(verdict.ok for verdict in self.verdicts)

    @property
    def summary(self) -> dict[str, Any]:
        """Counts; fitted and input rows apart, and claims from memory apart from those that were read."""
        claims = [v for v in self.verdicts if v.role == "claim"]
        counts = {name: sum(v.verdict == name for v in claims) for name in ("reproduced", "missed", "not-modelled")}
        apart = {role: sum(v.role == role for v in self.verdicts) for role in ("fitted", "input")}
        memory = sum(v.provenance == "memory" and v.verdict == "reproduced" for v in claims)
        return (
            counts
            | apart
            | {"reproduced_from_memory": memory, "rows": len(self.verdicts), "failed": sum(not v.ok for v in self.verdicts)}
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of `hwsim check`."""
        return {"claims": [asdict(verdict) for verdict in self.verdicts], "summary": self.summary}


def check(*targets: str) -> Report:
    """Check studies by name, claims files by path, or (no target) every study. InputError for what cannot be read."""
    paths = [_path(target) for target in targets or names("studies")]
    return Report(tuple(verdict for path in paths for verdict in _check_file(path)), tuple(map(str, paths)))


def _path(target: str) -> Path:
    study = root("studies") / target / "claims.yaml"
    if target in names("studies") and study.is_file():
        return study
    path = Path(target)
    if path.suffix in {".yaml", ".yml"} or path.exists():
        return path
    raise InputError(f"check: no study is named {target[:80]!r}; accepted: {', '.join(names('studies'))}, or a claims file")


def _check_file(path: Path) -> list[Verdict]:
    data = read_yaml(path)
    data = {"claims": data} if isinstance(data, list) else data
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds a {type(data).__name__}; accepted: a list of claims, or a mapping with runs and claims")
    parsed: ClaimsFile = validated(ClaimsFile, data, str(path))
    measures = _Measures(parsed.runs, _study_code(path))
    return [_verdict(claim, measures, path) for claim in parsed.claims]


def _study_code(path: Path) -> tuple[ModuleType, ...]:
    """The Python files beside a claims file of the catalogue; never those beside a stranger's."""
    if root("studies").resolve() not in path.resolve().parents:
        return ()
    return tuple(_loaded(code) for code in sorted(path.resolve().parent.glob("*.py")))


@cache
def _loaded(code: Path) -> ModuleType:
    """A study's file as a module, once in a process: what it keeps is shared by all checks."""
    spec = importlib.util.spec_from_file_location(f"hwsim_study_{code.parent.name}_{code.stem}", code)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Measures:
    """Values of measures of runs; a run that several claims share is simulated once."""

    def __init__(self, runs: Mapping[str, Run], code: Sequence[ModuleType]) -> None:
        self.runs, self.code = runs, code
        self._traces: dict[str, Any] = {}

    def value(self, measure: str, which: str | Run, where: str) -> list[float]:
        chosen = self.runs[which] if isinstance(which, str) else which
        found = self._function(measure, where)(chosen)
        return [float(x) for x in found] if isinstance(found, Sequence) else [float(found)]

    def _function(self, measure: str, where: str) -> Measure:
        if measure in _OF_MODEL:
            return _OF_MODEL[measure]
        if measure in _OF_TRACE:
            return lambda chosen: self._of_trace(measure, chosen, where)
        every = (getattr(module, measure, None) for module in self.code if not measure.startswith("_"))
        found = next(filter(None, every), None)
        if found is None:
            raise InputError(f"{where}: measure {measure[:60]!r}; accepted: {', '.join((*_OF_MODEL, *_OF_TRACE))}")
        return found  # type: ignore[no-any-return]

    def _of_trace(self, measure: str, chosen: Run, where: str) -> float:
        if chosen.arch is None:
            raise InputError(f"{where}: measure {measure} needs `arch` in its run")
        key = chosen.model_dump_json()
        if key not in self._traces:
            job = Job(**{f.name: getattr(chosen, f.name) for f in fields(Job) if hasattr(chosen, f.name)})
            self._traces[key] = run(chosen.model, chosen.arch, job)
        value = self._traces[key].to_dict().get(measure)
        if value is None:
            raise InputError(f"{where}: phase {chosen.phase} has no {measure}")
        return float(value)


def _verdict(claim: Claim, measures: _Measures, path: Path) -> Verdict:
    published = list(claim.value) if isinstance(claim.value, tuple) else [claim.value]
    if claim.run is None or claim.measure is None:
        return _judged(claim, published, None, None, claim.reason or "no run given", "not-modelled")
    where = f"{path}: claim {claim.id}"
    try:
        simulated = _simulated(claim, measures, where)
    except HwsimError as problem:
        raise InputError(str(problem) if where in str(problem) else f"{where}: {problem}") from problem
    if len(simulated) != len(published):
        raise InputError(f"{where}: measure {claim.measure} gives {len(simulated)} values; published are {len(published)}")
    error = max((_error(ours, theirs) for ours, theirs in zip(simulated, published, strict=True)), key=abs)
    within = math.isfinite(error) and abs(error) <= claim.allowed
    return _judged(claim, published, simulated, error, claim.reason, "reproduced" if within else "missed")


def _simulated(claim: Claim, measures: _Measures, where: str) -> list[float]:
    """The measure in the claim's unit, or ours over the baseline's; the other way round for the speed-up of a time."""
    assert claim.measure is not None
    assert claim.run is not None
    values = measures.value(claim.measure, claim.run, where)
    if claim.baseline_run is None:
        return [in_unit(value, claim.unit, where, _UNITS.get(claim.measure)) for value in values]
    base = measures.value(claim.measure, claim.baseline_run, where)
    if claim.metric == "speedup" and _UNITS.get(claim.measure) == "s":
        values, base = base, values
    return [ours / theirs for ours, theirs in zip(values, base, strict=True)]


def _error(ours: float, theirs: float) -> float:
    return (ours - theirs) / abs(theirs) if theirs else ours


def _judged(
    claim: Claim, published: list[float], simulated: list[float] | None, error: float | None, reason: str, verdict: str
) -> Verdict:
    stated = claim.status or ("reproduced" if simulated is not None else "not-modelled")
    ok = claim.role != "claim" or verdict == stated
    return Verdict(
        id=claim.id, system=claim.system, metric=claim.metric, published=_plain(published, claim), error=error, role=claim.role,
        simulated=None if simulated is None else _plain(simulated, claim), tolerance=claim.allowed, provenance=claim.provenance,
        verdict=verdict, reason=reason, unit=claim.unit, ok=ok,
    )  # fmt: skip


def _plain(values: list[float], claim: Claim) -> float | list[float]:
    return values if isinstance(claim.value, tuple) else values[0]
