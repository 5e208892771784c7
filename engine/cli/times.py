"""Times as people give them: RFC 3339, or a duration from now, back or ahead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from engine.cli.errors import CommandError
from engine.core.duration import parse_duration

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def time_of(text: str, option: str, now: int) -> int:
    """`2026-05-01T12:00:00Z`, or `2h` for two hours before `now` -> microseconds; CommandError otherwise."""
    if _is_duration(text):
        return now - duration_of(text, option)
    return _moment(text, option, "back from now such as 2h")


def time_ahead(text: str, option: str, now: int) -> int:
    """The same for what is to come: `30d` is 30 days after `now`."""
    if _is_duration(text):
        return now + duration_of(text, option)
    return _moment(text, option, "from now on such as 30d")


def _is_duration(text: str) -> bool:
    return text[-1:].isalpha() and text[:1].isdigit() and "-" not in text


def _moment(text: str, option: str, else_a_duration: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(
            f"{option}: {text!r} is no time: write RFC 3339 such as 2026-05-01T12:00:00Z,"
            f" or a duration {else_a_duration}"
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
