"""A member of a group that remembers the next offset of each partition; how it commits is its user's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from engine.ports import Consumer, Log, LogError, Position, Record, TopicPartition
from engine.runtime.held import HeldPartitions
from schemas.codec import UnknownSchemaError

T = TypeVar("T")


def start_of(
    log: Log, committed: Mapping[TopicPartition, Position | None], group: str
) -> dict[TopicPartition, int]:
    """Where to start: the commit, or 0 of a log that still begins there; LogError rather than a guess."""
    fresh = [at for at, position in committed.items() if position is None]
    if fresh:
        reader = log.reader()
        trimmed = [at for at, start in reader.starts(fresh).items() if start > 0]
        reader.close()
        if trimmed:
            raise LogError(f"group {group} never committed {trimmed[0]}, and its log does not start at 0")
    return {at: position.offset if position else 0 for at, position in committed.items()}


class Member:
    """ports.Rebalance that remembers the next offset of each owned partition.

    Its user commits `next`, by `commit` or in a transaction, once all that follows from what it took
    in is written. What was not committed is taken in again, by the next owner or after a restart.
    """

    def __init__(self, log: Log, group: str, topics: Sequence[str], *, patience_ms: int = 0) -> None:
        self._log = log
        self._group = group
        self.next: dict[TopicPartition, int] = {}
        self._held = HeldPartitions(group)
        self.gained = False
        """Set when partitions were assigned; cleared by whoever has to prepare for them."""
        self.consumer: Consumer = log.consumer(group, topics, self, patience_ms=patience_ms)

    def poll(self, timeout: float, limit: int) -> list[Record]:
        """Records of partitions we own; taking them in moves `next`."""
        records = [record for record in self.consumer.poll(timeout, limit) if self._is_next(record)]
        for record in records:
            self.next[record.topic, record.partition] = record.offset + 1
        return records

    def _is_next(self, record: Record) -> bool:
        at = record.topic, record.partition
        return at not in self._held and record.offset >= self.next.get(at, record.offset + 1)

    def each(self, records: Sequence[Record], handle: Callable[[Record], T]) -> Iterator[T]:
        """Handle what `poll` returned, in order; a partition waits before what a newer hooklog wrote."""
        for record in records:
            at = record.topic, record.partition
            if at not in self._held:
                try:
                    yield handle(record)
                    continue
                except UnknownSchemaError as error:
                    self.hold(at, f"offset {record.offset}: {error}")
            self.next[at] = min(self.next[at], record.offset)

    def hold(self, at: TopicPartition, reason: str) -> None:
        """Take nothing more of a partition: who owns it after the upgrade goes on from its commit."""
        self._held.add(at, reason)
        self.consumer.pause(at)

    def commit(self, *, wait: bool) -> None:
        """Commit everything taken in: call it when all that follows from it is acknowledged."""
        self.consumer.commit({at: Position(offset, "") for at, offset in self.next.items()}, wait=wait)

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Start from the commits."""
        starts = start_of(self._log, self.consumer.committed(partitions), self._group)
        self.next.update(starts)
        self.gained = True
        return starts

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Give up; the next owner takes in again what is not committed."""
        for at in partitions:
            self.next.pop(at, None)
            self._held.discard(at)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Give up."""
        self.revoked(partitions)
