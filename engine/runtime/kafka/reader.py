"""Reading without a group: ranges, and following the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from engine.ports import LogError, Record
from engine.ports import TopicPartition as Partition
from engine.runtime.kafka.client import Cluster, check, persistently, to_record

_TIMEOUT_S = 30
_BATCH = 2_000
_FOLLOW_MS = 250
"""A fetch is answered at once when something comes; this only bounds how many are asked when nothing does."""


class KafkaReader:
    """ports.Reader on Kafka: visible records of a range, in batches."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._consumer = Consumer(cluster.reader_config())
        self._admin = AdminClient(cluster.config())

    def starts(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """First offset still on the log."""
        return self._offsets(partitions, OffsetSpec.earliest())

    def ends(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Offset the next visible record will get."""
        return self._offsets(partitions, OffsetSpec.latest())

    def since(self, partitions: Sequence[Partition], timestamp: int) -> dict[Partition, int]:
        """First offset appended at or after `timestamp` (microseconds); the end if there is none."""
        found = self._offsets(partitions, OffsetSpec.for_timestamp(timestamp // 1000))
        late = [partition for partition, offset in found.items() if offset < 0]
        return {**found, **(self.ends(late) if late else {})}

    def _offsets(self, partitions: Sequence[Partition], spec: OffsetSpec) -> dict[Partition, int]:
        if not partitions:
            return {}
        wanted = {self._cluster.at(partition): spec for partition in partitions}
        try:
            return persistently(lambda: self._listed(wanted), _TIMEOUT_S)
        except KafkaException as error:
            raise LogError(f"offsets could not be listed: {error}") from error

    def _listed(self, wanted: dict[TopicPartition, OffsetSpec]) -> dict[Partition, int]:
        futures = self._admin.list_offsets(
            wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_TIMEOUT_S
        )
        return {self._cluster.bare(at): future.result().offset for at, future in futures.items()}

    def read(self, starts: Mapping[Partition, int]) -> Iterator[Record]:
        """Everything from each start to the end of its partition."""
        self._consumer.assign([self._cluster.at(at, offset) for at, offset in starts.items()])
        left = set(starts)
        try:
            while left:
                for message in batch(self._consumer, 1.0, _BATCH):
                    if (ended := end_of(message, self._cluster)) is not None:
                        left.discard(ended)
                    elif message.error() is None:
                        yield to_record(message, len(self._cluster.prefix))
        finally:
            self._consumer.unassign()

    def warm(self, partitions: Sequence[Partition]) -> None:
        """Connect and fetch once, so that the first read is as fast as any."""
        for _ in self.read(self.ends(partitions)):
            pass

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()


class KafkaFollower:
    """ports.Follower on Kafka."""

    def __init__(self, cluster: Cluster, starts: Mapping[Partition, int]) -> None:
        self._cluster = cluster
        self._behind = set(starts)
        self._consumer = Consumer({**cluster.reader_config(), "fetch.wait.max.ms": _FOLLOW_MS})
        self._consumer.assign([cluster.at(at, offset) for at, offset in starts.items()])

    def poll(self, timeout: float, limit: int) -> list[Record]:
        """What has been appended since, at most `limit` records."""
        records = []
        for message in batch(self._consumer, timeout, limit):
            if (ended := end_of(message, self._cluster)) is not None:
                self._behind.discard(ended)
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
    check(error)
    return None
