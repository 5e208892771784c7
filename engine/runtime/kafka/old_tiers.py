"""Delay topics that are there and that nobody reads: what waits in them would never be retried."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from confluent_kafka.admin import TopicMetadata

from engine.ports import TopicPartition
from engine.runtime.kafka.client import Cluster
from engine.runtime.kafka.reader import KafkaReader
from engine.runtime.settings import Settings
from engine.runtime.topics import tier_of, tier_topics

GROUP = "scheduler"
"""Whoever reads delay topics."""


def unread(cluster: Cluster, there: Mapping[str, TopicMetadata], settings: Settings) -> list[TopicPartition]:
    """Partitions of delay topics that are in no ladder of the settings."""
    read, skip = tier_topics(settings), len(cluster.prefix)
    ours = {name[skip:]: topic for name, topic in there.items() if name.startswith(cluster.prefix)}
    old = {name: topic for name, topic in ours.items() if tier_of(name) is not None and name not in read}
    return [(name, n) for name, topic in old.items() for n in topic.partitions]


def waiting(cluster: Cluster, partitions: Sequence[TopicPartition]) -> Mapping[str, int]:
    """How many records of each topic the scheduler has not done, if any; LogError."""
    if not partitions:
        return {}
    reader = KafkaReader(cluster)
    try:
        starts, ends = reader.starts(partitions), reader.ends(partitions)
        done = reader.committed(GROUP, partitions)
    finally:
        reader.close()
    counts: Counter[str] = Counter()
    for at in partitions:
        counts[at[0]] += max(0, ends[at] - max(starts[at], done[at] or 0))
    return +counts
