"""Requests drawn from distributions: gaps between arrivals and lengths, one named random stream each.

Arrivals (mean rate R)
- poisson: exponential gaps, mean 1/R
- gamma:cv=C: gamma gaps of mean 1/R and coefficient of variation C (above 1: bursts; 1 is Poisson)
- constant: one every 1/R seconds

Lengths, of prompts and outputs, rounded, at least 1 token
- fixed:N
- gaussian:mean=M,sd=S, cut off at 1
- lognormal:mean=M,sd=S, mean and standard deviation of the lengths themselves
- empirical:FILE, rows of a file with prompt_tokens and output_tokens, drawn with replacement; prompts and outputs of one file are
  drawn as pairs, so that what belongs together stays together
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from hwsim.errors import InputError
from hwsim.lowering.moe import stream
from hwsim.serving.requests import LATEST, MAX_ROWS, MAX_TOKENS, Floats, Ints, Requests, read_lengths

_DEFAULT = {"gamma": {"cv": 2.0}}
_ARGUMENTS = {
    "poisson": (), "gamma": ("cv",), "constant": (), "gaussian": ("mean", "sd"), "lognormal": ("mean", "sd"),
}  # fmt: skip


def drawn_requests(many: int, rate: float | None, arrivals: str, prompts: str, outputs: str, seed: int) -> Requests:
    """`many` requests at `rate` per second; all at time 0 without a rate (a closed loop decides when they start)."""
    if not 0 < many <= MAX_ROWS:
        raise InputError(f"num-requests: {many}; accepted: 1 to {MAX_ROWS}")
    if seed < 0:
        raise InputError(f"seed: {seed}; accepted: a whole number from 0")
    when = np.zeros(many) if rate is None else arrival_times(many, rate, arrivals, seed)
    prompt, output = lengths(many, prompts, outputs, seed)
    return Requests(when, prompt, output, np.zeros(many, dtype=np.int64))


def arrival_times(many: int, rate: float, arrivals: str, seed: int) -> Floats:
    """Arrival times in seconds, the first after one gap; another rate divides the same ones by another number.

    InputError for a rate or a distribution that is none.
    """
    if not 0 < rate < 1e9:
        raise InputError(f"rate: {rate}; accepted: requests per second above 0")
    name, given = _read(arrivals, ("poisson", "gamma", "constant"), "arrivals")
    rng = stream(seed, "arrivals")
    squared = given.get("cv", 1.0) ** 2
    with np.errstate(over="ignore"):
        gaps = np.ones(many) if name == "constant" else rng.gamma(1.0 / squared, squared, many)
        times = np.cumsum(gaps) / rate
    if not times[-1] <= LATEST:
        raise InputError(f"rate: {rate}; accepted: one at which {many} requests arrive within {LATEST:g} s")
    return np.asarray(times)


def lengths(many: int, prompts: str, outputs: str, seed: int) -> tuple[Ints, Ints]:
    """Tokens in and out of `many` requests."""
    if prompts == outputs and prompts.startswith("empirical:"):
        known = read_lengths(prompts.removeprefix("empirical:"))
        pick = stream(seed, "lengths").integers(len(known[0]), size=many)
        return known[0][pick], known[1][pick]
    return _lengths(many, prompts, seed, "prompt"), _lengths(many, outputs, seed, "output")


def _lengths(many: int, text: str, seed: int, what: str) -> Ints:
    rng = stream(seed, f"{what}_lengths")
    if text.startswith("empirical:"):
        known = read_lengths(text.removeprefix("empirical:"))[what == "output"]
        return np.asarray(known[rng.integers(len(known), size=many)])
    if re.fullmatch(r"(fixed:)?\d{1,9}", text):
        return _whole(np.full(many, float(text.removeprefix("fixed:"))), text)
    name, given = _read(text, ("gaussian", "lognormal"), f"{what}-dist", "fixed:N, empirical:FILE")
    mean, sd = given["mean"], given["sd"]
    if name == "gaussian":
        return _whole(np.maximum(rng.normal(mean, sd, many), 1.0), text)
    spread = np.log1p((sd / mean) ** 2)
    return _whole(np.maximum(rng.lognormal(np.log(mean) - spread / 2, np.sqrt(spread), many), 1.0), text)


def _whole(values: Floats, text: str) -> Ints:
    rounded = np.rint(values)
    if not np.all((rounded >= 1) & (rounded <= MAX_TOKENS)):
        raise InputError(f"lengths {text[:60]!r}: some are not from 1 to {MAX_TOKENS} tokens; accepted: shorter ones")
    return rounded.astype(np.int64)


def _read(text: str, names: tuple[str, ...], option: str, more: str = "") -> tuple[str, Mapping[str, float]]:
    """Read "gamma:cv=2": a name and the positive numbers that it takes."""
    name, _, given = text.partition(":")
    parts = given.split(",") if given else []
    pairs = dict(part.partition("=")[::2] for part in parts)
    wanted = _ARGUMENTS.get(name, ()) if name in names else None
    values = _DEFAULT.get(name, {}) | {key: _positive(value) for key, value in pairs.items()}
    if wanted is None or len(pairs) < len(parts) or set(values) != set(wanted) or not all(values.values()):
        forms = [
            other + (":" + ",".join(f"{key}=NUMBER" for key in _ARGUMENTS[other]) if _ARGUMENTS[other] else "") for other in names
        ]
        raise InputError(f"{option}: {text[:60]!r}; accepted: {', '.join(filter(None, [more, *forms]))}")
    return name, values


def _positive(text: str) -> float:
    """The number, 0 for what is none."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 < value < 1e12 else 0.0
