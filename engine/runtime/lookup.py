"""Looking single records up on the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from engine.ports import Log, Reader, Record, TopicPartition, TrimmedError


class Lookup:
    """One reader, made at first use; safe to use from several threads, which take turns."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._reader: Reader | None = None
        self._lock = Lock()

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        """Have the reader to oneself."""
        with self._lock:
            if self._reader is None:
                self._reader = self._log.reader()
            yield self._reader

    def record(self, at: TopicPartition, offset: int) -> Record | None:
        """Return what is at these coordinates; None if the log does not have it, or not any more."""
        if at[1] >= self._log.partitions(at[0]):
            return None
        with self.reader() as reader:
            if not reader.starts([at])[at] <= offset < reader.ends([at])[at]:
                return None
            try:
                record = next(iter(reader.read({at: offset})), None)
            except TrimmedError:
                return None
        return record if record is not None and record.offset == offset else None

    def close(self) -> None:
        """Close the reader."""
        if self._reader is not None:
            self._reader.close()
