"""What the history knows of an endpoint's health. Test sends do not count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from engine.runtime.history.clickhouse import History, Row
from engine.runtime.history.listings import DAY_MS

_LOOK_BACK_MS = 30 * DAY_MS
"""The last success and failure are looked for so far back."""
_OF = "tenant = {tenant:String} AND endpoint_id = {endpoint:String}"
_SINCE = "fromUnixTimestamp64Milli({since:Int64}, 'UTC')"
_LOOK_BACK = "accepted_at >= fromUnixTimestamp64Milli({back:Int64}, 'UTC')"
_ATTEMPTS = f"""
SELECT countIf(attempted_at >= {_SINCE}) AS attempts,
       countIf(attempted_at >= {_SINCE} AND outcome = 'success') AS successes,
       quantilesIf(0.5, 0.95, 0.99)(duration_ms, attempted_at >= {_SINCE}) AS durations,
       maxOrNullIf(attempted_at, outcome = 'success') AS last_success_at,
       maxOrNullIf(attempted_at, outcome = 'failure') AS last_failure_at
FROM attempts FINAL WHERE {_OF} AND {_LOOK_BACK} AND trigger != 'test'
"""  # noqa: S608  names of this file
_ERRORS = f"""
SELECT error_class, argMax(status_code, attempted_at) AS status_code,
       argMax(request_bytes, attempted_at) AS request_bytes, count() AS count, max(attempted_at) AS last_at
FROM attempts FINAL
WHERE {_OF} AND {_LOOK_BACK} AND trigger != 'test' AND outcome = 'failure' AND attempted_at >= {_SINCE}
GROUP BY error_class ORDER BY count DESC, error_class
"""  # noqa: S608
_BACKLOG = f"""
SELECT countIf(status = 'pending') AS pending, minOrNullIf(accepted_at, status = 'pending') AS oldest,
       countIf(accepted_at >= {_SINCE}) AS matched
FROM deliveries FINAL WHERE {_OF} AND {_LOOK_BACK}
"""  # noqa: S608
_PUBLISHED = f"""
SELECT count() AS published FROM messages FINAL WHERE tenant = {{tenant:String}} AND accepted_at >= {_SINCE}
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Told:
    """What the history says of an endpoint since some time."""

    attempts: int
    successes: int
    durations_ms: tuple[float, float, float]
    """p50, p95, p99; without attempts they mean nothing."""
    last_success_at: datetime | None
    last_failure_at: datetime | None
    errors: list[Row]
    """By error class: status_code, request_bytes and last_at of the last one, and the count."""
    pending: int
    oldest: datetime | None
    """When the oldest message was accepted whose delivery is pending."""
    matched: int
    """Messages accepted in that time that its subscription matched."""
    published: int
    """Messages of its tenant, likewise."""


def told_of(history: History, tenant: str, endpoint_id: str, since_ms: int, now_ms: int) -> Told:
    """Ask; UnavailableError if ClickHouse is away."""
    back = min(since_ms, now_ms - _LOOK_BACK_MS)
    asked = {"tenant": tenant, "endpoint": endpoint_id, "since": since_ms, "back": back}
    attempts, backlog = _one(history, _ATTEMPTS, asked), _one(history, _BACKLOG, asked)
    p50, p95, p99 = cast("list[float]", attempts["durations"])
    return Told(
        attempts=_count(attempts, "attempts"),
        successes=_count(attempts, "successes"),
        durations_ms=(p50, p95, p99),
        last_success_at=cast("datetime | None", attempts["last_success_at"]),
        last_failure_at=cast("datetime | None", attempts["last_failure_at"]),
        errors=history.rows(_ERRORS, asked),
        pending=_count(backlog, "pending"),
        oldest=cast("datetime | None", backlog["oldest"]),
        matched=_count(backlog, "matched"),
        published=_count(_one(history, _PUBLISHED, asked), "published"),
    )


def _one(history: History, sql: str, asked: Mapping[str, object]) -> Row:
    return history.rows(sql, asked)[0]


def _count(row: Row, name: str) -> int:
    return int(str(row[name]))
