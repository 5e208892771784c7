"""A profile's TOML table, read with rules, so that what is wrong in it is named by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from engine.core.duration import parse_duration

T = TypeVar("T")
C = TypeVar("C", bound=str)

DURATION_MAX_US = 30 * 86_400 * 1_000_000
"""Longest duration in a profile: 30 days, microseconds."""
_KINDS: Mapping[type, str] = {str: "a text", bool: "true or false", list: "a list", dict: "a table"}


class ProfileError(ValueError):
    """A profile is wrong; the message names the field and the rule."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table and the path to it; every reader raises ProfileError naming the field."""

    values: Mapping[str, object]
    path: str = ""

    def where(self, key: str) -> str:
        """The field's full name."""
        return f"{self.path}.{key}" if self.path else key

    def wrong(self, key: str, rule: str) -> ProfileError:
        """The error to raise about a field."""
        return ProfileError(f"{self.where(key)}: {rule}")

    def only(self, *keys: str) -> None:
        """Refuse fields that are not among `keys`."""
        for key in self.values:
            if key not in keys:
                raise self.wrong(key, f"is no field; there are {', '.join(keys)}")

    def text(self, key: str) -> str:
        """A field that holds a text."""
        return self._expect(key, str)

    def flag(self, key: str) -> bool:
        """A field that is true or false."""
        return self._expect(key, bool)

    def table(self, key: str) -> Table:
        """A field that is a table."""
        return Table(self._expect(key, dict), self.where(key))

    def optional_table(self, key: str) -> Table:
        """A table that may be left out, which is the same as empty."""
        return self.table(key) if key in self.values else Table({}, self.where(key))

    def texts(self, key: str) -> tuple[str, ...]:
        """A field that is a list of texts."""
        items = self._expect(key, list)
        texts = tuple(item for item in items if isinstance(item, str))
        if len(texts) < len(items):
            raise self.wrong(key, "must be a list of texts")
        return texts

    def choice(self, key: str, options: tuple[C, ...]) -> C:
        """A field that is one of `options`."""
        value = self.text(key)
        for option in options:
            if option == value:
                return option
        raise self.wrong(key, f"must be one of {', '.join(options)}")

    def status_codes(self, key: str) -> frozenset[int] | None:
        """Either "2xx", which is None, or a list of codes from it."""
        if key not in self.values:
            raise self.wrong(key, "is missing")
        value = self.values[key]
        if value == "2xx":
            return None
        items = value if isinstance(value, list) else []
        codes = frozenset(code for code in items if isinstance(code, int) and 200 <= code <= 299)
        if not codes or len(codes) != len(items):
            raise self.wrong(key, 'must be "2xx" or a list of different status codes from 200 to 299')
        return codes

    def duration(self, key: str) -> int:
        """A field such as "30s", in microseconds."""
        return self._microseconds(key, self.text(key))

    def durations(self, key: str) -> tuple[int, ...]:
        """A list of durations, each longer than zero, in microseconds."""
        durations = tuple(self._microseconds(key, text) for text in self.texts(key))
        if 0 in durations:
            raise self.wrong(key, "each must be longer than 0")
        return durations

    def _microseconds(self, key: str, text: str) -> int:
        try:
            duration = parse_duration(text)
        except ValueError as error:
            raise self.wrong(key, str(error)) from None
        if duration > DURATION_MAX_US:
            raise self.wrong(key, f"{text!r} is longer than 30d")
        return duration

    def _expect(self, key: str, kind: type[T]) -> T:
        if key not in self.values:
            raise self.wrong(key, "is missing")
        value = self.values[key]
        if not isinstance(value, kind):
            raise self.wrong(key, f"must be {_KINDS[kind]}")
        return value
