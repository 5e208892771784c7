"""Lists of the history, newest first, a page at a time.

A page goes on after the last row of the one before by that row's own key,
which never changes: what is added meanwhile neither repeats nor hides a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

DAY_MS = 86_400_000
_SPARE = 100
"""Candidates beyond a page: unmerged rows that say failed and are none, by a copy of an attempt's record."""
_ENDS = frozenset({"delivered", "failed"})
"""States that hardly a delivery leaves: of those that were once in one, a few more than a page are enough."""
_ACCEPTED = "accepted_at"
_FIRST_DAYS = 2
"""A page of 4.5 million rows of 30 days took 18 ms from these, 320 ms from all."""
_MANY_MS = 20 * DAY_MS
"""Who has to look so far back looks at all: history is mostly kept for 30 days."""
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
    state: str = ""
    """The only column that may be asked for by value and changes: then rows are not merged, but the highest
    version of each is found among those that the other columns leave."""
    rare: tuple[str, ...] = ()
    """Those of few rows each, which have an index and never change."""
    order: tuple[str, ...] = ()
    """What the table is ordered by, where there is a rare filter or a state."""

    @property
    def time_changes(self) -> bool:
        """Whether it is ordered by when its state came to be: then it is listed by state only."""
        return bool(self.state) and self.time not in self.order


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
    rare=("message_id",),
    order=("tenant", "endpoint_id", "accepted_at", "delivery_id"),
    state="status",
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


def newest(listing: Listing, asked: Asked, after: Key | None) -> Asked:
    """The newest days of what was asked for, where most pages are found; all of it if an index finds it."""
    if _is_indexed(listing, asked):
        return asked
    return _back(asked, after, _FIRST_DAYS * DAY_MS)


def wider(asked: Asked, span: Asked, after: Key | None, share: float) -> Asked:
    """What to look at next, a span having had that share of a page, below 1: in the end all."""
    looked_back = _top(asked, after) - span.since
    if share == 0 or looked_back > _FIRST_DAYS * DAY_MS:
        return asked
    return _back(asked, after, int(looked_back * max(2, 1 / share)))


def _back(asked: Asked, after: Key | None, length_ms: int) -> Asked:
    """The last of what was asked for; all of it where little would be left out."""
    since = _top(asked, after) - length_ms
    return replace(asked, since=since) if asked.since < since and length_ms < _MANY_MS else asked


def _top(asked: Asked, after: Key | None) -> int:
    return asked.until if after is None else min(asked.until, int(after[0]) + 1)


def _is_indexed(listing: Listing, asked: Asked) -> bool:
    return not set(listing.rare).isdisjoint(asked.values)


def page_query(
    listing: Listing, asked: Asked, after: Key | None, limit: int
) -> tuple[str, dict[str, object]]:
    """(SQL, parameters) of a page; the text is made of names in this file, never of what was given."""
    if unknown := set(asked.values) - set(listing.filters):
        raise ValueError(f"{listing.table} cannot be listed by {', '.join(sorted(unknown))}")
    if listing.time_changes and listing.state not in asked.values:
        raise ValueError(f"{listing.table} by {listing.time} are listed by {listing.state} only")
    fixed = [_is(listing, name) for name in listing.filters if name in asked.values and name != listing.state]
    times, parameters = _times(listing, asked, after)
    parameters["limit"] = limit
    if listing.state and not _is_indexed(listing, asked):
        return _latest(listing, asked, fixed, times), parameters
    state = [_equals(listing.state)] if listing.state in asked.values else []
    sql = (
        f"SELECT {', '.join(listing.columns)} FROM {listing.table} FINAL"  # noqa: S608
        f" WHERE {' AND '.join([*fixed, *state, *times])}"
        f" ORDER BY {_order(listing, ' DESC')} LIMIT {{limit:UInt32}}"
    )
    return sql, parameters


def _times(listing: Listing, asked: Asked, after: Key | None) -> tuple[list[str], dict[str, object]]:
    """(conditions on when, and after which row; their parameters, and the values that were asked for)."""
    conditions = [f"{listing.time} >= {_time('since')}", f"{listing.time} < {_time('until')}"]
    parameters: dict[str, object] = {**asked.values, "since": asked.since, "until": asked.until}
    if after is not None:
        names = [f"after_{column}" for column in listing.key]
        keys = [f"{{after_{column}:{kind}}}" for column, kind in listing.key.items()]
        # the first condition says nothing new; it is what ClickHouse leaves parts unread by
        conditions.append(f"{listing.time} <= {_time('after')}")
        conditions.append(f"({_order(listing, '')}) < ({', '.join((_time('after'), *keys))})")
        parameters |= dict(zip(("after", *names), after, strict=True))
    return conditions, parameters


def _latest(listing: Listing, asked: Asked, fixed: Sequence[str], times: Sequence[str]) -> str:
    """SQL of a page without FINAL, which merges whatever the days hold and costs by their parts.

    A row in a state was once written in it: so only those are looked at that ever were. What finds them is
    when they were accepted, by which partitions and granules are left unread.
    """
    order, columns, table = _order(listing, " DESC"), ", ".join(listing.columns), listing.table
    when = "" if listing.time_changes else f"{order}, "
    latest = f"ORDER BY {when}version DESC LIMIT 1 BY {', '.join(listing.order)}"
    before = " AND ".join([*fixed, *([] if listing.time_changes else times)]) or "1"
    if listing.state not in asked.values:
        return f"SELECT {columns} FROM {table} PREWHERE {before} {latest} LIMIT {{limit:UInt32}}"  # noqa: S608
    state = _equals(listing.state)
    wanted = " AND ".join([state, *times])
    key = ", ".join((_ACCEPTED, *listing.key))
    few = f" ORDER BY {order} LIMIT 1 BY {key} LIMIT {{limit:UInt32}} + {_SPARE}"
    candidates = (
        f"SELECT {key} FROM {table} PREWHERE {' AND '.join([*fixed, *times, state])}"  # noqa: S608
        f"{few if asked.values[listing.state] in _ENDS else ''}"
    )
    return (
        f"SELECT {columns} FROM (SELECT {columns}, version FROM {table}"  # noqa: S608
        f" PREWHERE {before} AND ({key}) IN ({candidates}) {latest})"
        f" WHERE {wanted} ORDER BY {order} LIMIT {{limit:UInt32}}"
    )


def _is(listing: Listing, name: str) -> str:
    """A filter by value; a rare one by its index, which FINAL alone does not use."""
    condition = _equals(name)
    return among(listing.table, listing.order, condition) if name in listing.rare else condition


def _equals(name: str) -> str:
    return f"{name} = {{{name}:String}}"


def among(table: str, order: tuple[str, ...], condition: str) -> str:
    """Whether a row is among those, merged or not, that a condition on what never changes of a row finds."""
    names = ", ".join(order)
    return f"({names}) IN (SELECT {names} FROM {table} WHERE {condition})"  # noqa: S608


def _time(name: str) -> str:
    return f"fromUnixTimestamp64Milli({{{name}:Int64}}, 'UTC')"


def _order(listing: Listing, direction: str) -> str:
    return ", ".join(f"{column}{direction}" for column in (listing.time, *listing.key))
