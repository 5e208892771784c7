"""Pages of the history: what may be asked for, and the cursor from one page to the next."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Annotated

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from engine.api.problems import FieldError, Problem, wrong
from engine.runtime.history.clickhouse import Row
from engine.runtime.history.listings import UNTIL_MAX, Asked, Key, Listing

LIMIT_MAX = 500
TEXT_MAX = 256
_CURSOR_MAX = 1_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_INTEGERS = {"Time": UNTIL_MAX + 1, "UInt32": 1 << 32, "UInt64": 1 << 64}


def milliseconds(value: object) -> int:
    """`2026-05-01T12:00:00Z` -> milliseconds since 1970, as far as the history can hold them; ValueError."""
    found = _RFC3339.fullmatch(value) if isinstance(value, str) else None
    try:
        if found is None:
            raise ValueError
        day, time, fraction, zone = found.groups()
        at = datetime.fromisoformat(f"{day}T{time}.{(fraction or '0')[:6]:0<6}{zone.upper()}")
    except ValueError:
        raise ValueError(
            "must be a time such as 2026-05-01T12:00:00Z (RFC 3339; a + in a URL is written %2B)"
        ) from None
    return min(max((at - _EPOCH) // _MS, 0), UNTIL_MAX)


Moment = Annotated[
    int, BeforeValidator(milliseconds), WithJsonSchema({"type": "string", "format": "date-time"})
]
Text = Annotated[str, Field(max_length=TEXT_MAX)]


class PageQuery(BaseModel):
    """What every list of the history may be asked for; a name that is none of these is refused."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    tenant: Text | None = None
    since: Moment = Field(0, description="From this time on.")
    until: Moment = Field(UNTIL_MAX, description="Before this time.")
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX)] = 50
    cursor: Annotated[str, Field(max_length=_CURSOR_MAX)] | None = None

    def asked(self, tenant: str | None, **values: str | None) -> Asked:
        """Of one tenant or of all, and by the values that were given; Problem 422 for times out of order."""
        if self.since > self.until:
            raise out_of_order()
        given = {"tenant": tenant, **values}
        return Asked({n: v for n, v in given.items() if v is not None}, self.since, self.until)


def out_of_order() -> Problem:
    """422: a range ends before it begins."""
    return wrong(FieldError("since", "must be before until"), FieldError("until", "must be later than since"))


@dataclass(frozen=True, slots=True)
class Page:
    """Rows to show, and the cursor of what comes after them."""

    rows: list[Row]
    next: str | None


def page_of(listing: Listing, asked: Asked, rows: list[Row], limit: int) -> Page:
    """`rows` has one more than the limit if there is another page."""
    if len(rows) <= limit:
        return Page(rows, None)
    return Page(rows[:limit], write_cursor(listing, asked, key_of(listing, rows[limit - 1])))


def key_of(listing: Listing, row: Row) -> Key:
    """What a row is found again by."""
    at = row[listing.time]
    assert isinstance(at, datetime)
    values = [row[column] for column in listing.key]
    return ((at - _EPOCH) // _MS, *(v if isinstance(v, int) else str(v) for v in values))


def write_cursor(listing: Listing, asked: Asked, key: Key) -> str:
    """Say which list it is of, and where it goes on."""
    return urlsafe_b64encode(orjson.dumps([_mark(listing, asked), *key])).decode().rstrip("=")


def read_cursor(listing: Listing, asked: Asked, cursor: str | None) -> Key | None:
    """Where to go on; Problem 422 for what was not given out with just this question."""
    if cursor is None:
        return None
    try:
        mark, *found = orjson.loads(urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
    except (ValueError, TypeError):
        raise _refused("is none that was given out: begin without") from None
    if mark != _mark(listing, asked):
        raise _refused("belongs to another list or other filters: ask as before, or begin without")
    types = ("Time", *listing.key.values())
    key = tuple(value for value in found if isinstance(value, (int, str)))
    if len(found) != len(types) or not all(map(_fits, types, found)):
        raise _refused("is none that was given out: begin without")
    return key


def _mark(listing: Listing, asked: Asked) -> str:
    question = [listing.table, sorted(asked.values.items()), asked.since, asked.until]
    return blake2b(orjson.dumps(question), digest_size=8).hexdigest()


def _fits(kind: str, value: object) -> bool:
    if kind == "String":
        return isinstance(value, str)
    return type(value) is int and 0 <= value < _INTEGERS[kind]


def _refused(rule: str) -> Exception:
    return wrong(FieldError("cursor", rule))


def details_of(row: Mapping[str, object]) -> object:
    """JSON that a column holds as text, as it is."""
    return orjson.Fragment(str(row["details"]))
