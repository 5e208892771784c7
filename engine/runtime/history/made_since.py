"""What was made again of deliveries that failed: by resend, by replay, or by a message published again."""

from __future__ import annotations

from collections.abc import Sequence

from engine.runtime.history.clickhouse import History, Row, milliseconds

What = tuple[str, tuple[int, int]]
"""An endpoint, and where the message is that it was to get."""
_MADE_SINCE = """
SELECT endpoint_id, topic_partition, topic_offset, min(last) AS best FROM (
    SELECT endpoint_id, topic_partition, topic_offset, argMax(status, version) AS last FROM deliveries
    PREWHERE tenant IN {tenants:Array(String)} AND endpoint_id IN {endpoints:Array(String)}
        AND accepted_at IN (SELECT fromUnixTimestamp64Milli(arrayJoin({times:Array(Int64)}), 'UTC'))
    GROUP BY tenant, endpoint_id, accepted_at, delivery_id, topic_partition, topic_offset
)
WHERE last IN ('delivered', 'pending') GROUP BY endpoint_id, topic_partition, topic_offset
"""  # the best: delivered is before pending; what is made again keeps its message's time of acceptance


def made_since(history: History, rows: Sequence[Row]) -> dict[What, str]:
    """`delivered` or `pending`, for those of these that have been made again since; UnavailableError."""
    asked = {
        "tenants": sorted({str(row["tenant"]) for row in rows}),
        "endpoints": sorted({str(row["endpoint_id"]) for row in rows}),
        "times": sorted({milliseconds(row["accepted_at"]) for row in rows}),
    }
    found = history.rows(_MADE_SINCE, asked) if rows else []
    return {what_of(row): str(row["best"]) for row in found}


def what_of(row: Row) -> What:
    """What a delivery is of."""
    return str(row["endpoint_id"]), place_of(row)


def place_of(row: Row) -> tuple[int, int]:
    """Where a delivery's message is: partition and offset."""
    return int(str(row["topic_partition"])), int(str(row["topic_offset"]))
