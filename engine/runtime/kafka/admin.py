"""Creating and checking topics, and giving every group its first offsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from engine.ports import TopicPartition as Partition
from engine.runtime.kafka.client import Cluster, persistently, sound
from engine.runtime.kafka.log import wait_for_broker
from engine.runtime.kafka.reader import KafkaReader
from engine.runtime.settings import Settings
from engine.runtime.topics import TopicSpec, catalogue, inputs

_WAIT_S = 60


class KafkaAdmin:
    """`hooklog topics create` and `check`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cluster = Cluster(settings.kafka, settings.prefix)
        self._client = AdminClient(self._cluster.config())
        wait_for_broker(self._client, settings.kafka, settings.kafka_wait_s)

    def create(self) -> list[str]:
        """Create what is missing, commit first offsets for every group; return what was created."""
        existing = self._existing()
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
        existing = self._existing()
        wrong = []
        for spec in catalogue(self._settings):
            count = existing.get(self._cluster.full(spec.name))
            if count is None:
                wrong.append(f"topic {spec.name} is missing: run `hooklog topics create`")
            elif count != spec.partitions:
                wrong.append(
                    f"topic {spec.name} has {count} partitions, HOOKLOG_PARTITIONS says {spec.partitions}:"
                    " growing needs a new prefix"
                )
        return wrong or self._wrong_timestamps()

    def _existing(self) -> dict[str, int]:
        return {
            name: len(t.partitions) for name, t in self._client.list_topics(timeout=_WAIT_S).topics.items()
        }

    def _new(self, spec: TopicSpec) -> NewTopic:
        compacted = spec.retention_ms is None
        config = {
            "cleanup.policy": "compact" if compacted else "delete",
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(2 << 20),
            **({} if compacted else {"retention.ms": str(spec.retention_ms)}),
        }
        replication = self._settings.replication
        return NewTopic(self._cluster.full(spec.name), spec.partitions, replication, config=config)

    def _first_offsets(self, group: str, topics: Sequence[str]) -> None:
        partitions = [
            (s.name, n) for s in catalogue(self._settings) if s.name in topics for n in range(s.partitions)
        ]
        # a member-less consumer: the admin client's calls for this crash in confluent-kafka 2.16
        member = Consumer(self._cluster.config(group_id=self._cluster.full(group), enable_auto_commit=False))
        try:
            wanted = [self._cluster.at(at) for at in partitions]
            committed = persistently(lambda: sound(member.committed(wanted, timeout=_WAIT_S)), _WAIT_S)
            fresh = [self._cluster.bare(at) for at in committed if at.offset < 0]
            starts = _starts(self._cluster, fresh)
            offsets = [self._cluster.at(at, offset) for at, offset in starts.items() if offset == 0]
            if offsets:
                persistently(lambda: sound(member.commit(offsets=offsets, asynchronous=False)), _WAIT_S)
        finally:
            member.close()

    def _wrong_timestamps(self) -> list[str]:
        names = [self._cluster.full(spec.name) for spec in catalogue(self._settings)]
        futures = self._client.describe_configs([ConfigResource(ResourceType.TOPIC, n) for n in names])
        return [
            f"topic {resource.name} must have message.timestamp.type=LogAppendTime"
            for resource, future in futures.items()
            if future.result()["message.timestamp.type"].value != "LogAppendTime"
        ]


def _starts(cluster: Cluster, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
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
            raise
