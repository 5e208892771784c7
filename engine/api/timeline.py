"""A message's history in the shape of the API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

from engine.api.payloads import Published
from engine.core.diagnosis import likely_cause
from engine.core.model import MessagePublished
from engine.runtime.history.clickhouse import Row, Timeline

ATTEMPT = (
    *("attempt", "trigger", "attempted_at", "duration_ms", "outcome", "status_code", "error_class", "error"),
    *("decision", "reason", "next_attempt_at", "response_body", "worker"),
)
_DELIVERY = ("endpoint_id", "status", "reason", "origin", "updated_at", "next_attempt_at")


def answer(told: Timeline, published: Published | None) -> dict[str, object]:
    """Put attempts into their deliveries; the payload as it was published, if the log still has it."""
    message = told.message
    attempts: dict[object, list[dict[str, object]]] = {}
    for attempt in told.attempts:
        attempts.setdefault(attempt["delivery_id"], []).append(attempt_of(attempt))
    return {
        "id": message["message_id"],
        **chosen(message, ("tenant", "event_type", "accepted_at", "bytes")),
        **({} if published is None else {"payload": _fragment(published.message)}),
        "deliveries": [
            {
                "id": delivery["delivery_id"],
                **chosen(delivery, _DELIVERY),
                "cause": cause_of(delivery),
                "attempts": attempts.get(delivery["delivery_id"], []),
            }
            for delivery in told.deliveries
        ],
    }


def attempt_of(attempt: Row) -> dict[str, object]:
    """One attempt, with the likely cause of its failure."""
    return {**chosen(attempt, ATTEMPT), "cause": cause_of(attempt)}


def cause_of(row: Row) -> str:
    """The likely cause of a failure, of an attempt or of a delivery's last one; empty without any."""
    size = row.get("request_bytes", 0)
    return likely_cause(str(row["error_class"]), int(str(row["status_code"])), int(str(size)))


def not_yet(published: Published) -> dict[str, object]:
    """Show a message that the history doesn't have yet: nothing is known of its deliveries."""
    message, accepted_at = published
    return {
        "id": message.id,
        "tenant": message.tenant,
        "event_type": message.event_type,
        "accepted_at": time_text(datetime.fromtimestamp(accepted_at // 1000 / 1000, UTC)),
        "bytes": len(message.payload),
        "payload": _fragment(message),
        "deliveries": [],
    }


def same(message: Row, published: Published | None) -> Published | None:
    """What was read at a message's coordinates, unless it is another's: topics may have been made anew."""
    if published is None:
        return None
    wanted = (message["tenant"], message["message_id"])
    return published if (published.message.tenant, published.message.id) == wanted else None


def _fragment(message: MessagePublished) -> orjson.Fragment:
    return orjson.Fragment(message.payload or b"{}")


def chosen(row: Mapping[str, object], names: tuple[str, ...]) -> dict[str, object]:
    """Columns of a row, as the API shows them."""
    return {name: _plain(row[name]) for name in names}


def _plain(value: object) -> object:
    """Times as text; milliseconds to the microsecond, which is all there is to them."""
    return round(value, 3) if isinstance(value, float) else time_text(value)


def time_text(value: object) -> object:
    """Write a time in RFC 3339, UTC; anything else as it is."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value
