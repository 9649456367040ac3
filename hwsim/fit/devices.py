"""Which device a measured table means: by the name it writes, of arch/ or of a folder of one's own that is searched first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from hwsim.catalogue import known_device, load_device
from hwsim.device import Device
from hwsim.errors import InputError
from hwsim.files import read_mapping


def finder(folder: Path | None = None) -> Callable[[str], Device | None]:
    """Name or alias -> device, None for one that is not known. InputError for a device file that cannot be read."""
    own = _own(folder) if folder else {}

    @cache
    def found(name: str) -> Device | None:
        path = own.get(name.lower())
        return load_device(path) if path else known_device(name)

    return found


def _own(folder: Path) -> Mapping[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; accepted: a folder of device files (.yaml)")
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.yaml")):
        for name in (path.stem, *_aliases(read_mapping(path).get("aliases"))):
            other = found.setdefault(name.lower(), path)
            if other != path:
                raise InputError(f"{path}: {name[:80]!r} is a name of {other} too; accepted: names that no other device has")
    return found


def _aliases(raw: object) -> tuple[str, ...]:
    return tuple(map(str, raw)) if isinstance(raw, list) else ()
