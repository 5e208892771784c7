"""Payloads of messages, read from the log by their coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import NamedTuple

from engine.core.model import MessagePublished
from engine.core.recent import Recent
from engine.ports import Log, TopicPartition
from engine.runtime.lookup import Lookup
from engine.runtime.routing.acceptance import message_of
from schemas.codec import Codec


class Place(NamedTuple):
    """Whose a message is, and where on `messages`."""

    tenant: str
    partition: int
    offset: int


class Lately:
    """Where messages accepted by this process are on the log, for as long as the history may be late."""

    def __init__(self, span_us: int, limit: int) -> None:
        self._places: Recent[Mapping[str, Place]] = Recent(span_us, limit)

    def get(self, message_id: bytes, tenant: str = "") -> Place | None:
        """Return where the message of a tenant, or without one of any, is."""
        places = self._places.get(message_id) or {}
        return places.get(tenant) if tenant else next(iter(places.values()), None)

    def tenants(self, message_id: bytes) -> Set[str]:
        """Whose messages of this id are remembered."""
        return (self._places.get(message_id) or {}).keys()

    def put(self, message_id: bytes, place: Place, now: int) -> None:
        """Remember it beside other tenants' of the same id; `now` in microseconds."""
        known = self._places.get(message_id) or {}
        self._places.put(message_id, {**known, place.tenant: place}, now)


class Published(NamedTuple):
    """A message as the log has it; `accepted_at` is the broker's append time, microseconds."""

    message: MessagePublished
    accepted_at: int


class Payloads:
    """Safe to use from several threads."""

    def __init__(self, log: Log, codec: Codec) -> None:
        self._codec = codec
        self._lookup = Lookup(log)

    def read(self, at: TopicPartition, offset: int) -> Published | None:
        """Return the message at these coordinates; None if the log has none there, or not any more."""
        record = self._lookup.record(at, offset)
        message = None if record is None else message_of(self._codec, record)
        return None if record is None or message is None else Published(message, record.timestamp)

    def close(self) -> None:
        """Let go of the log."""
        self._lookup.close()
