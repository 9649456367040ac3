"""Fields: a config.json as typed, checked look-ups. Every refusal names file, field, value and what is accepted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwsim.errors import InputError

MAX_SIZE = 10_000_000


class Fields:
    """A mapping whose values are looked up under any of several names; null counts as absent, `read` remembers the names used."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self.raw, self.where = raw, where
        self.read: set[str] = set()

    def get(self, *names: str) -> Any:
        """The first value that is present under one of `names`, or None."""
        self.read.update(names)
        return next((self.raw[name] for name in names if self.raw.get(name) is not None), None)

    def whole(self, *names: str, default: int | None = None, least: int = 1, most: int = MAX_SIZE) -> int:
        """A whole number from `least` to `most`. InputError when it is missing and has no default."""
        value = self.get(*names)
        if value is None and default is not None:
            return default
        if value is None:
            raise self.error(
                names[0], None, f"the config.json of a decoder or encoder transformer, which has {' or '.join(names)}"
            )
        return self._checked(value, self._name(names), least, most)

    def optional(self, *names: str, least: int = 0, most: int = MAX_SIZE) -> int | None:
        """A whole number, or None where it is absent."""
        return None if self.get(*names) is None else self.whole(*names, least=least, most=most)

    def per_layer(self, *names: str, layers: int, default: int, least: int = 0) -> list[int]:
        """One whole number per layer: a list in the config, or one number for all of them."""
        value = self.get(*names)
        if not isinstance(value, list):
            return [self.whole(*names, default=default, least=least)] * layers
        if len(value) != layers:
            raise self.error(self._name(names), f"{len(value)} entries", f"one for each of the {layers} layers")
        return [self._checked(entry, self._name(names), least, MAX_SIZE) for entry in value]

    def indices(self, *names: str) -> list[int] | None:
        """A list of layer numbers, also as "4,5,6"; None where it is absent."""
        value = self.get(*names)
        if isinstance(value, str):
            value = [int(part) if part.strip().isdecimal() else part for part in value.split(",") if part.strip()]
        if value is not None and not isinstance(value, list):
            raise self.error(self._name(names), value, "a list of layer numbers")
        return None if value is None else [self._checked(entry, self._name(names), 0, MAX_SIZE) for entry in value]

    def flag(self, *names: str, default: bool = False) -> bool:
        """True or false."""
        value = self.get(*names)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(self._name(names), value, "true or false")
        return value

    def text(self, *names: str, default: str = "") -> str:
        """A word."""
        value = self.get(*names)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.error(self._name(names), value, "a word")
        return value

    def error(self, name: str, value: object, accepted: str) -> InputError:
        """The refusal of one field, in one line."""
        shown = "missing" if value is None else repr(value)[:60]
        return InputError(f"{self.where}: {name}: {shown}; accepted: {accepted}")

    def _checked(self, value: object, name: str, least: int, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or not least <= value <= most:
            raise self.error(name, value, f"a whole number from {least} to {most}")
        return int(value)

    def _name(self, names: tuple[str, ...]) -> str:
        return next((name for name in names if self.raw.get(name) is not None), names[0])
