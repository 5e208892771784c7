"""The window of duplicates: which (tenant, id) a partition of `messages` had lately, with what payload."""

from __future__ import annotations

from hashlib import sha256

from engine.core.model import MessagePublished, RoutedBatch, Routing
from engine.core.recent import Recent
from engine.core.routing import dedup_key
from engine.ports import Reader
from schemas.codec import Codec


def digest_of(payload: bytes) -> bytes:
    """Return 16 bytes that stand for a payload."""
    return sha256(payload).digest()[:16]


class Duplicates:
    """Of one partition. Only lower offsets count: it is fed in order and refilled from below the commit."""

    def __init__(self, span_us: int, limit: int) -> None:
        self._span_us = span_us
        self._limit = limit
        self._digests: Recent[bytes] = Recent(span_us, limit)

    def digest(self, message: MessagePublished) -> bytes | None:
        """Return the digest of the payload that the same (tenant, id) had; None if it is new."""
        return self._digests.get(dedup_key(message.tenant, message.id))

    def remember(self, routing: Routing) -> None:
        """Take in what was decided for a message; only what was routed has been used."""
        if routing.verdict == "routed":
            key = dedup_key(routing.tenant, routing.message_id)
            self._digests.put(key, routing.digest, routing.accepted_at)

    def refill(self, reader: Reader, codec: Codec, partition: int, before: int, now: int) -> None:
        """Learn from `routings` what came before an offset; each RoutedBatch holds at least one message."""
        at = ("routings", partition)
        since = reader.since([at], now - self._span_us)[at]
        start = max(since, reader.ends([at])[at] - self._limit)
        for record in reader.read({at: start}):
            batch = codec.decode(record.value)
            for routing in batch.routings if isinstance(batch, RoutedBatch) else ():
                if routing.offset < before:
                    self.remember(routing)
