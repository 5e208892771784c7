"""Partitions that wait before a record of a newer hooklog, while the others go on."""

from __future__ import annotations

from engine.ports import TopicPartition
from engine.runtime import telemetry

_LOG = telemetry.logger("held")


class HeldPartitions:
    """The partitions of a group that wait."""

    def __init__(self, group: str) -> None:
        self._group = group
        self._partitions: set[TopicPartition] = set()

    def __contains__(self, at: object) -> bool:
        return at in self._partitions

    def add(self, at: TopicPartition, reason: str) -> None:
        """Take nothing more of a partition: who owns it after the upgrade goes on from its commit."""
        if at in self._partitions:
            return
        self._partitions.add(at)
        telemetry.UNKNOWN_SCHEMA.labels(self._group).inc()
        _LOG.error(
            "partition.held",
            group=self._group,
            topic=at[0],
            partition=at[1],
            reason=reason,
            todo="a newer hooklog wrote this: upgrade this group, which then goes on from here",
        )

    def discard(self, at: TopicPartition) -> None:
        """Somebody else owns it."""
        self._partitions.discard(at)
