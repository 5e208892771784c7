"""Lists of the configuration in pages: `limit` and `cursor` in, `{"data": […], "next": …}` out."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from typing import Annotated, NamedTuple, TypeVar

from fastapi import Query

from engine.api.problems import FieldError, wrong

T = TypeVar("T")
_CURSOR_MAX = 1_000
_DIGITS_MAX = 20

Limit = Annotated[int, Query(ge=1, le=500, description="Rows at most.")]
Cursor = Annotated[str | None, Query(description="`next` of the page before.")]


class Place(NamedTuple):
    """Where a row stands in a list: rows are ordered by it, and no two have the same."""

    at: int
    id: str


_START = Place(-1, "")


def page(
    rows: Iterable[T], place: Callable[[T], Place], limit: int, cursor: str | None
) -> tuple[list[T], str | None]:
    """(the rows after the cursor, the next cursor); Problem 422."""
    after = _read(cursor)
    placed = ((place(row), row) for row in rows)
    found = sorted((each for each in placed if each[0] > after), key=lambda each: each[0])
    chosen = found[:limit]
    return [row for _, row in chosen], _write(chosen[-1][0]) if len(found) > limit else None


def _write(place: Place) -> str:
    """Say where a page ended, in characters that need no quoting in a URL."""
    return urlsafe_b64encode(f"{place.at}.{place.id}".encode()).decode().rstrip("=")


def _read(cursor: str | None) -> Place:
    if cursor is None:
        return _START
    try:
        text = urlsafe_b64decode(cursor[:_CURSOR_MAX].encode("ascii") + b"==").decode()
        at, _, id = text.partition(".")
        place = Place(int(at[:_DIGITS_MAX]), id)
        if _write(place) != cursor:
            raise ValueError
    except ValueError:
        raise wrong(FieldError("cursor", "is none that was given out: begin without")) from None
    return place
