"""What the accounting asks of ClickHouse. Times are microseconds since 1970 UTC."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from engine.core.minutes import Found
from engine.runtime.history.clickhouse import History

FOREVER = 4_102_444_800_000_000
"""The year 2100: later than anything was accepted."""


class DeliveryState(NamedTuple):
    """A delivery as ClickHouse has it."""

    delivery_id: str
    status: str
    attempts: int
    updated_at: int


class PendingDelivery(NamedTuple):
    """A delivery that ClickHouse says is pending; `due` is its next attempt's time."""

    delivery_id: str
    endpoint_id: str
    attempts: int
    due: int


_ACCEPTED = (
    "accepted_at >= fromUnixTimestamp64Milli({since:Int64})"
    " AND accepted_at < fromUnixTimestamp64Milli({until:Int64})"
)
_STATES = f"""
SELECT delivery_id, status, attempts, toUnixTimestamp64Milli(updated_at) * 1000 AS updated_at
FROM delivery_status WHERE {_ACCEPTED}
"""  # noqa: S608
_MADE = f"""
SELECT delivery_id, toUInt64(count()) AS made, toUnixTimestamp64Milli(max(attempted_at)) * 1000 AS last
FROM delivery_attempts WHERE {_ACCEPTED} GROUP BY delivery_id
"""  # noqa: S608
_PENDING = """
SELECT delivery_id, endpoint_id, attempts,
       toUnixTimestamp64Milli(ifNull(next_attempt_at, if(origin = '', accepted_at, updated_at))) * 1000 AS due
FROM delivery_status WHERE status = 'pending'
"""
# Attempts are counted twice: as the deliveries say, and as rows.
_MINUTE = "intDiv(toUnixTimestamp64Milli(accepted_at), 60000) AS minute"
_MINUTES = f"""
SELECT minute, toUInt64(sum(rows)) AS deliveries, toUInt64(sum(said)) AS said, toUInt64(sum(made)) AS made
FROM (
    SELECT {_MINUTE}, count() AS rows, sum(attempts) AS said, 0 AS made
    FROM delivery_status WHERE origin = '' AND {_ACCEPTED} GROUP BY minute
    UNION ALL
    SELECT {_MINUTE}, 0 AS rows, 0 AS said, count() AS made
    FROM delivery_attempts WHERE origin = '' AND {_ACCEPTED} GROUP BY minute
)
GROUP BY minute
"""  # noqa: S608


class Accounts:
    """Asks a history; every method raises UnavailableError when ClickHouse is away."""

    def __init__(self, history: History) -> None:
        self._history = history

    def states(self, since: int = 0, until: int = FOREVER) -> Iterator[DeliveryState]:
        """State of every delivery accepted within a time, streamed."""
        for delivery, status, attempts, updated_at in self._history.stream(_STATES, _accepted(since, until)):
            yield DeliveryState(str(delivery), str(status), int(str(attempts)), int(str(updated_at)))

    def made(self, since: int = 0, until: int = FOREVER) -> Iterator[tuple[str, int, int]]:
        """(delivery id, rows in `attempts`, when the last began) of each delivery with any, streamed."""
        for delivery, made, last in self._history.stream(_MADE, _accepted(since, until)):
            yield str(delivery), int(str(made)), int(str(last))

    def pending(self) -> Iterator[PendingDelivery]:
        """Every delivery that is pending, streamed."""
        for delivery, endpoint, attempts, due in self._history.stream(_PENDING):
            yield PendingDelivery(str(delivery), str(endpoint), int(str(attempts)), int(str(due)))

    def minutes(self, since: int, until: int) -> list[Found]:
        """Counts of what was accepted within a time, minute by minute, in no order."""
        table = self._history.query(_MINUTES, _accepted(since, until))
        return [Found(*(int(str(n)) for n in row)) for row in table.rows]


def _accepted(since: int, until: int) -> dict[str, int]:
    """Acceptance is known to the millisecond."""
    return {"since": -(-since // 1000), "until": -(-until // 1000)}
