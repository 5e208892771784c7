"""A member of a consumer group."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from confluent_kafka import Consumer as Client
from confluent_kafka import KafkaError, TopicPartition

from engine.ports import Position, Rebalance, Record
from engine.ports import TopicPartition as Partition
from engine.runtime.backlog import Backlog
from engine.runtime.kafka.client import (
    PARTITION,
    Cluster,
    Config,
    check,
    mapped,
    persistently,
    report,
    sound,
    to_record,
)
from engine.runtime.kafka.reader import batch
from engine.runtime.kafka.statistics import EVERY_MS, noted
from engine.runtime.settings import Settings
from engine.runtime.vitals import Sign

_WAIT_S = 30
MAX_POLL_INTERVAL_S = 300
"""A member that polls less often has given its partitions up."""


def instance_id(group: str, topics: Sequence[str], settings: Settings) -> str:
    """Name a static member. One that reads other topics is another member.

    A broker gives a static member that comes back what it had before, whatever it subscribes to now
    (KAFKA-12759): nobody would read a new topic, and somebody one that is gone.
    """
    digest = blake2b(",".join(sorted(topics)).encode(), digest_size=4).hexdigest()
    return f"{group}-{settings.instance}-{digest}"


def member_config(cluster: Cluster, group: str, topics: Sequence[str], settings: Settings) -> Config:
    """Configure a member; `docs/adr/0003` says why classic membership with static ids is the default."""
    config = cluster.config(
        group_id=cluster.full(group),
        group_protocol=settings.group_protocol,
        enable_auto_commit=False,
        auto_offset_reset="error",
        isolation_level="read_committed",
        fetch_wait_max_ms=500,
        fetch_error_backoff_ms=20,
        fetch_queue_backoff_ms=20,
        queued_min_messages=10_000,
        queued_max_messages_kbytes=16_384,
        max_poll_interval_ms=MAX_POLL_INTERVAL_S * 1000,
    )
    if settings.group_protocol == "classic":
        config |= {
            "partition.assignment.strategy": "cooperative-sticky",
            "group.instance.id": instance_id(group, topics, settings),
            "session.timeout.ms": int(settings.session_timeout_s * 1000),
            "heartbeat.interval.ms": max(100, int(settings.session_timeout_s * 1000 / 12)),
        }
    return config


Reaction = Callable[[Client, list[TopicPartition]], None]


class KafkaConsumer:
    """ports.Consumer on Kafka. Rebalance callbacks run inside `poll`."""

    def __init__(
        self, cluster: Cluster, config: Config, topics: Sequence[str], rebalance: Rebalance, sign: Sign
    ) -> None:
        self._cluster = cluster
        self._rebalance = rebalance
        self._sign = sign
        self._todo = (
            "When it is known what is lost, stop the group and let it go on where the log begins: "
            f"kafka-consumer-groups.sh --bootstrap-server {cluster.bootstrap} --group {config['group.id']}"
            f" --topic {PARTITION} --reset-offsets --to-earliest --execute. "
        )
        self._sent: deque[float] = deque()
        self._lease = 0.0
        self._paused: set[Partition] = set()
        self._closing = False
        self._broke: Exception | None = None
        """What a callback ended with: librdkafka would turn it into a SystemError that says nothing."""
        self.backlog = sign.backlog = Backlog(topics)
        told = {
            "on_commit": self._on_commit,
            "statistics.interval.ms": EVERY_MS,
            "stats_cb": noted(sign.group, self._note_unread),
        }
        self._client = Client(config | told)
        self._client.subscribe(
            [cluster.full(topic) for topic in topics],
            on_assign=self._kept(self._on_assign),
            on_revoke=self._kept(self._on_revoke),
            on_lost=self._kept(self._on_lost),
        )

    def poll(self, timeout: float, limit: int) -> list[Record]:
        """Up to `limit` records; waits at most `timeout` seconds for the first."""
        records = []
        skip = len(self._cluster.prefix)
        self._sign.polled = time.monotonic()
        with mapped("the log could not be polled"):
            messages = batch(self._client, timeout, limit)
        self._raise_broken()
        for message in messages:
            error = message.error()
            if error is None:
                records.append(to_record(message, skip))
            else:
                check(message, error, self._todo)
        self.backlog.polled(records)
        return records

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, Position | None]:
        """What the group has committed; None where it never has."""
        wanted = [self._cluster.at(at) for at in partitions]
        found = persistently(
            "commits could not be read",
            lambda: sound(self._client.committed(wanted, timeout=_WAIT_S)),
            _WAIT_S,
        )
        return {
            self._cluster.bare(at): Position(at.offset, at.metadata or "") if at.offset >= 0 else None
            for at in found
        }

    def commit(self, positions: Mapping[Partition, Position], *, wait: bool) -> None:
        """Commit; without `wait` the broker's answer shows in `lease`."""
        offsets = [self._cluster.at(at, p.offset, p.metadata) for at, p in positions.items()]
        if not offsets:
            return
        self.backlog.done({at: position.offset for at, position in positions.items()})
        sent = time.monotonic()
        self._sign.asked(sent)
        with mapped("a commit was refused"):
            if wait:
                sound(self._client.commit(offsets=offsets, asynchronous=False))
                self._acknowledged(sent)
            else:
                self._client.commit(offsets=offsets, asynchronous=True)
                self._sent.append(sent)

    def _note_unread(self, partitions: Sequence[tuple[str, int]]) -> None:
        skip, now = len(self._cluster.prefix), time.time_ns() // 1000
        self.backlog.unread([(topic[skip:], partition) for topic, partition in partitions], now)

    def _acknowledged(self, sent: float) -> None:
        self._lease = max(self._lease, sent)
        self._sign.round_trip_s = time.monotonic() - sent
        self._sign.waits_since = self._sent[0] if self._sent else None

    @property
    def lease(self) -> float:
        """When the last commit that the broker acknowledged was sent (monotonic seconds)."""
        return self._lease

    def pause(self, partition: Partition) -> None:
        """Deliver no more of this partition; polling goes on."""
        if partition not in self._paused:
            self._paused.add(partition)
            self._client.pause([self._cluster.at(partition)])

    def resume(self, partition: Partition) -> None:
        """Undo a pause; nothing if it is not paused."""
        if partition in self._paused:
            self._paused.discard(partition)
            self._client.resume([self._cluster.at(partition)])

    def group_metadata(self) -> Any:
        """What a transaction needs to be fenced with this member's generation."""
        return self._client.consumer_group_metadata()

    def close(self) -> None:
        """Leave, after a last `revoked`."""
        self._closing = True
        self._client.close()
        self._raise_broken()

    def _kept(self, react: Reaction) -> Reaction:
        """Keep what a callback raises until librdkafka has returned."""

        def reacting(client: Client, partitions: list[TopicPartition]) -> None:
            try:
                react(client, partitions)
            except Exception as error:  # noqa: BLE001  the poll that called us raises it
                self._broke = error

        return reacting

    def _raise_broken(self) -> None:
        broke, self._broke = self._broke, None
        if broke is not None:
            raise broke

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        # tried: once for each asynchronous commit, in order, refused ones too; never for one that waits
        sent = self._sent.popleft()
        failed = error or next((p.error for p in partitions if p.error), None)
        if failed is None:
            self._acknowledged(sent)
        else:
            report(failed, "kafka.commit_refused")

    def _on_assign(self, client: Client, partitions: list[TopicPartition]) -> None:
        self._sign.joined = True
        if partitions and not self._closing:
            starts = self._rebalance.assigned([self._cluster.bare(p) for p in partitions])
            self.backlog.gained(starts)
            client.incremental_assign([self._cluster.at(at, offset) for at, offset in starts.items()])

    def _on_revoke(self, client: Client, partitions: list[TopicPartition]) -> None:
        bare = [self._cluster.bare(p) for p in partitions]
        self._rebalance.revoked(bare)
        self._forget(bare)

    def _on_lost(self, client: Client, partitions: list[TopicPartition]) -> None:
        bare = [self._cluster.bare(p) for p in partitions]
        self._rebalance.lost(bare)
        self._sign.joined = False
        self._forget(bare)

    def _forget(self, partitions: Sequence[Partition]) -> None:
        """Of these nothing is paused any more, and no commit is waited for.

        librdkafka keeps a pause over a loss: without a resume the partition stays still when it comes back.
        """
        paused = self._paused.intersection(partitions)
        if paused:
            self._client.resume([self._cluster.at(at) for at in paused])
        self._paused -= paused
        self.backlog.gone(partitions)
        self._sign.waits_since = None
