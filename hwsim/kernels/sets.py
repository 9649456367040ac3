"""Parameter sets: the fitted numbers of one kernel family on one architecture generation, by software stack and number format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from hwsim.errors import HwsimError, InputError
from hwsim.kernels.chip import Parameter
from hwsim.quantity import parse

ANY = "any"


@dataclass(frozen=True, eq=False)
class KernelSet:
    """Parameters in SI, what they were fitted on, and for which stacks and formats they stand."""

    stacks: tuple[str, ...]
    formats: tuple[str, ...]
    fitted: str
    parameters: Mapping[str, float] = field(repr=False)


def choose(sets: Sequence[KernelSet], stack: str, format: str) -> KernelSet | None:
    """The set for a stack and format: of that stack, of its family ("vllm" for "vllm-triton"), of any; None for none."""
    able = [one for one in sets if format in one.formats or ANY in one.formats]
    for name in (stack, stack.split("-", maxsplit=1)[0], ANY):
        found = next((one for one in able if name in one.stacks), None)
        if found is not None:
            return found
    return None


@cache
def families() -> tuple[str, ...]:
    """The kernel families: the files of this folder that state parameters."""
    stems = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    return tuple(stem for stem in stems if hasattr(import_module(f"hwsim.kernels.{stem}"), "PARAMETERS"))


def kernel(family: str) -> Callable[..., Any]:
    """The function of a family: seconds (or watts) from a shape, a chip and parameters."""
    found: Callable[..., Any] = getattr(import_module(f"hwsim.kernels.{family}"), family)
    return found


def fitted_parameters(family: str) -> Mapping[str, Parameter]:
    """The numbers of a family that a fit may move."""
    return {one.name: one for one in import_module(f"hwsim.kernels.{family}").PARAMETERS}


def stated(family: str) -> Mapping[str, Parameter]:
    """Every number that a set of `family` may hold: fitted parameters and the choice of kernel."""
    module = import_module(f"hwsim.kernels.{family}")
    return {**fitted_parameters(family), **{one.name: one for one in getattr(module, "SELECTION", ())}}


def kernel_sets(family: str, raw: Any, where: str) -> tuple[KernelSet, ...]:
    """The sets of one family as a YAML file lists them; `where` begins the InputError."""
    if family not in families():
        raise InputError(f"{where}: no such kernel family; accepted: {', '.join(families())}")
    if not isinstance(raw, list) or not all(isinstance(one, dict) for one in raw):
        raise InputError(f"{where}: {str(raw)[:40]!r}; accepted: a list of sets with stacks, formats, fitted, parameters")
    return tuple(_kernel_set(family, one, f"{where}.{index}") for index, one in enumerate(raw))


def _kernel_set(family: str, raw: Mapping[str, Any], where: str) -> KernelSet:
    given: dict[str, Any] = {}
    for part in ("parameters", "kernel"):
        values = raw.get(part, {})
        if not isinstance(values, dict):
            raise InputError(f"{where}.{part}: {str(values)[:40]!r}; accepted: a mapping of names to numbers")
        given |= values
    numbers = _numbers(given, stated(family), where)
    for name in numbers.keys() - fitted_parameters(family).keys():
        _choice(numbers[name], stated(family)[name], where)
    words = {name: _words(raw.get(name), f"{where}.{name}") for name in ("stacks", "formats")}
    if not isinstance(raw.get("fitted"), str):
        raise InputError(f"{where}.fitted: missing; accepted: on which rows, and with which error")
    return KernelSet(words["stacks"], words["formats"], raw["fitted"], numbers)


def _numbers(given: Mapping[str, Any], known: Mapping[str, Parameter], where: str) -> Mapping[str, float]:
    """SI numbers: every parameter that the family states must be there, but for the choice of kernel no default is a guess."""
    unknown = [name for name in given if name not in known]
    missing = [name for name in known if name not in given]
    if unknown or missing:
        raise InputError(
            f"{where}: {(unknown or missing)[0]!r} is {'not known' if unknown else 'missing'}; accepted: {', '.join(known)}"
        )
    try:
        numbers = {name: parse(value, known[name].unit) for name, value in given.items()}
    except HwsimError as error:
        raise InputError(f"{where}: {error}") from error
    for name, number in numbers.items():
        if not known[name].accepts(number):
            raise InputError(f"{where}: {name}: {str(given[name])[:40]}; accepted: {known[name].accepted}")
    return numbers


def _choice(number: float, one: Parameter, where: str) -> None:
    """InputError for a choice of kernel that is none."""
    if number != round(number) or not one.low <= number <= one.high:
        raise InputError(f"{where}: {one.name}: {number:g}; accepted: a whole number from {one.low:g} to {one.high:g}")


def _words(raw: Any, where: str) -> tuple[str, ...]:
    if not isinstance(raw, list) or not raw or not all(isinstance(one, str) for one in raw):
        raise InputError(f"{where}: {str(raw)[:40]!r}; accepted: a list of names")
    return tuple(raw)
