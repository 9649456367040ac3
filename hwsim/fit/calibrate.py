"""`hwsim fit TABLE...`: the parameters of kernel models from measured rows, judged on rows that the fit did not see.

    least over p of  sum over rows of rho(ln(predicted / measured))         rho: soft L1 at 0.1, so that odd rows pull little

Rows of one generation, family, stack and format are fitted together, at most 3,000 of them, from the start and within the bounds
that the family states. From the set in use come only the choice of kernel and what it switches off (a number outside its bounds),
so that held-out rows have no part in the fit. All rows count, also those that a table's reader names as odd.

Never judged on random rows: where the tables hold several GPUs of the generation, the fit sees the one with most rows and is
judged on the others; where they hold one, on every fourth shape family; where that has fewer than four, not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.fit.devices import finder
from hwsim.fit.error import errors
from hwsim.fit.group import Group
from hwsim.fit.read import groups
from hwsim.fit.validate import priced
from hwsim.kernels.chip import Parameter
from hwsim.kernels.sets import KernelSet, choose, families, fitted_parameters, stated
from hwsim.quantity import show

ROWS = 3000
EVERY = 4
_LOSS = 0.1


@dataclass(frozen=True, eq=False)
class _Rows:
    """A group and its device; what a fit sees and what it is judged on are lists of them."""

    group: Group
    device: Device

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.device.generation, self.group.family, self.group.stack, self.group.format


def calibrate(tables: Sequence[Path], generation: str = "", arch: Path | None = None) -> dict[str, Any]:
    """`kernels:` of a device file: the fitted sets of every family, stack and format in `tables`.

    InputError where the tables hold GPUs of several generations and `generation` names none, or no row that can be fitted.
    """
    device_of = finder(arch)
    found = sorted((rows for path in tables for rows in _known(groups(path), device_of)), key=lambda rows: rows.key)
    held = sorted({rows.device.generation for rows in found})
    if generation:
        found = [rows for rows in found if rows.device.generation == generation]
    elif len(held) > 1:
        raise InputError(f"{tables[0]}: holds GPUs of {', '.join(held)}; accepted: one of them, chosen by --generation")
    if not found:
        wanted = f"GPUs of generation {generation}" if generation else "GPUs that are known"
        raise InputError(f"{tables[0]}: no rows of {wanted}; accepted: {', '.join(held) or 'a name or alias of arch/'}")
    kernels: dict[str, list[dict[str, Any]]] = {}
    for (_, family, stack, form), part in groupby(found, key=lambda rows: rows.key):
        kernels.setdefault(family, []).append({"stacks": [stack], "formats": [form], **fitted(list(part))})
    return {"kernels": kernels}


def fitted(rows: Sequence[_Rows]) -> dict[str, Any]:
    """One set, with what it was fitted on, how well it does on the rest, and every number with its unit."""
    seen, unseen, how = split(rows)
    family, known = rows[0].group.family, stated(rows[0].group.family)
    start = _start(rows[0], known)
    free = _free(family, start)
    found = {**start, **_least(seen, family, start, free)}
    written = {name: show(found[name], one.unit) for name, one in known.items()}
    chosen = {name for name in known if name not in fitted_parameters(family)}
    return {
        "fitted": _provenance(seen, unseen, how, found),
        "parameters": {name: text for name, text in written.items() if name not in chosen},
        "kernel": {name: text for name, text in written.items() if name in chosen},
    }


def split(rows: Sequence[_Rows]) -> tuple[list[_Rows], list[_Rows], str]:
    """What the fit sees, what it is judged on, and how they differ."""
    most: dict[str, int] = {}
    for one in rows:
        most[one.device.name] = most.get(one.device.name, 0) + one.group.rows
    if len(most) > 1:
        first = max(most, key=lambda name: most[name])
        return (
            [one for one in rows if one.device.name == first],
            [one for one in rows if one.device.name != first],
            f"unseen GPU {', '.join(sorted(set(most) - {first}))}",
        )
    held = [_held_out(one.group) for one in rows]
    if not any(out.any() for out in held):
        return list(rows), [], ""
    seen = [replace(one, group=part(one.group, ~out)) for one, out in zip(rows, held, strict=True) if not out.all()]
    unseen = [replace(one, group=part(one.group, out)) for one, out in zip(rows, held, strict=True) if out.any()]
    return seen, unseen, "unseen shapes"


def part(group: Group, rows: NDArray[Any]) -> Group:
    """Some rows of a group, by mask or index."""
    arguments = {
        name: value[..., rows] if np.ndim(value) and np.shape(value)[-1] == group.rows else value
        for name, value in group.arguments.items()
    }
    label = None if group.label is None else group.label[rows]
    return replace(group, measured=group.measured[rows], arguments=arguments, label=label, excluded={})


def _known(found: Iterable[Group], device_of: Callable[[str], Device | None]) -> Iterable[_Rows]:
    """Groups of GPUs that are known and of families that have a model."""
    for group in found:
        device = device_of(group.device)
        if device and group.family in families():
            yield _Rows(group, device)


def _held_out(group: Group) -> NDArray[np.bool_]:
    if group.label is None:
        return np.zeros(group.rows, bool)
    names, index = np.unique(group.label.astype(str), return_inverse=True)
    return np.asarray(index % EVERY == EVERY - 1) if len(names) >= EVERY else np.zeros(group.rows, bool)


def _start(rows: _Rows, known: Mapping[str, Parameter]) -> dict[str, float]:
    group = rows.group
    used = choose(rows.device.kernels.get(group.family, ()), group.stack, group.format)
    return dict(used.parameters) if used else {name: one.start for name, one in known.items()}


def _free(family: str, start: Mapping[str, float]) -> list[Parameter]:
    return [one for one in fitted_parameters(family).values() if one.low <= start[one.name] <= one.high]


def _least(seen: Sequence[_Rows], family: str, start: Mapping[str, float], free: Sequence[Parameter]) -> dict[str, float]:
    """The numbers of `free` with the least robust error. Positive ones are searched by their logarithm."""
    from scipy.optimize import least_squares

    few = [_thinned(one, ROWS // len(seen)) for one in seen]
    logs = np.array([one.low > 0.0 for one in free])

    def forth(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(logs, np.exp(np.where(logs, x, 0.0)), x)

    def back(values: Iterable[float]) -> NDArray[np.float64]:
        array = np.array(list(values))
        return np.where(logs, np.log(np.where(logs, array, 1.0)), array)

    def residuals(x: NDArray[np.float64]) -> NDArray[np.float64]:
        numbers = {**start, **dict(zip((one.name for one in free), map(float, forth(x)), strict=True))}
        return np.concatenate([np.log(_priced(one, numbers) / one.group.measured) for one in few])

    low, high = back(one.low for one in free), back(one.high for one in free)
    first = np.clip(back(one.start for one in free), low + 1e-9 * (high - low), high - 1e-9 * (high - low))
    width = np.maximum(high - low, 1e-30)
    try:
        best = least_squares(
            residuals, first, bounds=(low, high), loss="soft_l1", f_scale=_LOSS, x_scale=width, diff_step=1e-4, max_nfev=60
        )
    except ValueError as error:
        raise InputError(f"{seen[0].group.table}: {error}; accepted: rows that take some time") from error
    return dict(zip((one.name for one in free), map(float, forth(best.x)), strict=True))


def _thinned(rows: _Rows, most: int) -> _Rows:
    """At most `most` rows, evenly over the measured times."""
    group = rows.group
    order = np.argsort(group.measured, kind="stable")
    return replace(rows, group=part(group, order[np.unique(np.linspace(0, group.rows - 1, max(1, most)).astype(int))]))


def _priced(rows: _Rows, numbers: Mapping[str, float]) -> NDArray[np.float64]:
    found = priced(rows.group, rows.device, KernelSet((), (), "", numbers))
    if found is None:
        missing = f"no clock, cores, cache or peak in {rows.group.peak}"
        raise InputError(f"{rows.device.name}: {missing}; accepted: a device file that states them")
    return found


def _provenance(seen: Sequence[_Rows], unseen: Sequence[_Rows], how: str, found: Mapping[str, float]) -> str:
    tables = ", ".join(dict.fromkeys(one.group.table for one in seen))
    devices = ", ".join(dict.fromkeys(one.group.device for one in seen))
    judged = "not judged, too few shape families"
    if unseen:
        error = errors(
            np.concatenate([_priced(one, found) for one in unseen]), np.concatenate([one.group.measured for one in unseen])
        )
        rows = sum(one.group.rows for one in unseen)
        judged = f"{how}: MAPE {100 * error['mape']:.1f} %, median {100 * error['median']:.1f} % of {rows:,} rows"
    count = sum(one.group.rows for one in seen)
    used = sum(min(one.group.rows, ROWS // len(seen)) for one in seen)
    return f"{tables}, {devices}: {used:,} of {count:,} rows; {judged}"
