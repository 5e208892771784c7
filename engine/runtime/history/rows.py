"""Rows of the history: what a record of `routings` or `attempts` says, table by table (`changes`: trail.py).

Pure. A row is made of nothing but its record, and of rows with one key the
version decides, so writing a row again, late or out of order changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from engine.core.accounting import STATUS_AFTER, attempts_made
from engine.core.model import AttemptFinished, RoutedBatch, Routing
from engine.core.replay import Resent, ResentBatch
from engine.core.routing import delivery_id
from engine.ports import Record

OFFSET_BITS = 39
MAX_OFFSET = (1 << OFFSET_BITS) - 1

Row = tuple[object, ...]
Rows = dict[str, list[Row]]
Columns = Mapping[str, Sequence[object]]
"""Column name to values, all of one length. Times are milliseconds since 1970 UTC."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "messages": (
        *("tenant", "message_id", "event_type", "accepted_at", "bytes", "digest", "matched", "skipped"),
        *("topic_partition", "topic_offset", "log_partition", "log_offset", "version"),
    ),
    "deliveries": (
        *("tenant", "endpoint_id", "message_id", "delivery_id", "event_type", "status", "reason"),
        *("error_class", "status_code", "attempts", "accepted_at", "updated_at", "next_attempt_at", "origin"),
        *("topic_partition", "topic_offset", "log_partition", "log_offset", "version"),
    ),
    "attempts": (
        *("tenant", "endpoint_id", "message_id", "delivery_id", "attempt", "trigger", "event_type"),
        *("accepted_at", "attempted_at", "duration_ms", "outcome", "status_code", "error_class", "error"),
        *("decision", "reason", "next_attempt_at", "request_bytes", "response_body", "origin", "worker"),
        *("log_partition", "log_offset", "version"),
    ),
    "changes": (
        *("tenant", "subject", "subject_id", "change", "actor", "at", "command_id", "details"),
        *("log_partition", "log_offset"),
    ),
}
TIMES: Mapping[str, str] = {
    table: "accepted_at" if "accepted_at" in COLUMNS[table] else "at" for table in COLUMNS
}
"""The column that a table's partitions are made of."""
RETAINED = tuple(table for table in COLUMNS if table != "changes")
"""Tables that let go of rows by age; the audit trail is kept, as its topic is."""


def version(attempt: int, offset: int, *, matched: bool = True) -> int:
    """Rank of a delivery's state: the later attempt, of that a match, of that the first record."""
    if not 0 <= offset <= MAX_OFFSET:
        raise OverflowError(f"offset {offset} does not fit a version of {OFFSET_BITS} bits")
    return (attempt << 1 | matched) << OFFSET_BITS | MAX_OFFSET - offset


def routed_rows(record: Record, batch: RoutedBatch, topic: str) -> Rows:
    """Rows of a RoutedBatch; `topic` is the full name of `messages`."""
    routed = [r for r in batch.routings if r.verdict == "routed"]
    return {
        "messages": [message_row(record, batch.partition, r) for r in routed],
        "deliveries": [row for r in routed for row in _first_states(record, batch.partition, r, topic)],
    }


def message_row(record: Record, partition: int, routing: Routing) -> Row:
    """A message's row, in the order of COLUMNS."""
    return (
        routing.tenant,
        routing.message_id,
        routing.event_type,
        routing.accepted_at // 1000,
        routing.bytes,
        routing.digest.hex(),
        len(routing.matched),
        len(routing.skipped),
        partition,
        routing.offset,
        record.partition,
        record.offset,
        version(0, record.offset),
    )


def _first_states(record: Record, partition: int, routing: Routing, topic: str) -> Iterable[Row]:
    """One row an endpoint: pending where it matched, skipped where it was passed over."""
    pending, skipped = version(0, record.offset), version(0, record.offset, matched=False)
    states = [(endpoint, "pending", "", pending) for endpoint in routing.matched]
    states += [(s.endpoint_id, "skipped", s.reason, skipped) for s in routing.skipped]
    for endpoint, status, reason, rank in states:
        yield (
            routing.tenant,
            endpoint,
            routing.message_id,
            delivery_id(topic, partition, routing.offset, endpoint),
            routing.event_type,
            status,
            reason,
            *("", 0, 0),
            routing.accepted_at // 1000,
            record.timestamp // 1000,
            *(None, ""),
            partition,
            routing.offset,
            record.partition,
            record.offset,
            rank,
        )


def resent_rows(record: Record, batch: ResentBatch) -> Rows:
    """Rows of a ResentBatch: each delivery is pending until its first attempt."""
    return {"deliveries": [_resent_row(record, batch.tenant, made) for made in batch.deliveries]}


def _resent_row(record: Record, tenant: str, made: Resent) -> Row:
    return (
        tenant,
        made.endpoint_id,
        made.message_id,
        made.delivery_id,
        made.event_type,
        "pending",
        *("", "", 0, 0),
        made.accepted_at // 1000,
        record.timestamp // 1000,
        None,
        made.origin,
        made.source_partition,
        made.source_offset,
        record.partition,
        record.offset,
        version(0, record.offset),
    )


def finished_rows(record: Record, attempt: AttemptFinished) -> Rows:
    """Rows of an AttemptFinished: the delivery's new state and, if there was a request, the attempt."""
    rows = {"deliveries": [state_row(record, attempt)]}
    if attempt.outcome != "none":
        rows["attempts"] = [attempt_row(record, attempt)]
    return rows


def state_row(record: Record, attempt: AttemptFinished) -> Row:
    """The state of a delivery after an attempt, in the order of COLUMNS."""
    return (
        attempt.tenant,
        attempt.endpoint_id,
        attempt.message_id,
        attempt.delivery_id,
        attempt.event_type,
        STATUS_AFTER[attempt.decision],
        attempt.reason,
        attempt.error_class,
        attempt.status_code,
        attempts_made(attempt),
        attempt.accepted_at // 1000,
        record.timestamp // 1000,
        attempt.retry_at // 1000 or None,
        attempt.origin,
        attempt.source_partition,
        attempt.source_offset,
        record.partition,
        record.offset,
        version(attempt.attempt, record.offset),
    )


def attempt_row(record: Record, attempt: AttemptFinished) -> Row:
    """An attempt's row, in the order of COLUMNS."""
    return (
        attempt.tenant,
        attempt.endpoint_id,
        attempt.message_id,
        attempt.delivery_id,
        attempt.attempt,
        attempt.trigger,
        attempt.event_type,
        attempt.accepted_at // 1000,
        attempt.attempted_at // 1000,
        attempt.duration_us / 1000,
        attempt.outcome,
        attempt.status_code,
        attempt.error_class,
        attempt.error,
        attempt.decision,
        attempt.reason,
        attempt.retry_at // 1000 or None,
        attempt.request_bytes,
        attempt.response_body.decode("utf-8", "replace"),
        attempt.origin,
        attempt.worker,
        record.partition,
        record.offset,
        version(0, record.offset),
    )


def columns(table: str, rows: Sequence[Row]) -> Columns:
    """Turn rows on their side."""
    return dict(zip(COLUMNS[table], zip(*rows, strict=True), strict=True))
