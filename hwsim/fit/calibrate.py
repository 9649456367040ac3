"""`hwsim fit TABLE...`: the parameters of kernel models from measured rows, judged on rows that the fit did not see.

    least over p of  sum over rows of rho(ln(predicted / measured))         rho: soft L1 at 0.1, so that odd rows pull little

A set that is in use and names the stack of the rows is fitted anew, for the stacks and formats that it names; rows that no set
names get one of their own. At most 3,000 rows count, evenly over the measured times. The search starts and ends within the bounds
that the family states: from the set in use come only the choice of kernel and what it switches off (a number outside its bounds),
so that held-out rows have no part in the fit. Rows that a table's reader names as odd count too.

Never judged on random rows: where the tables hold several GPUs of the generation, the fit sees the one with most rows and is
judged on the others; where they hold one, on every fourth shape family (or on the quarter whose rows take longest: sizes that the
fit never came near); where that has fewer than four, not at all. Once judged on shapes, a set is fitted on all of them, from
where it stood.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from hwsim.kernels.sets import ANY, KernelSet, choose, families, fitted_parameters, stated
from hwsim.quantity import show

ROWS = 3000
FEW = 300
DRAWS = 16
EVERY = 4
_LOSS = 0.1
_WEIGHT = 1e-3
_NOTHING = 1e-6
_TINY = 1e-30
_JUDGED = {"MAPE": "mape", "median": "median", "trimmed": "trimmed_mape"}


@dataclass(frozen=True, eq=False)
class _Rows:
    """A group and its device; what a fit sees and what it is judged on are lists of them."""

    group: Group
    device: Device

    @property
    def key(self) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """Family, stacks and formats of the set that these rows are fitted for."""
        used = choose(self.device.kernels.get(self.group.family, ()), self.group.stack, self.group.format)
        named = used and {self.group.stack, self.group.stack.split("-", maxsplit=1)[0]} & set(used.stacks)
        return (self.group.family, used.stacks, used.formats) if used and named else self.own

    @property
    def own(self) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """The same of a set for these rows alone."""
        return self.group.family, (self.group.stack,), (self.group.format,)

    @property
    def pool(self) -> tuple[str, ...]:
        """Formats of the set of any stack that these rows are fitted for."""
        used = choose(self.device.kernels.get(self.group.family, ()), ANY, self.group.format)
        return used.formats if used else (self.group.format,)


def calibrate(
    tables: Sequence[Path], generation: str = "", arch: Path | None = None, pooled: Collection[str] = (), largest: bool = False
) -> dict[str, Any]:
    """`kernels:` of a device file: the fitted sets of every family, stack and format in `tables`.

    `pooled` names stacks (vllm: also vllm-triton; any: all) whose rows together make a set of any stack for each format; with
    `largest` the largest shapes are held out. InputError where the tables hold GPUs of several generations and `generation`
    names none, or no row that can be fitted.
    """
    device_of = finder(arch)
    found = [rows for path in tables for rows in _known(groups(path), device_of)]
    held = sorted({rows.device.generation for rows in found})
    if generation:
        found = [rows for rows in found if rows.device.generation == generation]
    elif len(held) > 1:
        raise InputError(f"{tables[0]}: holds GPUs of {', '.join(held)}; accepted: one of them, chosen by --generation")
    if not found:
        wanted = f"GPUs of generation {generation}" if generation else "GPUs that are known"
        raise InputError(f"{tables[0]}: no rows of {wanted}; accepted: {', '.join(held) or 'a name or alias of arch/'}")
    kernels: dict[str, list[dict[str, Any]]] = {}
    for (family, stacks, formats), part in _sets(found, pooled).items():
        kernels.setdefault(family, []).append(fitted(part, stacks, formats, largest))
    return {"kernels": kernels}


def _sets(found: Iterable[_Rows], pooled: Collection[str]) -> dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[_Rows]]:
    """The rows of each set, by its family, stacks and formats."""
    sets: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[_Rows]] = {}
    for rows in sorted(found, key=lambda rows: (rows.group.family, rows.group.format, rows.group.stack)):
        sets.setdefault(rows.key, []).append(rows)
        if {ANY, rows.group.stack, rows.group.stack.split("-", maxsplit=1)[0]} & set(pooled):
            sets.setdefault((rows.group.family, (ANY,), rows.pool), []).append(rows)
    return sets


def fitted(rows: Sequence[_Rows], stacks: Sequence[str], formats: Sequence[str], largest: bool = False) -> dict[str, Any]:
    """One set, with its stacks and formats, what it was fitted on, its error on the rest, and every number with its unit."""
    seen, unseen, how = split(rows, largest)
    family, known = rows[0].group.family, stated(rows[0].group.family)
    start = _start(rows[0].device, family, stacks, formats)
    free = _free(family, start)
    judged = {**start, **_least(seen, start, free)}
    same = _of_one_gpu(rows)
    again = [replace(one, start=judged[one.name]) for one in free]
    found = (
        judged if _count(seen) == _count(same) else {**start, **_least(same, start, again, DRAWS if _count(same) <= FEW else 0)}
    )
    written = {name: _written(found[name], one) for name, one in known.items()}
    chosen = {name for name in known if name not in fitted_parameters(family)}
    return {
        "stacks": list(stacks),
        "formats": list(formats),
        "fitted": _provenance(same, unseen, how, judged),
        "parameters": {name: text for name, text in written.items() if name not in chosen},
        "kernel": {name: text for name, text in written.items() if name in chosen},
    }


def split(rows: Sequence[_Rows], largest: bool = False) -> tuple[list[_Rows], list[_Rows], str]:
    """What the fit sees, what it is judged on, and how they differ."""
    same = _of_one_gpu(rows)
    others = [one for one in rows if one not in same]
    if others and not largest:
        return same, others, f"unseen GPU {', '.join(sorted({one.device.name for one in others}))}"
    held = [_held_out(one.group, largest) for one in same]
    if not any(out.any() for out in held):
        return same, [], ""
    seen = [replace(one, group=part(one.group, ~out)) for one, out in zip(same, held, strict=True) if not out.all()]
    unseen = [replace(one, group=part(one.group, out)) for one, out in zip(same, held, strict=True) if out.any()]
    return seen, unseen, "the largest shapes" if largest else "unseen shapes"


def _of_one_gpu(rows: Sequence[_Rows]) -> list[_Rows]:
    """Those of the GPU with most rows, of two with as many the first."""
    most: dict[str, int] = {}
    for one in rows:
        most[one.device.name] = most.get(one.device.name, 0) + one.group.rows
    return [one for one in rows if one.device.name == max(most, key=lambda name: most[name])]


def _count(rows: Sequence[_Rows]) -> int:
    return sum(one.group.rows for one in rows)


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


def _held_out(group: Group, largest: bool = False) -> NDArray[np.bool_]:
    """Rows of every fourth shape family, by name, or of the quarter of them whose median row takes longest."""
    if group.label is None:
        return np.zeros(group.rows, bool)
    names, index = np.unique(group.label.astype(str), return_inverse=True)
    if len(names) < EVERY:
        return np.zeros(group.rows, bool)
    if not largest:
        return np.asarray(index % EVERY == EVERY - 1)
    medians = np.array([np.median(group.measured[index == one]) for one in range(len(names))])
    return np.isin(index, np.argsort(medians, kind="stable")[-(len(names) // EVERY) :])


def _written(number: float, one: Parameter) -> str | float:
    """With its unit; what a fit has pushed against 0, as it may, is 0."""
    kept = number if one.low > 0.0 or number >= _NOTHING * one.high else 0.0
    return show(kept, one.unit) if one.unit else float(show(kept, ""))


def _start(device: Device, family: str, stacks: Sequence[str], formats: Sequence[str]) -> dict[str, float]:
    """The set in use for a set to be fitted, or where its family starts."""
    used = choose(device.kernels.get(family, ()), stacks[0], formats[0])
    return dict(used.parameters) if used else {name: one.start for name, one in stated(family).items()}


def _free(family: str, start: Mapping[str, float]) -> list[Parameter]:
    return [one for one in fitted_parameters(family).values() if one.low <= start[one.name] <= one.high]


def _least(seen: Sequence[_Rows], start: Mapping[str, float], free: Sequence[Parameter], draws: int = DRAWS) -> dict[str, float]:
    """The numbers of `free` with the least robust error. Positive ones are searched by their logarithm.

    Kernels are the least of several tiles or protocols, so that a search from one point may end in a valley beside. Some points
    drawn between the bounds are tried on a few rows, and the best of them and of the family's own start goes on with all.
    """
    logs = np.array([one.low > 0.0 for one in free])
    low, high = (_back((getattr(one, end) for one in free), logs) for end in ("low", "high"))
    first = _back((one.start for one in free), logs)
    drawn = np.clip(first + (np.random.default_rng(0).random((draws, len(free))) - 0.5) * (high - low), low, high)

    def searched(most: int, points: Iterable[NDArray[np.float64]]) -> list[Any]:
        few = [_thinned(one, count) for one, count in zip(seen, _counts(seen, most), strict=True)]

        def residuals(x: NDArray[np.float64]) -> NDArray[np.float64]:
            numbers = {**start, **_named(free, x, logs)}
            moved = _WEIGHT * (x - first) / np.maximum(high - low, _TINY)  # a number that no row speaks of stays where it starts
            return np.concatenate([*(np.log(_priced(one, numbers) / one.group.measured) for one in few), moved])

        return [_search(residuals, point, low, high, seen[0].group.table) for point in points]

    point = min(searched(FEW, [first, *drawn]), key=_cost).x if draws else first
    return _named(free, searched(ROWS, [point])[0].x, logs)


def _search(
    residuals: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    point: NDArray[np.float64],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    table: str,
) -> Any:
    """scipy's answer from a point within the bounds. InputError for rows that have no logarithm."""
    from scipy.optimize import least_squares

    inside = np.clip(point, low + 1e-9 * (high - low), high - 1e-9 * (high - low))
    width = np.maximum(high - low, _TINY)
    try:
        return least_squares(
            residuals, inside, bounds=(low, high), loss="soft_l1", f_scale=_LOSS, x_scale=width, diff_step=1e-4, max_nfev=60
        )
    except ValueError as error:
        raise InputError(f"{table}: {error}; accepted: rows that take some time") from error


