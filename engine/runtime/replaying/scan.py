"""Reading ranges of the log step by step, without ever waiting for it."""

from __future__ import annotations

from collections.abc import Mapping

from engine.ports import Log, Record, TopicPartition

AHEAD_KB = 2_048


class Scan:
    """Everything from each start to below its end; TrimmedError where retention was faster."""

    def __init__(
        self, log: Log, starts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> None:
        self.next = {at: start for at, start in starts.items() if start < ends[at]}
        """The offset to go on from, by partition."""
        self._ends = ends
        self._follower = log.follower(self.next, ahead_kb=AHEAD_KB) if self.next else None

    def poll(self, limit: int, timeout: float = 0) -> list[Record]:
        """What has been fetched, at most `limit` records; maybe none, though there is more to come."""
        if self._follower is None:
            return []
        found = self._follower.poll(timeout, limit)
        for record in found:
            self.next[record.topic, record.partition] = record.offset + 1
        return [record for record in found if record.offset < self._ends[record.topic, record.partition]]

    @property
    def done(self) -> bool:
        """Whether all has been polled; what precedes an end may be a hole of the log."""
        if self._follower is None or self._follower.caught_up:
            return True
        return all(offset >= self._ends[at] for at, offset in self.next.items())

    def close(self) -> None:
        """Let go of the log."""
        if self._follower is not None:
            self._follower.close()
