"""Times as people give them: RFC 3339, or a duration back from now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from engine.cli.errors import CommandError
from engine.core.duration import parse_duration

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_of(text: str, option: str, now: int) -> int:
    """`2026-05-01T12:00:00Z`, or `2h` for two hours before `now` -> microseconds; CommandError otherwise."""
    if text[-1:].isalpha() and text[:1].isdigit() and "-" not in text:
        try:
            return now - parse_duration(text)
        except ValueError as error:
            raise CommandError(f"{option}: {error}") from None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(
            f"{option}: {text!r} is no time: write RFC 3339 such as 2026-05-01T12:00:00Z,"
            " or a duration back from now such as 2h"
        ) from None
    if at.tzinfo is None:
        raise CommandError(
            f"{option}: {text!r} says no time zone: end it with Z, or with +02:00 and the like"
        )
    return (at - _EPOCH) // timedelta(microseconds=1)


def duration_of(text: str, option: str) -> int:
    """`30s` -> microseconds; CommandError if it is none."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise CommandError(f"{option}: {error}") from None
