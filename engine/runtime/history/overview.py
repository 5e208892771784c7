"""How it goes, of all endpoints or one tenant's: out of the rollups, and what waits.

The rollups' rows are few, whatever number of attempts they stand for. Test sends count as any attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isnan
from typing import cast

from engine.runtime.history.clickhouse import History, Row
from engine.runtime.history.endpoint_attempts import LOOK_BACK_S, MINUTE_S, Minute, filled

CHART_MINUTES = 60
RECENT_MINUTES = 15
"""Success and p99 are of so many minutes, the one that has not ended among them."""
_OVERDUE_S = 60
_OF_TENANT = "({tenant:String} = '' OR tenant = {tenant:String})"
_MINUTES = f"""
SELECT toUnixTimestamp(minute) AS at, sumIf(attempts, outcome = 'success') AS successes,
       sumIf(attempts, outcome != 'success') AS failures
FROM health_1m FINAL WHERE {_OF_TENANT} AND minute >= toDateTime({{since:Int64}}, 'UTC')
GROUP BY at ORDER BY at
"""  # noqa: S608  names of this file
_QUANTILES = f"""
SELECT quantilesBFloat16Merge(0.5, 0.95, 0.99)(durations) AS found
FROM health_1m FINAL WHERE {_OF_TENANT} AND minute >= toDateTime({{since:Int64}}, 'UTC')
"""  # noqa: S608
# Rollups know minutes: where the last success and the last failure share one, the more of the two count.
_ENDPOINTS = f"""
SELECT tenant, endpoint_id, sum(failed) AS failures, argMaxIf(error, minute, failed > 0) AS error_class,
       maxIf(minute, worked > 0) AS last_success, maxIf(minute, failed > 0) AS last_failure
FROM (
    SELECT tenant, endpoint_id, minute, sumIf(attempts, outcome = 'success') AS worked,
           sumIf(attempts, outcome != 'success') AS failed,
           argMaxIf(error_class, attempts, outcome != 'success') AS error
    FROM health_1m FINAL WHERE {_OF_TENANT} AND minute >= toDateTime({{since:Int64}}, 'UTC')
    GROUP BY tenant, endpoint_id, minute
)
GROUP BY tenant, endpoint_id HAVING failures > 0 AND
    (last_failure > last_success OR (last_failure = last_success AND argMax(failed > worked, minute)))
ORDER BY failures DESC, endpoint_id LIMIT 200
"""  # noqa: S608
# Few rows say pending, and not all of those that do are the last word on their delivery. When it was accepted
# finds the others of a delivery far sooner than its id, which is a text.
_PENDING = f"""
SELECT countIf(is_pending) AS pending,
       countIf(is_pending AND due < toDateTime64({{overdue:Int64}}, 3, 'UTC')) AS overdue
FROM (
    SELECT argMax(status, version) = 'pending' AS is_pending, argMax(next_attempt_at, version) AS due
    FROM deliveries
    PREWHERE accepted_at IN (
        SELECT accepted_at FROM deliveries
        WHERE status = 'pending' AND {_OF_TENANT} AND accepted_at >= toDateTime({{back:Int64}}, 'UTC')
    )
    WHERE {_OF_TENANT} GROUP BY accepted_at, delivery_id
)
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Failing:
    """An endpoint whose attempts have failed since its last success."""

    tenant: str
    endpoint_id: str
    failures: int
    error_class: str
    last_failure: datetime
    last_success: datetime | None
    """In the last hour."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Deliveries that wait for a retry; `overdue`: it was due over a minute ago."""

    count: int
    overdue: int


@dataclass(frozen=True, slots=True)
class Overview:
    """Figures of one tenant, or of all."""

    at: int
    """When they were asked for, seconds since 1970 UTC."""
    minutes: Sequence[Minute]
    """The last hour, each minute of it, oldest first."""
    quantiles_ms: tuple[float, float, float]
    """p50, p95, p99 of the recent minutes; 0 without attempts."""
    failing: Sequence[Failing]
    pending: Pending

    @property
    def rate(self) -> float:
        """Deliveries a second in the last minute: this one so far and what is left of the one before."""
        if len(self.minutes) < 2:
            return 0.0
        left = 1 - self.at % MINUTE_S / MINUTE_S
        return (self.minutes[-1].successes + left * self.minutes[-2].successes) / MINUTE_S

    @property
    def success_rate(self) -> float | None:
        """Share of the recent attempts that succeeded; None without any."""
        recent = self.minutes[-RECENT_MINUTES:]
        attempts = sum(minute.successes + minute.failures for minute in recent)
        return sum(minute.successes for minute in recent) / attempts if attempts else None

    @property
    def attempts(self) -> int:
        """In the last hour."""
        return sum(minute.successes + minute.failures for minute in self.minutes)


async def pending(history: History, tenant: str, now_us: int) -> Pending:
    """Count what waits; UnavailableError. Of all questions the most expensive: 100 ms for a million."""
    now = now_us // 1_000_000
    asked = {"tenant": tenant, "back": now - LOOK_BACK_S, "overdue": now - _OVERDUE_S}
    (row,) = await asyncio.to_thread(history.rows, _PENDING, asked)
    return Pending(int(str(row["pending"])), int(str(row["overdue"])))


async def overview(
    history: History, tenant: str, now_us: int, waiting: Callable[[], Awaitable[Pending]]
) -> Overview:
    """Ask for all the rest, and beside it for what waits; UnavailableError."""
    now = now_us // 1_000_000
    first = now // MINUTE_S * MINUTE_S - (CHART_MINUTES - 1) * MINUTE_S
    recent = now // MINUTE_S * MINUTE_S - (RECENT_MINUTES - 1) * MINUTE_S
    pending, minutes, quantiles, failing = await asyncio.gather(
        waiting(),
        asyncio.to_thread(history.rows, _MINUTES, {"tenant": tenant, "since": first}),
        asyncio.to_thread(history.rows, _QUANTILES, {"tenant": tenant, "since": recent}),
        asyncio.to_thread(history.rows, _ENDPOINTS, {"tenant": tenant, "since": first}),
    )
    return Overview(
        at=now,
        minutes=filled(minutes, first, MINUTE_S, CHART_MINUTES),
        quantiles_ms=_quantiles(quantiles[0]),
        failing=[_failing(row) for row in failing],
        pending=pending,
    )


def _quantiles(row: Row) -> tuple[float, float, float]:
    found = cast("list[float]", row["found"])
    p50, p95, p99 = (0.0 if isnan(each) else each for each in found)
    return p50, p95, p99


def _failing(row: Row) -> Failing:
    success = cast("datetime", row["last_success"])
    return Failing(
        str(row["tenant"]),
        str(row["endpoint_id"]),
        int(str(row["failures"])),
        str(row["error_class"]),
        cast("datetime", row["last_failure"]),
        success if success > datetime(1971, 1, 1, tzinfo=UTC) else None,
    )
