"""Kafka headers: what consumers may read of a record without decoding it.

`cause` is the coordinates of the input that led to the record; every output
has it, and the read-back on assignment relies on it (docs/adr/0002).
"""

from __future__ import annotations

CAUSE = "cause"
"""topic:partition:offset of the input that led to this record."""
DELIVERY = "delivery"
ATTEMPT = "attempt"
DECISION = "decision"
ERROR_CLASS = "error_class"
DUE = "due"
"""When the next attempt is due, microseconds since 1970 UTC."""
LENGTH = "length"
"""Bytes of the embedded delivery at the end of the value."""
RANGE = "range"
"""first-last offsets of a RoutedBatch."""


def cause(topic: str, partition: int, offset: int) -> bytes:
    """Encode coordinates; the topic is without the prefix."""
    return b"%s:%d:%d" % (topic.encode(), partition, offset)


def parse_cause(value: bytes) -> tuple[str, int, int]:
    """Undo `cause`; ValueError on anything else."""
    topic, partition, offset = value.rsplit(b":", 2)
    return topic.decode(), int(partition), int(offset)
