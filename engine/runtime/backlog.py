"""What a member of a group has polled and not done, and how old it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from engine.ports import Record, TopicPartition


class _Run(NamedTuple):
    """Records of one partition that were polled in one go."""

    last: int
    appended_at: int
    """Of the first of them, microseconds since 1970 UTC."""


class Backlog:
    """Written by the thread that polls, read by the probes.

    Runs are kept instead of records, so the oldest record not done may look older
    than it is, by what one poll spans; it never looks younger.
    """

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics
        self._runs: dict[TopicPartition, deque[_Run]] = {}
        self._oldest: dict[TopicPartition, int] = {}
        """Append time of the oldest record that was polled and is not done, where there is one."""
        self._last: dict[TopicPartition, int] = {}
        """Append time of the last record polled: what was not polled is younger."""
        self._unread: dict[TopicPartition, int] = {}
        """Since when we know of records that were not polled, microseconds since 1970 UTC."""

    def gained(self, partitions: Iterable[TopicPartition]) -> None:
        """These are ours."""
        self._runs.update((at, deque()) for at in partitions)

    def gone(self, partitions: Iterable[TopicPartition]) -> None:
        """These are not ours any more."""
        for at in partitions:
            for kept in (self._runs, self._oldest, self._last, self._unread):
                kept.pop(at, None)

    def polled(self, records: Sequence[Record]) -> None:
        """Take in what a poll returned, in order a partition."""
        if not records:
            return
        first = last = records[0]
        for record in records:
            if record.partition != first.partition or record.topic != first.topic:
                self._add(first, last)
                first = record
            last = record
        self._add(first, last)

    def _add(self, first: Record, last: Record) -> None:
        at = first.topic, first.partition
        runs = self._runs.get(at)
        if runs is None:  # it was taken from us meanwhile
            return
        runs.append(_Run(last.offset, first.timestamp))
        self._oldest.setdefault(at, first.timestamp)
        self._last[at] = first.timestamp

    def done(self, positions: Mapping[TopicPartition, int]) -> None:
        """All below these offsets is done."""
        for at, offset in positions.items():
            runs = self._runs.get(at, ())
            while runs and runs[0].last < offset:
                runs.popleft()
            if runs:
                self._oldest[at] = runs[0].appended_at
            else:
                self._oldest.pop(at, None)

    def unread(self, partitions: Iterable[TopicPartition], now: int) -> None:
        """Of these the client knows records that were not polled, and of no others; `now` in microseconds."""
        known = self._unread
        self._unread = {at: known.get(at, now) for at in partitions if at in self._runs}

    def ages_s(self, now: int) -> dict[str, float]:
        """Age of the oldest record not done of each topic, seconds; `now` in microseconds."""
        ages = dict.fromkeys(self._topics, 0.0)
        unread = {at: max(since, self._last.get(at, 0)) for at, since in list(self._unread.items())}
        for at, since in (unread | dict(self._oldest)).items():
            ages[at[0]] = max(ages.get(at[0], 0.0), (now - since) / 1e6)
        return ages
