"""Quantities with units: "3.35 TB/s" -> 3.35e12 and back. The only unit conversion in hwsim; pint does the arithmetic.

Inside hwsim every number is SI: seconds, bytes, bytes/s, operations (1 MAC = 2), operations/s, joules, watts, square metres.
Prefixes are decimal (TB/s = 1e12 B/s); only capacities may say GiB, and then they mean it.
"""

from __future__ import annotations

import math
import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from hwsim.errors import InputError

if TYPE_CHECKING:
    import pint

_DEFINITIONS = """
pico- = 1e-12 = p-
nano- = 1e-9 = n-
micro- = 1e-6 = u- = µ-
milli- = 1e-3 = m-
kilo- = 1e3 = k-
mega- = 1e6 = M-
giga- = 1e9 = G-
tera- = 1e12 = T-
peta- = 1e15 = P-
kibi- = 1024 = Ki-
mebi- = 1048576 = Mi-
gibi- = 1073741824 = Gi-
tebi- = 1099511627776 = Ti-
second = [time] = s
minute = 60 * second = min
hour = 3600 * second = h
byte = [information] = B
bit = byte / 8 = b
operation = [operation] = op = OP = FLOP = flop
joule = [energy] = J
watt = joule / second = W
hertz = 1 / second = Hz
meter = [length] = m
volt = [potential] = V
siemens = [conductance] = S
"""

# number, then a unit made of names joined by * and /, with small powers: nothing here can be made to loop or explode
_NUMBER = r"[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?"
_UNIT = r"[A-Za-zµ]{1,12}(?:(?:\*\*|\^)[23])?"
_QUANTITY = re.compile(rf"\s*({_NUMBER})\s*({_UNIT}(?:\s*[*/]\s*{_UNIT}){{0,3}})?\s*")

_BINARY = re.compile(r"[KMGT]i[Bb]")
_SMALLEST, _LARGEST = 1e-40, 1e40  # so that products and quotients of three stay finite
_STEPS = (
    (1e15, "P"),
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "u"),
    (1e-9, "n"),
    (1e-12, "p"),
)


@cache
def _registry() -> pint.UnitRegistry[Any]:
    import pint

    registry: pint.UnitRegistry[Any] = pint.UnitRegistry(None)
    for line in _DEFINITIONS.strip().splitlines():
        registry.define(line)
    return registry


@lru_cache(maxsize=4096)
def _factor(unit: str, si_unit: str) -> float:
    """How many `si_unit` are in one `unit`; InputError when they measure different things."""
    import pint

    registry = _registry()
    try:
        return float(registry.Quantity(1.0, unit).to(si_unit).magnitude)
    except (pint.errors.PintError, AttributeError, ValueError) as error:
        raise InputError(f"unit {unit!r} is not a {si_unit}") from error


def parse(text: object, si_unit: str) -> float:
    """Read `text` ("3350 GB/s") as a float in `si_unit` ("B/s", "op/s", "B", "s", "J/op", "W" or "" for a plain number).

    Raises InputError when it is not a finite number with a unit of that dimension.
    """
    example = f'a number with a unit of {si_unit}, e.g. "3.5 {si_unit}"' if si_unit else "a plain number"
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise InputError(f"{_short(text)} is not a quantity; accepted: {example}")
    match = _QUANTITY.fullmatch(str(text)) if len(str(text)) <= 64 else None
    if match is None:
        raise InputError(f"{_short(text)} is not a quantity; accepted: {example}")
    number, unit = match.groups()
    if unit and si_unit != "B" and _BINARY.search(unit):
        raise InputError(f"{_short(text)}: only capacities may be binary (GiB); accepted: {example}")
    if bool(unit) != bool(si_unit):
        raise InputError(f"{_short(text)} has {'an unexpected' if unit else 'no'} unit; accepted: {example}")
    try:
        value = float(number) * (_factor(unit.replace("^", "**"), si_unit) if unit else 1.0)
    except InputError as error:
        raise InputError(f"{_short(text)}: {error}; accepted: {example}") from error
    if not math.isfinite(value) or (value and not _SMALLEST < abs(value) < _LARGEST):
        raise InputError(f"{_short(text)} is not finite or out of all proportion; accepted: {example}")
    return value


def show(value: float, si_unit: str, digits: int = 4) -> str:
    """Write an SI value for people: show(3.35e12, "B/s") -> "3.35 TB/s"."""
    if not math.isfinite(value):
        return f"{value} {si_unit}".strip()
    if not si_unit:
        return f"{value:.{digits}g}"
    size = abs(value)
    scale, prefix = next(((s, p) for s, p in _STEPS if size >= s * 0.9995), _STEPS[-1]) if size else (1.0, "")
    return f"{value / scale:.{digits}g} {prefix}{si_unit}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# Units that claims print, in the words of papers; everything else is parsed like any quantity.
_PRINTED = {
    "": 1.0, "x": 1.0, "ratio": 1.0, "fraction": 1.0, "bool": 1.0, "count": 1.0, "cycles": 1.0, "%": 0.01, "MMAC/s": 1e6,
    "billion": 1e9, "G": 1e9, "million": 1e6, "M": 1e6, "trillion": 1e12, "k$": 1e3, "M$": 1e6,
}  # fmt: skip
_COUNTED = (
    "tokens", "token", "requests", "parameters", "count", "SMs", "links", "sequences", "batch", "USD", "weights",
    "DSP48E2", "URAM", "BRAM36", "inf", "pixels", "blocks",
)  # fmt: skip
_ALIASES = {"KB": "kB", "Op/B": "op/B", "mm2": "mm**2", "TFLOPS": "TFLOP/s"}


def in_unit(value: float, unit: str, where: str, si_unit: str | None = None) -> float:
    """An SI `value` in the unit a claim prints ("ms", "GB", "KB (1000 B)", "GFLOP/token", "billion parameters", "x", "%").

    InputError for a unit that is not known, or measures something else than `si_unit` where that is given.
    """
    words = re.sub(r"\(.*?\)", "", unit).split()
    head = "/".join(part for part in (words[0] if words else "").split("/") if part not in _COUNTED)
    head = _ALIASES.get(head, head)
    if head in _PRINTED:
        return value / _PRINTED[head]
    try:
        if head.startswith("/"):  # tokens/s, tokens/J
            return value * float(_registry().Quantity(1.0, head[1:]).to_base_units().magnitude)
        if si_unit:
            return value / _factor(head, si_unit)
        return float(value / _registry().Quantity(1.0, head).to_base_units().magnitude)
    except Exception as error:
        wanted = f" as a {si_unit}" if si_unit else ""
        raise InputError(f"{where}: unit {unit[:40]!r} is not known{wanted}") from error
