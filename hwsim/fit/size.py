"""How big a measured table may be, found out before it is read: a few kilobytes of Parquet can stand for any number of rows."""

from __future__ import annotations

from pathlib import Path

from hwsim.errors import InputError

MAX_BYTES = 1 << 30
MAX_HEADER = 1 << 16
MAX_ROWS = 20_000_000
MAX_CELLS = 200_000_000


def fits(path: Path) -> None:
    """InputError for what is no regular file, or has more bytes, rows or cells than a table may have."""
    if not path.is_file():
        raise InputError(f"{path}: not a file; accepted: a table of measured rows (.parquet, .csv)")
    _at_most(path, path.stat().st_size, MAX_BYTES, "bytes")
    rows, columns = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    _at_most(path, rows, MAX_ROWS, "rows")
    _at_most(path, rows * columns, MAX_CELLS, "cells")


def _at_most(path: Path, found: int, most: int, what: str) -> None:
    if found > most:
        raise InputError(f"{path}: {found:,} {what}; accepted: at most {most:,}")


def _parquet(path: Path) -> tuple[int, int]:
    """Rows and columns by the file's own metadata, which also say how many bytes it unpacks to."""
    from pyarrow.parquet import read_metadata

    about = read_metadata(path)
    groups = [about.row_group(index) for index in range(about.num_row_groups)]
    _at_most(path, sum(group.total_byte_size for group in groups), MAX_BYTES, "bytes unpacked")
    return max(about.num_rows, sum(group.num_rows for group in groups)), about.num_columns


def _csv(path: Path) -> tuple[int, int]:
    """Lines, of which a carriage return makes more, and the columns of the widest one, which all rows may get."""
    rows = columns = 0
    with path.open("rb") as file:
        if len(file.readline(MAX_HEADER)) == MAX_HEADER:
            raise InputError(f"{path}: line 1 is longer than {MAX_HEADER} bytes; accepted: the columns of the table's README")
        file.seek(0)
        for line in file:
            rows += 1 + line.rstrip(b"\r\n").count(b"\r")
            columns = max(columns, 1 + line.count(b","))
    return rows, columns
