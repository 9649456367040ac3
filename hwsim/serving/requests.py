"""Requests: when they arrive and how long they are, out of a trace or drawn from distributions.

A trace is a CSV or JSONL file with the columns arrival_s, prompt_tokens, output_tokens and, for prefix caching, how many leading
tokens of the prompt the cache holds already (prefix_cached_tokens or prefix_cached_tokens_ideal). Rows may be in any order; they
are served in order of arrival, those of one time in the file's. A file without arrival_s gives lengths only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwsim.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MAX_ROWS = 20_000_000
MAX_TOKENS = 100_000_000
LATEST = 1e9  # seconds, some thirty years
_LENGTHS = ("prompt_tokens", "output_tokens")
_CACHED = ("prefix_cached_tokens", "prefix_cached_tokens_ideal")


@dataclass(frozen=True, eq=False)
class Requests:
    """One entry per request in order of arrival: seconds, and tokens in, out and of the prompt already cached."""

    arrival_s: Floats
    prompt: Ints
    output: Ints
    cached: Ints
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def rate(self) -> float:
        """Mean requests per second; 0 where all arrive at once."""
        span = float(self.arrival_s[-1] - self.arrival_s[0])
        return (len(self) - 1) / span if span else 0.0

    def at_rate(self, rate: float) -> Requests:
        """The same requests with all gaps stretched, so that `rate` arrive in a second. InputError where there are no gaps."""
        if not self.rate:
            many = "a single request" if len(self) == 1 else "requests that all arrive at once"
            raise InputError(f"rate: {many} cannot be stretched to a rate; accepted: arrival times that differ, or no rate")
        if not 0 < rate < float("inf"):
            raise InputError(f"rate: {rate}; accepted: requests per second above 0")
        since = (self.arrival_s - self.arrival_s[0]) * (self.rate / rate)
        return Requests(since, self.prompt, self.output, self.cached, self.notes)


def make_requests(
    arrival_s: Sequence[float] | Floats, prompt: Sequence[int] | Ints, output: Sequence[int] | Ints, cached: Ints | None = None
) -> Requests:
    """Requests out of plain sequences, sorted by arrival. InputError for what no request can be."""
    import pandas as pd

    columns = {"arrival_s": arrival_s, "prompt_tokens": prompt, "output_tokens": output}
    if cached is not None:
        columns["prefix_cached_tokens"] = cached
    if len({len(column) for column in columns.values()}) > 1:
        raise InputError(f"requests: {', '.join(map(str, map(len, columns.values())))} values; accepted: the same number in each")
    return _of_table(pd.DataFrame(columns), "requests")


def read_trace(path: str | Path, limit: int | None = None) -> Requests:
    """The first `limit` requests of a trace, all by default. InputError names the file, column and row of what is wrong."""
    if limit is not None and limit < 1:
        raise InputError(f"{path}: the first {limit} requests; accepted: at least 1")
    table = _table(Path(path))
    if "arrival_s" not in table:
        have = ", ".join(map(str, table.columns[:8]))
        raise InputError(
            f"{path}: column arrival_s is missing (there are {have}); accepted: a trace with it, or lengths and --rate"
        )
    return _of_table(table if limit is None else table.head(limit), str(path))


def read_lengths(path: str | Path) -> tuple[Ints, Ints]:
    """Tokens in and out of every row of a file, arrival times ignored."""
    table = _table(Path(path))
    return _tokens(table, "prompt_tokens", str(path)), _tokens(table, "output_tokens", str(path))


def has_arrivals(path: str | Path) -> bool:
    """Whether a file is a trace rather than a list of lengths."""
    return "arrival_s" in _table(Path(path), 1)


def _table(path: Path, most: int = MAX_ROWS + 1) -> pd.DataFrame:
    """The first rows of a CSV or JSONL file, its columns checked."""
    import pandas as pd

    try:
        if not path.is_file():
            what = "a folder" if path.is_dir() else "not a regular file" if path.exists() else "no such file"
            raise InputError(f"{str(path)[:200]}: {what}; accepted: a CSV or JSONL file of requests")
        if path.suffix in (".jsonl", ".json"):
            table = pd.read_json(path, lines=True, dtype=False, nrows=most, compression=None)
            if not all(isinstance(name, str) for name in table):
                raise ValueError("lines are no JSON objects")
        else:
            table = pd.read_csv(path, nrows=most, skipinitialspace=True, low_memory=False, compression=None)
            if not isinstance(table.index, pd.RangeIndex):  # pandas takes the first of them for a name of the row
                raise ValueError("rows have more fields than the header")
    except (ValueError, OverflowError, OSError, pd.errors.ParserError) as error:
        raise InputError(
            f"{str(path)[:200]}: not a table of requests ({' '.join(str(error).split())[:120]}); accepted: CSV or JSONL"
        ) from error
    missing = [name for name in _LENGTHS if name not in table]
    if missing:
        have = ", ".join(map(str, table.columns[:8]))
        raise InputError(f"{path}: column {missing[0]} is missing; there are {have}; accepted: {', '.join(_LENGTHS)}, arrival_s")
    twice = [name for name in ("arrival_s", *_LENGTHS, *_CACHED) if f"{name}.1" in table]  # as pandas calls the second one
    if twice:
        raise InputError(f"{path}: column {twice[0]} is there twice; accepted: once")
    return table


def _of_table(table: pd.DataFrame, where: str) -> Requests:
    arrival = _column(table, "arrival_s", where, 0.0, LATEST)
    prompt, output = (_tokens(table, name, where) for name in _LENGTHS)
    hits = next((name for name in _CACHED if name in table), None)
    cached = _tokens(table, hits, where, least=0) if hits else np.zeros(len(table), dtype=np.int64)
    over = np.flatnonzero(cached > prompt)
    if len(over):
        row = int(over[0])
        raise InputError(
            f"{where}: {hits}, row {row + 1}: {cached[row]} of a prompt of {prompt[row]}; accepted: at most the prompt"
        )
    order = np.argsort(arrival, kind="stable")
    notes = () if np.all(np.diff(arrival) >= 0) else (f"{where}: rows were sorted by arrival_s",)
    return Requests(arrival[order], prompt[order], output[order], cached[order], notes)


def _tokens(table: pd.DataFrame, name: str, where: str, least: int = 1) -> Ints:
    values = _column(table, name, where, least, MAX_TOKENS)
    broken = np.flatnonzero(values != np.floor(values))
    if len(broken):
        raise _refused(where, name, int(broken[0]), values[broken[0]], f"a whole number of tokens from {least} to {MAX_TOKENS}")
    return values.astype(np.int64)


def _column(table: pd.DataFrame, name: str, where: str, least: float, most: float) -> Floats:
    """A column as numbers within bounds; the first cell that is none is named."""
    import pandas as pd

    if not 0 < len(table) <= MAX_ROWS:
        raise InputError(f"{where}: {len(table)} rows; accepted: 1 to {MAX_ROWS}")
    column = table[name]
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    if column.dtype.kind in "bO":
        numbers = np.where([isinstance(value, bool) for value in column], np.nan, numbers)
    with np.errstate(invalid="ignore"):
        broken = np.flatnonzero(~((numbers >= least) & (numbers <= most)))
    if len(broken):
        row = int(broken[0])
        raise _refused(where, name, row, column.iloc[row], f"a number from {least:g} to {most:g}")
    return np.asarray(numbers)


def _refused(where: str, name: str, row: int, value: object, accepted: str) -> InputError:
    return InputError(f"{where}: {name}, row {row + 1}: {str(value)[:40]!r}; accepted: {accepted}")
