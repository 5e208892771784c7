"""The log on Apache Kafka."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from engine.ports import BrokerUnreachableError, LogError, Rebalance
from engine.ports import TopicPartition as Partition
from engine.runtime import telemetry
from engine.runtime.kafka.client import Cluster
from engine.runtime.kafka.consumer import KafkaConsumer, member_config
from engine.runtime.kafka.producer import KafkaProducer, KafkaTransactions
from engine.runtime.kafka.reader import KafkaFollower, KafkaReader
from engine.runtime.settings import Settings

PATIENT_BYTES = 256 << 10
"""What a patient fetch would rather have at once."""
_LOG = telemetry.logger("kafka")


class KafkaLog:
    """ports.Log on Kafka. Waits for the broker, at most `kafka_wait_s`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._cluster = Cluster(settings.kafka, settings.prefix)
        self._admin = AdminClient(self._cluster.config())
        wait_for_broker(self._admin, settings.kafka, settings.kafka_wait_s)
        self._partitions: dict[str, int] = {}

    def partitions(self, topic: str) -> int:
        """Return the number of partitions; LogError if there is no such topic."""
        if topic not in self._partitions:
            found = self._admin.list_topics(self._cluster.full(topic), timeout=30).topics
            described = found[self._cluster.full(topic)]
            if described.error is not None or not described.partitions:
                raise LogError(f"there is no topic {self._cluster.full(topic)}: run `hooklog topics create`")
            self._partitions[topic] = len(described.partitions)
        return self._partitions[topic]

    def consumer(
        self, group: str, topics: Sequence[str], rebalance: Rebalance, *, patience_ms: int = 0
    ) -> KafkaConsumer:
        """Join a group."""
        config = member_config(self._cluster, group, self.settings)
        if patience_ms:
            config |= {"fetch.wait.max.ms": patience_ms, "fetch.min.bytes": PATIENT_BYTES}
        return KafkaConsumer(self._cluster, config, topics, rebalance)

    def producer(self, *, linger_ms: float = 0) -> KafkaProducer:
        """Make a producer whose connection is up."""
        return KafkaProducer(self._cluster, linger_ms)

    def transactions(self, name: str) -> KafkaTransactions:
        """Write transactions as `name`."""
        return KafkaTransactions(self._cluster, name)

    def reader(self) -> KafkaReader:
        """Make a reader whose connection is up."""
        reader = KafkaReader(self._cluster)
        reader.warm([("attempts", partition) for partition in range(self.partitions("attempts"))])
        return reader

    def follower(self, starts: Mapping[Partition, int]) -> KafkaFollower:
        """Follow from `starts` on."""
        return KafkaFollower(self._cluster, starts)


def wait_for_broker(admin: AdminClient, bootstrap: str, limit_s: float) -> None:
    """Return when a broker answers; BrokerUnreachableError after `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise BrokerUnreachableError(
                f"no Kafka broker answered at {bootstrap} within {limit_s:g} s: set HOOKLOG_KAFKA"
            )
        try:
            admin.list_topics(timeout=min(5.0, left))
        except KafkaException:
            _LOG.warning("kafka.waiting", bootstrap=bootstrap, seconds_left=round(max(0.0, left), 1))
        else:
            return
