"""What a process has sent and the broker has not acknowledged yet: how much, and since when.

A partition is sent to by one thread and acknowledged in order, on the thread
that polls; so each counter has one writer, and no lock is needed.
"""

from __future__ import annotations

from math import inf

from engine.ports import Output, TopicPartition

SIZE_MAX = 64 << 20
"""Bytes at which nothing new is begun: half of what the client library holds for us."""
_OVERHEAD = 200
"""What a record takes besides its value, about: key, headers, the library's own part; bytes."""


class _Sent:
    """Outputs to one partition."""

    __slots__ = ("acknowledged", "bytes_acknowledged", "bytes_sent", "looked", "looked_at", "sent")

    def __init__(self, now: float) -> None:
        self.sent = self.acknowledged = self.bytes_sent = self.bytes_acknowledged = 0
        self.looked, self.looked_at = 0, now
        """How many had been sent when we looked, and when that was."""

    def oldest(self, now: float) -> float:
        """When, at the latest, the oldest one was sent that is not acknowledged; `inf` if all are."""
        if self.acknowledged >= self.looked:
            self.looked, self.looked_at = self.sent, now
        return inf if self.acknowledged == self.sent else self.looked_at


class Unacknowledged:
    """Counts what is under way to the broker. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._partitions: dict[TopicPartition, _Sent] = {}
        self.count = self.size = 0
        """Records, and bytes, when we last looked."""
        self.oldest = inf
        """When, at the latest, the oldest of them was sent."""

    def sent(self, output: Output, now: float) -> int:
        """Count one in; return its size, which `acknowledged` asks for."""
        of = self._partitions.get(output[:2])
        if of is None:
            of = self._partitions.setdefault(output[:2], _Sent(now))
        size = len(output.value or b"") + _OVERHEAD
        of.sent += 1
        of.bytes_sent += size
        return size

    def acknowledged(self, at: TopicPartition, size: int) -> None:
        """Count one out."""
        of = self._partitions[at]
        of.acknowledged += 1
        of.bytes_acknowledged += size

    def is_late(self, now: float, seconds: float) -> bool:
        """Whether one has waited for so long, or they are too many for more to be begun."""
        return now - self.oldest >= seconds or self.size >= SIZE_MAX

    def look(self, now: float) -> None:
        """Add up. Called on the thread that polls, after acknowledgements."""
        count, size, oldest = 0, 0, inf
        for of in list(self._partitions.values()):
            count += of.sent - of.acknowledged
            size += of.bytes_sent - of.bytes_acknowledged
            oldest = min(oldest, of.oldest(now))
        self.count, self.size, self.oldest = count, size, oldest
