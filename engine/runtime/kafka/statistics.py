"""What the client library says of a member, every few seconds, as JSON: a few figures of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from engine.ports import TopicPartition
from engine.runtime import telemetry

EVERY_MS = 5_000


class Figures(NamedTuple):
    """Counted since the client was made."""

    sent_bytes: int = 0
    received_bytes: int = 0
    timeouts: int = 0
    """Requests that a broker let time out."""


def noted(group: str, unread: Callable[[Sequence[TopicPartition]], None]) -> Callable[[str], None]:
    """Return what takes statistics in: counts, and tells which partitions (full topic names) are unread."""
    before = Figures()

    def note(statistics: str) -> None:
        nonlocal before
        said = orjson.loads(statistics)
        figures = figures_of(said)
        telemetry.KAFKA_SENT.labels(group).inc(figures.sent_bytes - before.sent_bytes)
        telemetry.KAFKA_RECEIVED.labels(group).inc(figures.received_bytes - before.received_bytes)
        telemetry.KAFKA_TIMEOUTS.labels(group).inc(figures.timeouts - before.timeouts)
        before = figures
        unread(list(unread_of(said)))

    return note


def figures_of(said: dict[str, Any]) -> Figures:
    """Read the figures."""
    timeouts = sum(broker["req_timeouts"] for broker in said["brokers"].values())
    return Figures(said["tx_bytes"], said["rx_bytes"], timeouts)


def unread_of(said: dict[str, Any]) -> Iterator[TopicPartition]:
    """Where something was fetched and not polled, or not fetched; control records count as fetched."""
    for name, topic in said["topics"].items():
        for number, partition in topic["partitions"].items():
            is_behind = 0 <= partition["next_offset"] < partition["ls_offset"]
            if int(number) >= 0 and (partition["fetchq_cnt"] or is_behind):
                yield name, int(number)
