"""What the history knows of an endpoint's health. Test sends do not count.

The rollups do not tell test sends from others, and their percentiles are rounded, so they do not
answer: they say how far back the attempts that do must be read, of 30 days mostly one or two.
"""

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
# A key holds the day that its partition is made of, so no row has another version elsewhere.
_SETTINGS = "SETTINGS do_not_merge_across_partitions_select_final = 1"
_HOURS = f"""
SELECT minOrNullIf(accepted, hour >= toStartOfHour({_SINCE})) AS window_from,
       argMaxOrNullIf(accepted, hour, outcome = 'success') AS success_from,
       maxOrNullIf(hour, outcome = 'success') AS success_hour,
       argMaxOrNullIf(accepted, hour, outcome = 'failure') AS failure_from,
       maxOrNullIf(hour, outcome = 'failure') AS failure_hour
FROM (
    SELECT outcome, hour, min(accepted_hour) AS accepted FROM health_1h FINAL
    WHERE {_OF} AND accepted_hour >= toStartOfHour(fromUnixTimestamp64Milli({{back:Int64}}, 'UTC'))
    GROUP BY outcome, hour
) {_SETTINGS}
"""  # noqa: S608  names of this file
_ATTEMPTS = f"""
SELECT countIf(attempted_at >= {_SINCE}) AS attempts,
       countIf(attempted_at >= {_SINCE} AND outcome = 'success') AS successes,
       quantilesIf(0.5, 0.95, 0.99)(duration_ms, attempted_at >= {_SINCE}) AS durations,
       maxOrNullIf(attempted_at, outcome = 'success') AS last_success_at,
       maxOrNullIf(attempted_at, outcome = 'failure') AS last_failure_at
FROM attempts FINAL WHERE {_OF} AND {_LOOK_BACK} AND trigger != 'test' {_SETTINGS}
"""  # noqa: S608
_ERRORS = f"""
SELECT error_class, argMax(status_code, attempted_at) AS status_code,
       argMax(request_bytes, attempted_at) AS request_bytes, count() AS count, max(attempted_at) AS last_at
FROM attempts FINAL
WHERE {_OF} AND {_LOOK_BACK} AND trigger != 'test' AND outcome = 'failure' AND attempted_at >= {_SINCE}
GROUP BY error_class ORDER BY count DESC, error_class {_SETTINGS}
"""  # noqa: S608
_BACKLOG = f"""
SELECT countIf(status = 'pending') AS pending, minOrNullIf(accepted_at, status = 'pending') AS oldest,
       countIf(accepted_at >= {_SINCE}) AS matched
FROM deliveries FINAL WHERE {_OF} AND {_LOOK_BACK} {_SETTINGS}
"""  # noqa: S608
_PUBLISHED = f"""
SELECT count() AS published FROM messages FINAL
WHERE tenant = {{tenant:String}} AND accepted_at >= {_SINCE} {_SETTINGS}
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
    (attempts, errors), backlog = _attempts(history, asked), _one(history, _BACKLOG, asked)
    p50, p95, p99 = cast("list[float]", attempts["durations"])
    return Told(
        attempts=_count(attempts, "attempts"),
        successes=_count(attempts, "successes"),
        durations_ms=(p50, p95, p99),
        last_success_at=cast("datetime | None", attempts["last_success_at"]),
        last_failure_at=cast("datetime | None", attempts["last_failure_at"]),
        errors=errors,
        pending=_count(backlog, "pending"),
        oldest=cast("datetime | None", backlog["oldest"]),
        matched=_count(backlog, "matched"),
        published=_count(_one(history, _PUBLISHED, asked), "published"),
    )


def _attempts(history: History, asked: Mapping[str, object]) -> tuple[Row, list[Row]]:
    """What the attempts say, and the errors; read from where the rollups say that the answer begins."""
    if asked["since"] == asked["back"]:
        return _one(history, _ATTEMPTS, asked), history.rows(_ERRORS, asked)
    hours = _one(history, _HOURS, asked)
    lately = {**asked, "back": _start(hours, asked)}
    attempts = _one(history, _ATTEMPTS, lately)
    if not (_has_last(attempts, hours, "success") and _has_last(attempts, hours, "failure")):
        attempts = _one(history, _ATTEMPTS, asked)  # the last ones were test sends
    return attempts, history.rows(_ERRORS, lately)


def _start(hours: Row, asked: Mapping[str, object]) -> int:
    """When the oldest message of the window's attempts, or of the last ones, was accepted; milliseconds.

    As long ago as may be while the rollups know nothing.
    """
    starts = (hours["window_from"], hours["success_from"], hours["failure_from"])
    known = [int(at.timestamp() * 1000) for at in starts if isinstance(at, datetime)]
    back, since = int(str(asked["back"])), int(str(asked["since"]))
    return max(back, min(since, *known)) if known else back


def _has_last(attempts: Row, hours: Row, outcome: str) -> bool:
    """Whether the last one was found: in the hour of the rollups' last one, or after that."""
    last, hour = attempts[f"last_{outcome}_at"], hours[f"{outcome}_hour"]
    return not isinstance(hour, datetime) or (isinstance(last, datetime) and last >= hour)


def _one(history: History, sql: str, asked: Mapping[str, object]) -> Row:
    return history.rows(sql, asked)[0]


def _count(row: Row, name: str) -> int:
    return int(str(row[name]))
