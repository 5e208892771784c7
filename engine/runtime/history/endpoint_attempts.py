"""Attempts at endpoints: over time, the newest, and when each last succeeded and failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.core.endpoint import Endpoint
from engine.runtime.history.clickhouse import History, Row

MINUTE_S = 60
HOUR_S = 3_600
LOOK_BACK_S = 30 * 86_400
"""So far back is looked for what is seldom."""
_OF_ENDPOINT = "tenant = {tenant:String} AND endpoint_id = {endpoint:String}"
_STEPS = f"""
SELECT toUnixTimestamp(toStartOfInterval(minute, toIntervalSecond({{step:UInt32}}))) AS at,
       sumIf(attempts, outcome = 'success') AS successes, sumIf(attempts, outcome != 'success') AS failures
FROM health_1m FINAL WHERE {_OF_ENDPOINT} AND minute >= toDateTime({{since:Int64}}, 'UTC')
GROUP BY at ORDER BY at
"""  # noqa: S608
_LONG_STEPS = _STEPS.replace("health_1m", "health_1h").replace("minute", "hour")
"""The same of whole hours: a sixtieth of the rows, and a partition a month instead of one a day."""
# Merging (FINAL) costs by the part, so the highest version of what little is asked for is found by hand.
# Messages may be far older than their last attempts: the rollups know how much.
_ATTEMPTS = f"""
WITH toDateTime({{back:Int64}}, 'UTC') AS since, (
    SELECT minOrNull(accepted_hour) FROM health_1h FINAL
    WHERE {_OF_ENDPOINT} AND hour >= toStartOfHour(toDateTime({{back:Int64}}, 'UTC'))
) AS oldest
SELECT message_id, delivery_id, attempt, trigger, event_type, attempted_at, duration_ms, outcome, status_code,
       error_class, decision, reason, next_attempt_at
FROM (
    SELECT * FROM attempts PREWHERE {_OF_ENDPOINT} AND accepted_at >= least(ifNull(oldest, since), since)
    ORDER BY version DESC LIMIT 1 BY accepted_at, delivery_id, attempt
)
WHERE attempted_at >= since ORDER BY attempted_at DESC, attempt DESC LIMIT {{limit:UInt32}}
"""  # noqa: S608
_BACKS_S = (HOUR_S, 86_400, LOOK_BACK_S)
"""Most endpoints have enough attempts in the last hour, or some in the last day: then no more is read."""
_LAST_OUTCOMES = """
SELECT endpoint_id, maxIf(minute, outcome = 'success') AS succeeded,
       maxIf(minute, outcome != 'success') AS failed
FROM health_1m FINAL
WHERE tenant IN {tenants:Array(String)} AND endpoint_id IN {ids:Array(String)}
AND minute >= toDateTime({since:Int64}, 'UTC')
GROUP BY endpoint_id
"""


@dataclass(frozen=True, slots=True)
class Minute:
    """Attempts that began in one minute, or hour; `at`: seconds since 1970 UTC."""

    at: int
    successes: int
    failures: int


def steps(history: History, endpoint: Endpoint, first: int, step_s: int, count: int) -> list[Minute]:
    """Attempts over time, in `count` steps from `first` on (seconds); UnavailableError."""
    asked = {"tenant": endpoint.tenant, "endpoint": endpoint.id, "step": step_s, "since": first}
    sql = _STEPS if step_s < HOUR_S else _LONG_STEPS
    return filled(history.rows(sql, asked), first, step_s, count)


def recent_attempts(history: History, endpoint: Endpoint, now_us: int, limit: int) -> list[Row]:
    """Return the newest attempts; UnavailableError."""
    asked: dict[str, object] = {"tenant": endpoint.tenant, "endpoint": endpoint.id, "limit": limit}
    rows: list[Row] = []
    for back_s in _BACKS_S:
        rows = history.rows(_ATTEMPTS, {**asked, "back": now_us // 1_000_000 - back_s})
        if len(rows) >= limit or (rows and back_s > HOUR_S):
            break
    return rows


def filled(rows: Sequence[Row], first: int, step_s: int, count: int) -> list[Minute]:
    """Each minute or hour from `first` on, those without an attempt too."""
    found = {int(str(row["at"])): row for row in rows}
    return [_minute(at, found.get(at, {})) for at in range(first, first + count * step_s, step_s)]


def _minute(at: int, row: Mapping[str, object]) -> Minute:
    return Minute(at, int(str(row.get("successes", 0))), int(str(row.get("failures", 0))))


def last_outcomes(history: History, endpoints: Sequence[tuple[str, str]], since_s: int) -> dict[str, Row]:
    """When each endpoint (tenant, id) last `succeeded` and `failed`, by its id; to the minute.

    Those that were sent nothing since then are not there. UnavailableError.
    """
    if not endpoints:
        return {}
    tenants, ids = (sorted(set(each)) for each in zip(*endpoints, strict=True))
    rows = history.rows(_LAST_OUTCOMES, {"tenants": tenants, "ids": ids, "since": since_s})
    return {str(row["endpoint_id"]): row for row in rows}
