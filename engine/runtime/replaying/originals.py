"""What was delivered once, found again: a message by its coordinates, a dead letter by when it failed."""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from engine.core.model import AttemptFinished, DeliveryScheduled, MessagePublished
from engine.core.replay import Resend
from engine.core.routing import partition_of
from engine.ports import Log, Record, TopicPartition
from engine.runtime.lookup import Lookup
from engine.runtime.routing.acceptance import message_of
from schemas import headers
from schemas.codec import Codec, UndecodableError

LOOK_MAX = 20_000
"""Dead letters that are looked through for one, by their headers."""
EARLIER_US = 60_000_000
"""A dead letter is written after its attempt; clocks may differ by so much."""
GONE = (
    "the body is no longer on the log: retention took the message, and there is no dead letter; "
    "publish it again under a new id"
)


class Original(NamedTuple):
    """A message and when it was accepted (microseconds), or the delivery that its dead letter holds."""

    message: MessagePublished | None
    accepted_at: int
    dead: DeliveryScheduled | None = None


def embedded(codec: Codec, record: Record) -> DeliveryScheduled:
    """Return the delivery inside a dead letter; UndecodableError if there is none."""
    attempt = codec.decode_as(AttemptFinished, record.value)
    return codec.decode_as(DeliveryScheduled, attempt.delivery)


class Originals:
    """Reads `messages` and `dead-letters`; for several threads."""

    def __init__(self, log: Log, codec: Codec) -> None:
        self._log = log
        self._codec = codec
        self._lookup = Lookup(log)

    def find(self, command: Resend) -> Original | None:
        """Return what a delivery was made of; None if the log has neither it nor a dead letter."""
        at = ("messages", command.source_partition)
        found = self.message(at, command.source_offset, (command.tenant, command.message_id))
        if found is not None or not command.failed_at:
            return found
        partition = partition_of(command.endpoint_id, self._log.partitions("dead-letters"))
        dead = self._dead(("dead-letters", partition), command)
        return None if dead is None else Original(None, dead.accepted_at, dead)

    def message(self, at: TopicPartition, offset: int, owner: tuple[str, str]) -> Original | None:
        """Return the message at some coordinates if it is the (tenant, id) that is looked for."""
        record = self._lookup.record(at, offset)
        message = None if record is None else message_of(self._codec, record)
        if record is None or message is None or (message.tenant, message.id) != owner:
            return None
        return Original(message, record.timestamp)

    def end(self, at: TopicPartition, since: int = 0) -> int:
        """Offset at which a partition ends, or that of the first record since then (microseconds)."""
        with self._lookup.reader() as reader:
            return (reader.since([at], since) if since else reader.ends([at]))[at]

    def _dead(self, at: TopicPartition, command: Resend) -> DeliveryScheduled | None:
        wanted = command.delivery_id.encode()
        with self._lookup.reader() as reader:
            start = reader.since([at], max(0, command.failed_at - EARLIER_US))
            records = islice(reader.read(start), LOOK_MAX)
            found = next((r for r in records if r.headers.get(headers.DELIVERY) == wanted), None)
        if found is None:
            return None
        try:
            dead = embedded(self._codec, found)
        except UndecodableError:
            return None
        return dead if dead.tenant == command.tenant else None

    def close(self) -> None:
        """Let go of the reader."""
        self._lookup.close()