def _cost(found: Any) -> float:
    return float(found.cost)


def _back(values: Iterable[float], logs: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Numbers as a search sees them."""
    array = np.array(list(values))
    return np.where(logs, np.log(np.where(logs, array, 1.0)), array)


def _named(free: Sequence[Parameter], x: NDArray[np.float64], logs: NDArray[np.bool_]) -> dict[str, float]:
    """What a search sees as numbers, by name."""
    forth = np.where(logs, np.exp(np.where(logs, x, 0.0)), x)
    return dict(zip((one.name for one in free), map(float, forth), strict=True))


def _counts(rows: Sequence[_Rows], most: int) -> list[int]:
    """How many rows of each group a fit sees: all of them, or its share of the most it takes."""
    total = _count(rows)
    return [min(one.group.rows, max(1, round(one.group.rows * most / total))) for one in rows]


def _thinned(rows: _Rows, count: int) -> _Rows:
    """`count` rows, evenly over the measured times."""
    group = rows.group
    order = np.argsort(group.measured, kind="stable")
    return replace(rows, group=part(group, order[np.unique(np.linspace(0, group.rows - 1, count).astype(int))]))


def _priced(rows: _Rows, numbers: Mapping[str, float]) -> NDArray[np.float64]:
    found = priced(rows.group, rows.device, KernelSet((), (), "", numbers))
    if found is None:
        missing = f"no clock, cores, cache or peak in {rows.group.peak}"
        raise InputError(f"{rows.device.name}: {missing}; accepted: a device file that states them")
    return found


def _provenance(same: Sequence[_Rows], unseen: Sequence[_Rows], how: str, judged: Mapping[str, float]) -> str:
    """Tables, GPU, stacks and rows of a fit, and the error of `judged` on what it did not see."""
    names = (
        ", ".join(dict.fromkeys(one.group.table for one in same)),
        ", ".join(dict.fromkeys(one.group.device for one in same)),
    )
    stacks = " + ".join(dict.fromkeys(f"{one.group.stack} {one.group.dtype}" for one in same))
    return (
        f"{names[0]}, {names[1]}, {stacks}: {sum(_counts(same, ROWS)):,} of {_count(same):,} rows; {_error(unseen, how, judged)}"
    )


def _error(unseen: Sequence[_Rows], how: str, judged: Mapping[str, float]) -> str:
    if not unseen:
        return "not judged, too few shape families"
    predicted = np.concatenate([_priced(one, judged) for one in unseen])
    error = errors(predicted, np.concatenate([one.group.measured for one in unseen]))
    parts = ", ".join(f"{name} {100 * error[key]:.1f} %" for name, key in _JUDGED.items())
    return f"{how}: {parts} of {len(predicted):,} rows"
