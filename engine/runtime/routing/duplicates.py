"""The window of duplicates: which (tenant, id) a partition of `messages` had lately, with what payload."""

from __future__ import annotations

from hashlib import sha256

from engine.core.model import MessagePublished, RoutedBatch, Routing
from engine.core.recent import Recent
from engine.core.routing import dedup_key
from engine.ports import Reader
from schemas.codec import Codec

_TIME = 8


def digest_of(payload: bytes) -> bytes:
    """Return 16 bytes that stand for a payload."""
    return sha256(payload).digest()[:16]


class Duplicates:
    """Of one partition. Only lower offsets count: it is fed in order and refilled from below the commit.

    A message is a duplicate if one of the same (tenant, id) was accepted at most `span_us` before it, by
    the broker's times and no clock of ours: a restart, or nobody else writing, changes no decision.
    """

    def __init__(self, span_us: int, limit: int) -> None:
        self._span_us = span_us
        self._limit = limit
        self._held: Recent[bytes] = Recent(span_us, limit)
        """When it was accepted, eight bytes, and the digest: one object a key, for there are many."""

    def digest(self, message: MessagePublished, accepted_at: int) -> bytes | None:
        """Return the digest of the payload that the same (tenant, id) had; None if it is new."""
        held = self._held.get(dedup_key(message.tenant, message.id))
        if held is None or accepted_at - int.from_bytes(held[:_TIME], signed=True) > self._span_us:
            return None
        return held[_TIME:]

    def remember(self, routing: Routing) -> None:
        """Take in what was decided for a message; only what was routed has been used."""
        if routing.verdict == "routed":
            key, at = dedup_key(routing.tenant, routing.message_id), routing.accepted_at
            self._held.put(key, at.to_bytes(_TIME, signed=True) + routing.digest, at)

    def refill(self, reader: Reader, codec: Codec, next_input: tuple[int, int], next_at: int) -> None:
        """Learn from `routings` what came before an input, (partition, offset), accepted at `next_at`.

        Each RoutedBatch holds at least one message, and is younger than its messages.
        """
        partition, before = next_input
        at = ("routings", partition)
        since = reader.since([at], next_at - self._span_us)[at]
        start = max(since, reader.ends([at])[at] - self._limit)
        for record in reader.read({at: start}):
            batch = codec.decode(record.value)
            for routing in batch.routings if isinstance(batch, RoutedBatch) else ():
                if routing.offset < before:
                    self.remember(routing)
