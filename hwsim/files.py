"""Reading files that may come from a stranger: size, depth and node limits first, then safe parsing, one-line errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hwsim.errors import InputError

MAX_BYTES = 2 * 1024**2
MAX_DEPTH = 40
MAX_NODES = 200_000


def read_text(path: Path) -> str:
    """The text of a regular file of at most MAX_BYTES; InputError otherwise."""
    if not path.exists():
        raise InputError(f"{path}: no such file; accepted: a .yaml or .json file")
    if not path.is_file():
        raise InputError(f"{path}: not a regular file; accepted: a .yaml or .json file")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: {path.stat().st_size / 1024**2:.1f} MiB; accepted: at most {MAX_BYTES // 1024**2} MiB")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); accepted: a .yaml or .json file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def read_yaml(path: Path) -> Any:
    """Plain data from YAML: no tags, no aliases, no duplicate keys, bounded depth and size."""
    text = read_text(path)
    try:
        _check_events(path, text)
        return yaml.load(text, Loader=_PlainLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {_one_line(error)}") from error
    except (ValueError, TypeError, RecursionError) as error:  # a date that is none, a list as a key
        raise InputError(f"{path}: {_one_line(error)}") from error


def read_json(path: Path) -> Any:
    """Plain data from JSON: finite numbers, bounded depth and size."""
    text = read_text(path)
    try:
        data = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON: {error.msg} (line {error.lineno})") from error
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply; accepted: at most {MAX_DEPTH} levels") from error
    except ValueError as error:  # a number of thousands of digits, or a constant that is not finite
        raise InputError(f"{path}: {_one_line(error)}; accepted: plain JSON with finite numbers") from error
    _check_depth(path, data)
    return data


def read_mapping(path: Path) -> Mapping[str, Any]:
    """A YAML or JSON file whose top level is a mapping."""
    data = read_json(path) if path.suffix == ".json" else read_yaml(path)
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise InputError(f"{path}: holds a {type(data).__name__}; accepted: a mapping of names to values")
    return data


class _PlainLoader(yaml.CSafeLoader):
    """CSafeLoader that refuses duplicate keys, which YAML forbids and PyYAML silently overwrites."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key.value, str):
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value!r}", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _check_events(path: Path, text: str) -> None:
    """Walk the parse events, which costs no memory, before anything is built from them."""
    depth = 0
    for nodes, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            raise InputError(f"{path}: {_line(event)}: aliases (*{event.anchor}) are not accepted")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise InputError(f"{path}: {_line(event)}: tag {tag[:60]!r} is not accepted; plain values only")
        if depth > MAX_DEPTH:
            raise InputError(f"{path}: {_line(event)}: nested deeper than {MAX_DEPTH} levels")
        if nodes > MAX_NODES:
            raise InputError(f"{path}: more than {MAX_NODES} values")


def _line(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1}" if event.start_mark else "somewhere"


def _check_depth(path: Path, data: Any) -> None:
    level = [data]
    for _ in range(MAX_DEPTH + 1):
        level = [child for item in level if isinstance(item, dict | list) for child in _children(item)]
        if not level:
            return
    raise InputError(f"{path}: nested deeper than {MAX_DEPTH} levels")


def _children(item: dict[str, Any] | list[Any]) -> list[Any]:
    return list(item.values()) if isinstance(item, dict) else item


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"duplicate key {twice!r}")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that JSON has")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def write_text(path: Path, text: str) -> None:
    """Write a whole UTF-8 file or nothing, as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: to a temporary name beside it, then rename. A link is followed, a device is left alone."""
    import os
    import tempfile

    path = path.resolve()
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is {'a folder' if path.is_dir() else 'not a regular file'}; accepted: a file name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException as error:  # also when somebody interrupts
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
        raise
