"""Payloads of messages, read from the log by their coordinates."""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple

from engine.core.model import MessagePublished
from engine.ports import Log, Reader, TopicPartition, TrimmedError
from schemas.codec import Codec


class Place(NamedTuple):
    """Whose a message is, and where on `messages`."""

    tenant: str
    partition: int
    offset: int


class Published(NamedTuple):
    """A message as the log has it; `accepted_at` is the broker's append time, microseconds."""

    message: MessagePublished
    accepted_at: int


class Payloads:
    """One reader, made at first use; safe to use from several threads."""

    def __init__(self, log: Log, codec: Codec) -> None:
        self._log = log
        self._codec = codec
        self._reader: Reader | None = None
        self._lock = Lock()

    def read(self, at: TopicPartition, offset: int) -> Published | None:
        """Return what is at these coordinates; None if the log no longer has it."""
        with self._lock:
            if self._reader is None:
                self._reader = self._log.reader()
            if not self._reader.starts([at])[at] <= offset < self._reader.ends([at])[at]:
                return None
            records = self._reader.read({at: offset})
            try:
                record = next(iter(records), None)
            except TrimmedError:
                return None
        if record is None or record.offset != offset:
            return None
        return Published(self._codec.decode_as(MessagePublished, record.value), record.timestamp)

    def close(self) -> None:
        """Close the reader."""
        if self._reader is not None:
            self._reader.close()
