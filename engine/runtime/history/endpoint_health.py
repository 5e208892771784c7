"""What the history knows of an endpoint's health. Test sends do not count.

The rollups do not tell test sends from others, and their percentiles are rounded, so they do not
answer: they say from where on the window's attempts must be read, of 30 days mostly one or two, and
where the last success and the last failure are to be found if they are older.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import cast

from engine.runtime.history.clickhouse import History, Row
from engine.runtime.history.listings import DAY_MS

_LOOK_BACK_MS = 30 * DAY_MS
"""The last success and failure are looked for so far back."""
_HOUR_MS = 3_600_000
_SKEW_MS = _HOUR_MS
"""So much may the clock of the broker, which says when a message was accepted, be ahead of a dispatcher's."""
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
# Merging (FINAL) costs by the part, so it is done without: mostly no attempt has two rows that are not
# merged yet, and that is counted in the same go; else the highest version of each is found by hand.
_ROWS = f"""
SELECT outcome, error_class, duration_ms, attempted_at AS at, status_code AS code, request_bytes AS size,
       cityHash64(accepted_at, delivery_id, attempt) AS id
FROM attempts PREWHERE {_OF} AND {_LOOK_BACK} WHERE trigger != 'test'
"""  # noqa: S608
_LAST = f"""
SELECT last.1 AS outcome, last.2 AS error_class, last.3 AS duration_ms, last.4 AS at, last.5 AS code,
       last.6 AS size, 0 AS id
FROM (
    SELECT argMax(
        (outcome, error_class, duration_ms, attempted_at, status_code, request_bytes, trigger), version
    ) AS last
    FROM attempts PREWHERE {_OF} AND {_LOOK_BACK} GROUP BY accepted_at, delivery_id, attempt
)
WHERE last.7 != 'test'
"""  # noqa: S608


def _figures(source: str) -> str:
    """SQL of what attempts say, all of them and by class of error; `{since}` is the window's start."""
    return f"""
SELECT grouping(error_class) AS is_total, error_class, countIf(at >= {_SINCE}) AS attempts,
       countIf(at >= {_SINCE} AND outcome = 'success') AS successes,
       quantilesIf(0.5, 0.95, 0.99)(duration_ms, at >= {_SINCE}) AS durations,
       maxOrNullIf(at, outcome = 'success') AS last_success_at,
       maxOrNullIf(at, outcome = 'failure') AS last_failure_at,
       countIf(outcome = 'failure' AND at >= {_SINCE}) AS count, last_failure_at AS last_at,
       argMaxIf((code, size), at, outcome = 'failure') AS answered, count() > uniqExact(id) AS is_repeated
FROM ({source}) GROUP BY GROUPING SETS ((), (error_class)) ORDER BY count DESC, error_class
"""  # noqa: S608


