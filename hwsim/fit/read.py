"""Reading measured tables, also a stranger's: what is no table, or holds a number that nobody can have measured, is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np
import pandas as pd

from hwsim.errors import InputError
from hwsim.fit import tables
from hwsim.fit.group import Group
from hwsim.fit.size import fits

_LARGEST = 1e15
_MAY_BE_ZERO = frozenset(
    {"window", "resident", "quantised", "load", "count", "ops", "rows", "bytes", "arrival", "queue", "decode"}
)
_MAY_BE_ENDLESS = frozenset({"scaled", "copies"})


def readers() -> Mapping[str, Any]:
    """Table name -> reader: the public functions of hwsim/fit/tables."""
    found: dict[str, Any] = {}
    for file in iter_modules(tables.__path__):
        module = import_module(f"{tables.__name__}.{file.name}")
        found |= {
            name: value
            for name, value in vars(module).items()
            if getattr(value, "__module__", "") == module.__name__ and name[0] != "_"
        }
    return found


def known_tables(folder: Path) -> list[Path]:
    """The files of a folder that are named like a table. InputError where two are the same table."""
    found = [path for path in sorted(folder.iterdir()) if path.suffix in (".parquet", ".csv") and path.stem in readers()]
    twice = [b for a, b in pairwise(found) if a.stem == b.stem]
    if twice:
        raise InputError(f"{twice[0]}: the table is there as .csv and as .parquet; accepted: one of them")
    return found


def groups(path: Path) -> Iterator[Group]:
    """The groups of one table. InputError for what cannot be read or cannot have been measured."""
    if path.stem not in readers():
        raise InputError(f"{path}: no table is named {path.stem[:40]!r}; accepted: {', '.join(sorted(readers()))}")
    try:
        fits(path)
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
        yield from (_checked(group, path) for group in readers()[path.stem](table))
    except KeyError as error:
        raise InputError(
            f"{path}: {str(error)[:200]} is no column or word of it; accepted: those of the table's README"
        ) from error
    except (ValueError, TypeError, AttributeError, ArithmeticError, OSError) as error:
        raise InputError(f"{path}: {str(error)[:200]}; accepted: the columns of the table's README") from error


def _checked(group: Group, path: Path) -> Group:
    for name, values in {**group.arguments, "measured": group.measured}.items():
        if isinstance(values, str):
            continue
        low = 0.0 if name in _MAY_BE_ZERO else np.nextafter(0.0, 1.0)
        found = np.asarray(values, dtype=float)
        good = (found >= low) & ((found <= _LARGEST) | (np.isposinf(found) & (name in _MAY_BE_ENDLESS)))
        if not good.all():
            wrong = f"{name} {found[~good].flat[0]:g} of {group.device[:40]}"
            raise InputError(f"{path}: {wrong}; accepted: a number {'of 0' if low == 0.0 else 'above 0'} to {_LARGEST:g}")
    return group
