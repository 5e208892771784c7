"""What the client library says of a member, every few seconds, as JSON: a few figures of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from engine.ports import TopicPartition
from engine.runtime import telemetry

EVERY_MS = 5_000


class Figures(NamedTuple):
    """Of one broker, counted since the client knows it."""

    sent_bytes: int = 0
    received_bytes: int = 0
    timeouts: int = 0
    """Requests that it let time out."""


Brokers = Mapping[str, Figures]
"""By name: a client forgets a broker that is gone, with its counts, and counts from 0 if it comes back."""


def noted(group: str, unread: Callable[[Sequence[TopicPartition]], None]) -> Callable[[str], None]:
    """Return what takes statistics in: counts, and tells which partitions (full topic names) are unread."""
    before: Brokers = {}

    def note(statistics: str) -> None:
        nonlocal before
        said = orjson.loads(statistics)
        brokers = brokers_of(said)
        new = grown(before, brokers)
        telemetry.KAFKA_SENT.labels(group).inc(new.sent_bytes)
        telemetry.KAFKA_RECEIVED.labels(group).inc(new.received_bytes)
        telemetry.KAFKA_TIMEOUTS.labels(group).inc(new.timeouts)
        before = brokers
        unread(list(unread_of(said)))

    return note


def brokers_of(said: dict[str, Any]) -> Brokers:
    """Read the figures."""
    return {
        name: Figures(broker["txbytes"], broker["rxbytes"], broker["req_timeouts"])
        for name, broker in said["brokers"].items()
    }


def grown(before: Brokers, now: Brokers) -> Figures:
    """What was counted in between, by all brokers together; never negative."""
    pairs = [(before.get(name, Figures()), figures) for name, figures in now.items()]
    return Figures(*(sum(_growth(b[i], n[i]) for b, n in pairs) for i in range(len(Figures._fields))))


def _growth(before: int, now: int) -> int:
    return now - before if now >= before else now


def unread_of(said: dict[str, Any]) -> Iterator[TopicPartition]:
    """Where something was fetched and not polled, or not fetched; control records count as fetched."""
    for name, topic in said["topics"].items():
        for number, partition in topic["partitions"].items():
            is_behind = 0 <= partition["next_offset"] < partition["ls_offset"]
            if int(number) >= 0 and (partition["fetchq_cnt"] or is_behind):
                yield name, int(number)
