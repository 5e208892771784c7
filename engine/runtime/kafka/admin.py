"""Creating and checking topics, and giving every group its first offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import NewTopic

from engine.ports import TopicPartition
from engine.runtime.kafka.check import configuration, faults
from engine.runtime.kafka.client import Cluster, log_error, mapped, persistently, sound
from engine.runtime.kafka.log import connect
from engine.runtime.kafka.reader import KafkaReader
from engine.runtime.settings import Settings
from engine.runtime.topics import TopicSpec, catalogue, inputs

_WAIT_S = 60


class KafkaAdmin:
    """`hooklog topics create` and `check`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cluster = Cluster.of(settings)
        self._client = connect(self._cluster, settings.kafka_wait_s)

    def create(self) -> list[str]:
        """Create what is missing, commit first offsets for every group; return what was created."""
        with mapped("the topics could not be looked up"):
            existing = self._client.list_topics(timeout=_WAIT_S).topics
        missing = [s for s in catalogue(self._settings) if self._cluster.full(s.name) not in existing]
        if missing:
            created = self._client.create_topics([self._new(spec) for spec in missing], operation_timeout=30)
            for future in created.values():
                _settle(future.result)
        for group, topics in inputs(self._settings).items():
            self._first_offsets(group, topics)
        return [spec.name for spec in missing]

    def check(self) -> list[str]:
        """Say what is wrong with the topics, in words; empty if nothing is."""
        return [fault.text for fault in faults(self._client, self._cluster, self._settings)]

    def _new(self, spec: TopicSpec) -> NewTopic:
        settings = self._settings
        return NewTopic(
            self._cluster.full(spec.name),
            spec.partitions,
            settings.replication,
            config=configuration(spec, settings),
        )

    def _first_offsets(self, group: str, topics: Sequence[str]) -> None:
        partitions = [
            (s.name, n) for s in catalogue(self._settings) if s.name in topics for n in range(s.partitions)
        ]
        # a member-less consumer: the admin client's calls for this crash in confluent-kafka 2.16
        member = Consumer(self._cluster.config(group_id=self._cluster.full(group), enable_auto_commit=False))
        try:
            wanted = [self._cluster.at(at) for at in partitions]
            committed = persistently(
                "commits could not be read",
                lambda: sound(member.committed(wanted, timeout=_WAIT_S)),
                _WAIT_S,
            )
            fresh = [self._cluster.bare(at) for at in committed if at.offset < 0]
            starts = _starts(self._cluster, fresh)
            offsets = [self._cluster.at(at, offset) for at, offset in starts.items() if offset == 0]
            if offsets:
                persistently(
                    "first offsets could not be committed",
                    lambda: sound(member.commit(offsets=offsets, asynchronous=False)),
                    _WAIT_S,
                )
        finally:
            member.close()


def _starts(cluster: Cluster, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
    reader = KafkaReader(cluster)
    try:
        return reader.starts(partitions)
    finally:
        reader.close()


def _settle(result: object) -> None:
    """Wait for a topic; somebody else creating it at the same time is as good."""
    try:
        assert callable(result)
        result()
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise log_error("a topic could not be created", error) from error