_UNMERGED, _MERGED = _figures(_ROWS), _figures(_LAST)
_LAST_OF = f"""
SELECT maxOrNull(last.2) AS at FROM (
    SELECT argMax((outcome, attempted_at, trigger), version) AS last
    FROM attempts
    PREWHERE {_OF} AND {_LOOK_BACK} AND accepted_at < fromUnixTimestamp64Milli({{until:Int64}}, 'UTC')
    GROUP BY accepted_at, delivery_id, attempt
)
WHERE last.1 = {{outcome:String}} AND last.3 != 'test'
"""  # noqa: S608
_BACKLOG = f"""
SELECT count() AS pending, minOrNull(accepted_at) AS oldest FROM (
    SELECT accepted_at FROM deliveries PREWHERE {_OF} AND accepted_at IN (
        SELECT accepted_at FROM deliveries PREWHERE {_OF} AND {_LOOK_BACK} WHERE status = 'pending'
    )
    GROUP BY accepted_at, delivery_id HAVING argMax(status, version) = 'pending'
)
"""  # noqa: S608
_MATCHED = f"""
SELECT uniqExact(accepted_at, delivery_id) AS matched FROM deliveries
PREWHERE {_OF} AND accepted_at >= {_SINCE}
"""  # noqa: S608
_PUBLISHED = f"""
SELECT count() AS published FROM messages FINAL
WHERE tenant = {{tenant:String}} AND accepted_at >= {_SINCE} {_SETTINGS}
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Asked:
    """Of which endpoint, since when, and how far back attempts are read for it; milliseconds."""

    tenant: str
    endpoint: str
    since: int
    back: int


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
    """Messages accepted in that time that its subscription matched; 0, unasked, if attempts or pending ones
    tell that something arrives."""
    published: int
    """Messages of its tenant, likewise."""


def told_of(history: History, tenant: str, endpoint_id: str, since_ms: int, now_ms: int) -> Told:
    """Ask; UnavailableError if ClickHouse is away."""
    back = min(since_ms, now_ms - _LOOK_BACK_MS)
    asked = Asked(tenant, endpoint_id, since_ms, back)
    with ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(_one, history, _BACKLOG, asked)
        attempts, errors = _attempts(history, asked)
        backlog = waiting.result()
    p50, p95, p99 = cast("list[float]", attempts["durations"])
    made, pending = _count(attempts, "attempts"), _count(backlog, "pending")
    is_quiet = not made and not pending
    return Told(
        attempts=made,
        successes=_count(attempts, "successes"),
        durations_ms=(p50, p95, p99),
        last_success_at=cast("datetime | None", attempts["last_success_at"]),
        last_failure_at=cast("datetime | None", attempts["last_failure_at"]),
        errors=errors,
        pending=pending,
        oldest=cast("datetime | None", backlog["oldest"]),
        matched=_count(_one(history, _MATCHED, asked), "matched") if is_quiet else 0,
        published=_count(_one(history, _PUBLISHED, asked), "published") if is_quiet else 0,
    )


def _attempts(history: History, asked: Asked) -> tuple[Row, list[Row]]:
    """What the attempts say, and the errors; read from where the rollups say that the window begins."""
    if asked.since == asked.back:
        return _read(history, asked)
    hours = _one(history, _HOURS, asked)
    start = _start(hours, asked)
    attempts, errors = _read(history, replace(asked, back=start))
    for outcome in ("success", "failure"):
        if not _has_last(attempts, hours, outcome, start):
            attempts[f"last_{outcome}_at"] = _last_of(history, asked, hours, outcome)
    return attempts, errors


def _read(history: History, asked: Asked) -> tuple[Row, list[Row]]:
    """(all attempts together, by error class those that failed in the window)."""
    rows = history.rows(_UNMERGED, asdict(asked))
    if any(row["is_repeated"] for row in rows):
        rows = history.rows(_MERGED, asdict(asked))
    (attempts,) = (row for row in rows if row["is_total"])
    failed = (row for row in rows if not row["is_total"] and row["count"])
    return attempts, [_error(row) for row in failed]


def _error(row: Row) -> Row:
    status_code, request_bytes = cast("tuple[int, int]", row["answered"])
    return {**row, "status_code": status_code, "request_bytes": request_bytes}


def _last_of(history: History, asked: Asked, hours: Row, outcome: str) -> datetime | None:
    """When the last one was that is no test send: in the hour of the rollups' last one, or before that."""
    start, hour = hours[f"{outcome}_from"], hours[f"{outcome}_hour"]
    assert isinstance(start, datetime)
    assert isinstance(hour, datetime)
    until = _ms(hour) + _HOUR_MS + _SKEW_MS
    near = replace(asked, back=max(_ms(start), asked.back))
    found = _one(history, _LAST_OF, near, outcome=outcome, until=until)["at"]
    if not isinstance(found, datetime) or found < hour:  # the last ones were test sends
        found = _one(history, _LAST_OF, asked, outcome=outcome, until=until)["at"]
    return cast("datetime | None", found)


def _start(hours: Row, asked: Asked) -> int:
    """When the oldest message of the window's attempts was accepted; milliseconds.

    As long ago as may be while the rollups know nothing.
    """
    if hours["success_hour"] is None and hours["failure_hour"] is None:
        return asked.back
    start = hours["window_from"]
    return max(asked.back, min(asked.since, _ms(start))) if isinstance(start, datetime) else asked.since


def _has_last(attempts: Row, hours: Row, outcome: str, start: int) -> bool:
    """Whether the last one was found: after the hour of the rollups' last one, or that was read whole."""
    last = attempts[f"last_{outcome}_at"]
    hour, oldest = hours[f"{outcome}_hour"], hours[f"{outcome}_from"]
    if not isinstance(hour, datetime) or not isinstance(oldest, datetime):
        return True
    if not isinstance(last, datetime) or last < hour:
        return False
    return _ms(oldest) >= start or _ms(last) >= _ms(hour) + _HOUR_MS


def _one(history: History, sql: str, asked: Asked, **more: object) -> Row:
    return history.rows(sql, {**asdict(asked), **more})[0]


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _count(row: Row, name: str) -> int:
    return int(str(row[name]))
