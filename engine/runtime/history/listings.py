"""Lists of the history, newest first, a page at a time.

A page goes on after the last row of the one before by that row's own key,
which never changes: what is added meanwhile neither repeats nor hides a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

DAY_MS = 86_400_000
_SPANS = (2, 16)
"""Days; a page of 4.5 million rows of 30 days took 18 ms from one of them, 320 ms from all."""
UNTIL_MAX = 10_413_791_999_999
"""The last millisecond that a DateTime64(3) holds."""
Type = Literal["String", "UInt32", "UInt64"]


@dataclass(frozen=True, slots=True)
class Listing:
    """What is listed: its table, the time it is ordered by, what tells rows of one time apart."""

    table: str
    time: str
    key: Mapping[str, Type]
    """Columns after the time that make the order total, and their types."""
    columns: tuple[str, ...]
    filters: tuple[str, ...]
    """Columns that may be asked for by value; all are text."""


DELIVERIES = Listing(
    "deliveries",
    "accepted_at",
    {"delivery_id": "String"},
    (
        *("tenant", "endpoint_id", "message_id", "delivery_id", "event_type", "status", "reason"),
        *("error_class", "status_code", "attempts", "accepted_at", "updated_at", "next_attempt_at", "origin"),
        *("topic_partition", "topic_offset"),
    ),
    ("tenant", "endpoint_id", "status", "event_type", "message_id"),
)
FAILED = replace(DELIVERIES, time="updated_at")
"""The same by when they came to be as they are: for those that ended, when they ended."""
MESSAGES = Listing(
    "messages",
    "accepted_at",
    {"topic_partition": "UInt32", "topic_offset": "UInt64"},
    (
        *("tenant", "message_id", "event_type", "accepted_at", "bytes", "matched", "skipped"),
        *("topic_partition", "topic_offset"),
    ),
    ("tenant", "event_type"),
)
CHANGES = Listing(
    "changes",
    "at",
    {"log_partition": "UInt32", "log_offset": "UInt64"},
    (
        *("tenant", "subject", "subject_id", "change", "actor", "at", "command_id", "details"),
        *("log_partition", "log_offset"),
    ),
    ("tenant", "subject", "subject_id", "change", "actor"),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which rows: columns by value, and times from `since` to before `until`, milliseconds."""

    values: Mapping[str, str]
    since: int = 0
    until: int = UNTIL_MAX


Key = Sequence[int | str]
"""Of a row: its time (milliseconds), then the values of the listing's key."""


def spans(asked: Asked, after: Key | None) -> Iterator[Asked]:
    """The newest days first, in the end all that was asked for: most pages are found in the first span."""
    top = asked.until if after is None else min(asked.until, int(after[0]) + 1)
    for days in _SPANS:
        if (since := top - days * DAY_MS) > asked.since:
            yield replace(asked, since=since)
    yield asked


def page_query(
    listing: Listing, asked: Asked, after: Key | None, limit: int
) -> tuple[str, dict[str, object]]:
    """(SQL, parameters) of a page; the text is made of names in this file, never of what was given."""
    if unknown := set(asked.values) - set(listing.filters):
        raise ValueError(f"{listing.table} cannot be listed by {', '.join(sorted(unknown))}")
    conditions = [f"{name} = {{{name}:String}}" for name in listing.filters if name in asked.values]
    conditions += [f"{listing.time} >= {_time('since')}", f"{listing.time} < {_time('until')}"]
    parameters: dict[str, object] = {**asked.values, "since": asked.since, "until": asked.until}
    if after is not None:
        names = [f"after_{column}" for column in listing.key]
        keys = [f"{{after_{column}:{kind}}}" for column, kind in listing.key.items()]
        # the first condition says nothing new; it is what ClickHouse leaves parts unread by
        conditions.append(f"{listing.time} <= {_time('after')}")
        conditions.append(f"({_order(listing, '')}) < ({', '.join((_time('after'), *keys))})")
        parameters |= dict(zip(("after", *names), after, strict=True))
    sql = (
        f"SELECT {', '.join(listing.columns)} FROM {listing.table} FINAL WHERE {' AND '.join(conditions)}"  # noqa: S608
        f" ORDER BY {_order(listing, ' DESC')} LIMIT {{limit:UInt32}}"
    )
    return sql, {**parameters, "limit": limit}


def _time(name: str) -> str:
    return f"fromUnixTimestamp64Milli({{{name}:Int64}}, 'UTC')"


def _order(listing: Listing, direction: str) -> str:
    return ", ".join(f"{column}{direction}" for column in (listing.time, *listing.key))
