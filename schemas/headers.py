"""Kafka headers: what consumers may read of a record without decoding it.

`cause` is the coordinates of the input that led to the record; every output
has it, and the read-back on assignment relies on it (docs/adr/0002).
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.core.model import AttemptFinished, DeliveryScheduled
from engine.ports import Record

CAUSE = "cause"
"""topic:partition:offset of the input that led to this record."""
DELIVERY = "delivery"
ATTEMPT = "attempt"
DECISION = "decision"
TRIGGER = "trigger"
"""On deliveries and attempts that are test sends: `test`. Nothing else has it."""
DISABLES = "disables"
"""The endpoint's version that this attempt's answer disables."""
DUE = "due"
"""When the next attempt is due, microseconds since 1970 UTC."""
LENGTH = "length"
"""Bytes of the embedded delivery at the end of the value."""
VIEW = "view"
"""On `messages`, by the API: partition:offset of `endpoints` that it had read up to for the tenant."""

TEST = b"test"
_VIEW_MAX = 40
"""Characters of a view: anybody may write to `messages`, and Python refuses to read long numbers."""

Coordinates = tuple[str, int, int]


def cause(topic: str, partition: int, offset: int) -> bytes:
    """Encode coordinates; the topic is without the prefix."""
    return b"%s:%d:%d" % (topic.encode(), partition, offset)


def cause_for(record: Record) -> bytes:
    """The `cause` of what a record leads to."""
    return cause(record.topic, record.partition, record.offset)


def parse_cause(value: bytes) -> Coordinates:
    """Undo `cause`; ValueError on anything else."""
    topic, partition, offset = value.rsplit(b":", 2)
    return topic.decode(), int(partition), int(offset)


def cause_of(found: Mapping[str, bytes]) -> Coordinates | None:
    """Return the coordinates of a record's input; None if it names none, or not as we do."""
    try:
        return parse_cause(found[CAUSE])
    except (KeyError, ValueError):
        return None


def view(partition: int, offset: int) -> bytes:
    """Encode how far a view of `endpoints` had read."""
    return b"%d:%d" % (partition, offset)


def parse_view(value: bytes) -> tuple[int, int] | None:
    """Undo `view`; None for anything else."""
    partition, _, offset = value.partition(b":")
    is_sound = len(value) <= _VIEW_MAX and partition.isdigit() and offset.isdigit()
    return (int(partition), int(offset)) if is_sound else None


def attempt_key(found: Mapping[str, bytes]) -> bytes | None:
    """Return what tells one attempt of one delivery from all others; None if the headers do not say."""
    delivery, attempt = found.get(DELIVERY), found.get(ATTEMPT)
    return None if not delivery or not attempt else delivery + b"/" + attempt


def is_test(found: Mapping[str, bytes]) -> bool:
    """Whether the record is of a test send: no lane holds it up, and it is tried once."""
    return found.get(TRIGGER) == TEST


def of_delivery(delivery: DeliveryScheduled, cause: bytes) -> dict[str, bytes]:
    """What the dispatcher needs to know of a delivery without decoding it."""
    found = {CAUSE: cause, DELIVERY: delivery.delivery_id.encode(), ATTEMPT: b"%d" % delivery.attempt}
    if delivery.trigger == "test":
        found[TRIGGER] = TEST
    return found


def of_attempt(record: AttemptFinished, cause: bytes) -> dict[str, bytes]:
    """What the scheduler and health need to know of an attempt without decoding it."""
    found = {
        CAUSE: cause,
        DELIVERY: record.delivery_id.encode(),
        ATTEMPT: b"%d" % record.attempt,
        DECISION: record.decision.encode(),
    }
    if record.trigger == "test":
        found[TRIGGER] = TEST
    if record.disables:
        found[DISABLES] = b"%d" % record.endpoint_version
    if record.delivery:
        found[LENGTH] = b"%d" % len(record.delivery)
    if record.retry_at:
        found[DUE] = b"%d" % record.retry_at
    return found
