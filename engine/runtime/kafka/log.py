"""The log on Apache Kafka."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from engine.ports import BrokerUnreachableError, LogError, Rebalance, TopicPartition
from engine.runtime import telemetry
from engine.runtime.kafka.check import faults
from engine.runtime.kafka.client import Cluster, mapped
from engine.runtime.kafka.consumer import MAX_POLL_INTERVAL_S, KafkaConsumer, member_config
from engine.runtime.kafka.producer import KafkaProducer, KafkaTransactions
from engine.runtime.kafka.reader import KafkaFollower, KafkaReader
from engine.runtime.settings import Settings
from engine.runtime.vitals import Kind, Limits, Sign, State, judge

_ASK_S = 0.5
"""How long one question takes at most: a signal is handled between two."""
_WARN_EVERY_S = 5.0
PATIENT_BYTES = 256 << 10
"""What a patient fetch would rather have at once."""
_LOG = telemetry.logger("kafka")


class KafkaLog:
    """ports.Log on Kafka. Waits for the broker, at most `kafka_wait_s`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._cluster = Cluster.of(settings)
        self._admin = connect(self._cluster, settings.kafka_wait_s)
        self._partitions: dict[str, int] = {}
        self.signs: list[Sign] = []
        """What the clients made here have noted."""

    def check(self) -> None:
        """LogError if a topic is not as records need it; what else is wrong is only logged."""
        found = faults(self._admin, self._cluster, self.settings)
        for fault in found:
            if not fault.vital:
                _LOG.warning("kafka.topics", fault=fault.text)
        if vital := [fault.text for fault in found if fault.vital]:
            raise LogError("; ".join(vital))

    def partitions(self, topic: str) -> int:
        """Return the number of partitions; LogError if there is no such topic."""
        if topic not in self._partitions:
            with mapped(f"topic {topic} could not be looked up"):
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
        config = member_config(self._cluster, group, topics, self.settings)
        if patience_ms:
            config |= {"fetch.wait.max.ms": patience_ms, "fetch.min.bytes": PATIENT_BYTES}
        return KafkaConsumer(self._cluster, config, topics, rebalance, self._sign("member", group))

    def producer(self, *, linger_ms: float = 0) -> KafkaProducer:
        """Make a producer whose connection is up."""
        return KafkaProducer(self._cluster, linger_ms, self._sign("producer"))

    def transactions(self, name: str) -> KafkaTransactions:
        """Write transactions as `name`."""
        return KafkaTransactions(self._cluster, name, self._sign("transactions"))

    def reader(self) -> KafkaReader:
        """Make a reader whose connection is up."""
        reader = KafkaReader(self._cluster)
        reader.warm([("attempts", partition) for partition in range(self.partitions("attempts"))])
        return reader

    def follower(self, starts: Mapping[TopicPartition, int], *, ahead_kb: int = 16_384) -> KafkaFollower:
        """Follow from `starts` on; at most about `ahead_kb` are fetched before they are polled."""
        return KafkaFollower(self._cluster, starts, ahead_kb)

    def _sign(self, kind: Kind, group: str = "") -> Sign:
        sign = Sign(kind, group)
        self.signs.append(sign)
        return sign

    # -- how it goes -------------------------------------------------------------------

    def answers(self) -> bool:
        """Whether a broker answers now; takes half a second when none does."""
        return _answers(self._admin, _ASK_S)

    def state(self) -> State:
        """What keeps this process from working now, by what its clients noted."""
        limits = Limits(self.settings.lease_s, self.settings.session_timeout_s, MAX_POLL_INTERVAL_S)
        return judge(self.signs, time.monotonic(), limits)


def connect(cluster: Cluster, limit_s: float) -> AdminClient:
    """Return a client once a broker answers; BrokerUnreachableError after `limit_s` seconds."""
    with mapped("HOOKLOG_KAFKA or HOOKLOG_KAFKA_OPTIONS is wrong"):
        admin = AdminClient(cluster.config())
    now = time.monotonic()
    deadline, warn_at = now + limit_s, now + _WARN_EVERY_S
    while not _answers(admin, min(_ASK_S, deadline - now)):
        now = time.monotonic()
        if now >= deadline:
            raise BrokerUnreachableError(
                f"no Kafka broker answered at {cluster.bootstrap} within {limit_s:g} s: set HOOKLOG_KAFKA"
            )
        if now >= warn_at:
            warn_at = now + _WARN_EVERY_S
            _LOG.warning("kafka.waiting", bootstrap=cluster.bootstrap, seconds_left=round(deadline - now, 1))
    return admin


def _answers(admin: AdminClient, timeout_s: float) -> bool:
    try:
        admin.list_topics(timeout=timeout_s)
    except KafkaException:
        return False
    return True
