"""What a topic must be like, and what is wrong with those there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType, TopicMetadata

from engine.runtime.kafka.client import Cluster, mapped
from engine.runtime.kafka.old_tiers import unread, waiting
from engine.runtime.settings import Settings
from engine.runtime.topics import DAY_MS, MESSAGE_MAX, TopicSpec, catalogue, tier_of

_WAIT_S = 30
_VITAL = ("cleanup.policy", "message.timestamp.type", "max.message.bytes")
"""Without these records are lost, their times are wrong, or they cannot be written."""
_AT_LEAST = ("max.message.bytes", "min.insync.replicas", "retention.ms")


class Fault(NamedTuple):
    """Something wrong with a topic, in words; nothing may run while a vital one is there."""

    text: str
    vital: bool


def configuration(spec: TopicSpec, settings: Settings) -> dict[str, str]:
    """What a topic is created with."""
    # a compacted topic forgets, a shredded key above all, within a day; by its defaults it may never
    kept = (
        {"max.compaction.lag.ms": DAY_MS}
        if spec.retention_ms is None
        else {"retention.ms": spec.retention_ms}
    )
    return {
        "cleanup.policy": "compact" if spec.retention_ms is None else "delete",
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(MESSAGE_MAX),
        # with a replica fewer writing goes on; with the broker's default of 1, acks=all would mean one broker
        "min.insync.replicas": str(max(1, settings.replication - 1)),
        **{name: str(value) for name, value in kept.items()},
    }


def faults(admin: AdminClient, cluster: Cluster, settings: Settings) -> list[Fault]:
    """Compare all topics with what they must be; two requests, and more if another ladder left tiers."""
    specs = {cluster.full(spec.name): spec for spec in catalogue(settings)}
    with mapped("the topics could not be looked up"):
        there = admin.list_topics(timeout=_WAIT_S).topics
        found = {name: there[name] for name in specs if name in there}
        described = _described(admin, list(found))
    left = waiting(cluster, unread(cluster, there, settings))
    wrong = [
        Fault(f"topic {name} is missing: run `hooklog topics create`", True)
        for name in specs
        if name not in found
    ]
    for name, topic in found.items():
        wrong += _of_partitions(topic, specs[name], settings.replication)
        wrong += _of_configuration(name, described[name], configuration(specs[name], settings))
    return wrong + [_of_old_tier(cluster.full(name), tier_of(name), count) for name, count in left.items()]


def _of_old_tier(name: str, tier: str | None, count: int) -> Fault:
    return Fault(
        f"topic {name} is no tier of HOOKLOG_TIERS, and {count} records wait there that nobody would retry:"
        f" put {tier} back into HOOKLOG_TIERS, or into HOOKLOG_DRAINING_TIERS until none is left",
        True,
    )


def _described(admin: AdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    futures = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in names])
    return {
        resource.name: {name: entry.value for name, entry in future.result(_WAIT_S).items()}
        for resource, future in futures.items()
    }


def _of_partitions(topic: TopicMetadata, spec: TopicSpec, replication: int) -> Iterator[Fault]:
    count = len(topic.partitions)
    if count != spec.partitions:
        yield Fault(
            f"topic {topic.topic} has {count} partitions, HOOKLOG_PARTITIONS says {spec.partitions}:"
            " growing needs a new prefix",
            True,
        )
    fewest = min((len(each.replicas) for each in topic.partitions.values()), default=0)
    if fewest < replication:
        text = f"topic {topic.topic} has {fewest} replicas, HOOKLOG_REPLICATION says {replication}"
        yield Fault(text, False)


def _of_configuration(name: str, found: Mapping[str, str], wanted: Mapping[str, str]) -> Iterator[Fault]:
    for setting, value in wanted.items():
        at_least = setting in _AT_LEAST
        if found[setting] != value and not (at_least and _enough(found[setting], value)):
            must = "at least " if at_least else ""
            text = f"topic {name} has {setting}={found[setting]}, must have {must}{value}: alter the topic"
            yield Fault(text, setting in _VITAL)


def _enough(found: str, wanted: str) -> bool:
    """-1 is for ever."""
    return found == "-1" or (wanted != "-1" and int(found) >= int(wanted))
