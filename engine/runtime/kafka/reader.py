"""Reading without a group: ranges, and following the end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import cast

from confluent_kafka import (
    OFFSET_END,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from engine.ports import LogError, Record
from engine.ports import TopicPartition as Partition
from engine.runtime.kafka.client import Cluster, check, persistently, sound, to_record

_TIMEOUT_S = 30
_TAILS_S = 1
STALLED_S = 60.0
_BATCH = 2_000
_FOLLOW_MS = 100
"""A fetch is answered at once when something comes; this only bounds how many are asked when nothing does."""


class KafkaReader:
    """ports.Reader on Kafka: visible records of a range, in batches."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._consumer = Consumer(cluster.reader_config())
        self._admin = AdminClient(cluster.config())
        self._groups: dict[str, Consumer] = {}
        self._uncommitted: Consumer | None = None

    def starts(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """First offset still on the log."""
        return self._offsets(partitions, OffsetSpec.earliest())

    def ends(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Offset the next visible record will get."""
        return self._offsets(partitions, OffsetSpec.latest())

    def tails(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Offset the next record will get, those of open transactions counted too."""
        if self._uncommitted is None:
            self._uncommitted = Consumer(
                {**self._cluster.reader_config(), "isolation.level": "read_uncommitted"}
            )
        # the admin client asks for the same at three times the cost: it looks up the leaders each time
        member, wanted = (
            self._uncommitted,
            [self._cluster.at(partition, OFFSET_END) for partition in partitions],
        )
        found = persistently(
            "the ends could not be listed",
            lambda: sound(member.offsets_for_times(wanted, timeout=_TAILS_S)),
            _TAILS_S,
        )
        return {self._cluster.bare(at): at.offset for at in found}

    def since(self, partitions: Sequence[Partition], timestamp: int) -> dict[Partition, int]:
        """First offset appended at or after `timestamp` (microseconds); the end if there is none."""
        found = self._offsets(partitions, OffsetSpec.for_timestamp(timestamp // 1000))
        late = [partition for partition, offset in found.items() if offset < 0]
        return {**found, **(self.ends(late) if late else {})}

    def _offsets(self, partitions: Sequence[Partition], spec: OffsetSpec) -> dict[Partition, int]:
        if not partitions:
            return {}
        wanted = {self._cluster.at(partition): spec for partition in partitions}
        return persistently("offsets could not be listed", lambda: self._listed(wanted), _TIMEOUT_S)

    def _listed(self, wanted: dict[TopicPartition, OffsetSpec]) -> dict[Partition, int]:
        futures = self._admin.list_offsets(
            wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_TIMEOUT_S
        )
        try:
            return {self._cluster.bare(at): future.result().offset for at, future in futures.items()}
        except KafkaException:
            self._learn_leaders()
            raise

    def _learn_leaders(self) -> None:
        """Ask anew: for 15 minutes librdkafka asks a former leader, or a restarted one by its old epoch."""
        with suppress(KafkaException):
            self._admin.list_topics(timeout=1)

    def read(self, starts: Mapping[Partition, int]) -> Iterator[Record]:
        """Everything from each start to the end of its partition when this is called."""
        ends = self.ends(list(starts))
        unread = {at: start for at, start in starts.items() if start != ends[at]}
        return between(self._consumer, self._cluster, unread, ends)

    def committed(self, group: str, partitions: Sequence[Partition]) -> dict[Partition, int | None]:
        """Where a group goes on; None where it never committed."""
        if group not in self._groups:
            # a member-less consumer: the admin client's calls for this crash in confluent-kafka 2.16
            config = self._cluster.config(group_id=self._cluster.full(group), enable_auto_commit=False)
            self._groups[group] = Consumer(config)
        member, wanted = self._groups[group], [self._cluster.at(at) for at in partitions]
        found = persistently(
            "commits could not be read",
            lambda: sound(member.committed(wanted, timeout=_TIMEOUT_S)),
            _TIMEOUT_S,
        )
        return {self._cluster.bare(at): at.offset if at.offset >= 0 else None for at in found}

    def warm(self, partitions: Sequence[Partition]) -> None:
        """Connect and fetch once, so that the first read is as fast as any."""
        ends = self.ends(partitions)
        beyond = {at: end + 1 for at, end in ends.items()}
        for _ in between(self._consumer, self._cluster, ends, beyond):
            pass

    def close(self) -> None:
        """Close the connections."""
        for consumer in (self._consumer, self._uncommitted, *self._groups.values()):
            if consumer is not None:
                consumer.close()


def between(
    consumer: Consumer,
    cluster: Cluster,
    starts: Mapping[Partition, int],
    ends: Mapping[Partition, int],
    stalled_s: float = STALLED_S,
) -> Iterator[Record]:
    """Records from each start to below its end; LogError after `stalled_s` seconds without any answer."""
    if not starts:
        return
    consumer.assign([cluster.at(at, offset) for at, offset in starts.items()])
    left = {at: ends[at] for at in starts}
    heard = time.monotonic()
    try:
        while left:
            for message in batch(consumer, min(1.0, stalled_s), _BATCH):
                if (ended := end_of(message, cluster)) is not None:
                    # what precedes the end may be a transaction's marker, which no record tells of
                    left.pop(ended, None)
                elif message.error() is None:
                    yield from _below(left, to_record(message, len(cluster.prefix)))
                else:
                    continue
                heard = time.monotonic()
            if time.monotonic() - heard > stalled_s:
                raise LogError(f"nothing could be read of {min(left)} for {stalled_s:g} s")
    finally:
        consumer.unassign()


def _below(left: dict[Partition, int], record: Record) -> Iterator[Record]:
    """The record, if it is below the end of its partition; the last one takes the partition out of `left`."""
    at = (record.topic, record.partition)
    end = left.get(at, 0)
    if record.offset >= end - 1:
        left.pop(at, None)
    if record.offset < end:
        yield record


class KafkaFollower:
    """ports.Follower on Kafka."""

    def __init__(self, cluster: Cluster, starts: Mapping[Partition, int], ahead_kb: int) -> None:
        self._cluster = cluster
        own = {"fetch.wait.max.ms": _FOLLOW_MS, "queued.max.messages.kbytes": ahead_kb}
        self._consumer = Consumer({**cluster.reader_config(), **own})
        self.move(starts)

    def move(self, starts: Mapping[Partition, int]) -> None:
        """Follow these from now on, from these offsets, and nothing else."""
        self._behind = set(starts)
        self.reached: Mapping[Partition, int] = {}
        self._consumer.assign([self._cluster.at(at, offset) for at, offset in starts.items()])

    def poll(self, timeout: float, limit: int) -> list[Record]:
        """What has been appended since, at most `limit` records."""
        records = []
        for message in batch(self._consumer, timeout, limit):
            if (ended := end_of(message, self._cluster)) is not None:
                self._behind.discard(ended)
                self.reached = {**self.reached, ended: cast(int, message.offset())}
            elif message.error() is None:
                records.append(to_record(message, len(self._cluster.prefix)))
        return records

    @property
    def caught_up(self) -> bool:
        """Whether the end of every partition has been reached once."""
        return not self._behind

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()


def batch(consumer: Consumer, timeout: float, limit: int) -> list[Message]:
    """One blocking poll, then what is there already: quick when idle, batches under load."""
    first = consumer.poll(timeout)
    if first is None:
        return []
    return [first, *consumer.consume(limit - 1, 0)] if limit > 1 else [first]


def end_of(message: Message, cluster: Cluster) -> Partition | None:
    """Return the partition whose end this says was reached; other errors are checked, None for records."""
    error = message.error()
    if error is None:
        return None
    if error.code() == KafkaError._PARTITION_EOF:
        return cluster.bare(TopicPartition(cast(str, message.topic()), cast(int, message.partition())))
    check(message, error)
    return None
