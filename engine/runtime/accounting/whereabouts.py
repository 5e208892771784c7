"""Where pending deliveries wait: on `deliveries`, on a tier, or in the range of a parked lane.

Reads Kafka headers only. Parked is who was parked before the look at the log or
after it: a lane that parks or unparks meanwhile was not late.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.core.lane import Lane
from engine.ports import Log, Reader, Record, TopicPartition
from engine.runtime.settings import Settings
from engine.runtime.topics import partitions_of, tier_topics
from schemas import headers
from schemas.codec import Codec, UndecodableError

READ_BY = {"deliveries": "dispatcher", "attempts": "scheduler"}
"""Who takes in what waits on a topic."""


class Place(NamedTuple):
    """A record that holds a delivery's next attempt."""

    topic: str
    partition: int
    offset: int


@dataclass(slots=True)
class Whereabouts:
    """What the log says of where deliveries wait."""

    places: dict[tuple[str, int], Place] = field(default_factory=dict)
    """By (delivery, attempt), of its last record."""
    cursors: dict[str, int] = field(default_factory=dict)
    """Of parked endpoints, by id: where their backlog begins on their partition of `deliveries`."""
    taken_in: dict[TopicPartition, int | None] = field(default_factory=dict)
    """Up to where the dispatcher has finished with `deliveries`, the scheduler with `attempts`."""

    def place(self, delivery: str, attempt: int, told: Place) -> Place | None:
        """Where an attempt waits; the record that told of it may itself wait for the scheduler."""
        found = self.places.get((delivery, attempt))
        committed = self.taken_in.get((told.topic, told.partition))
        if found is None and committed is not None and told.offset >= committed:
            return told
        return found

    def is_parked(self, place: Place, endpoint: str) -> bool:
        """Whether a record is the backlog of a parked lane."""
        cursor = self.cursors.get(endpoint)
        return cursor is not None and place.topic == "deliveries" and place.offset >= cursor


class Finder:
    """Looks for deliveries; made before anything else is read, since lanes may unpark meanwhile."""

    def __init__(self, reader: Reader, log: Log, settings: Settings, changed_since: int) -> None:
        """What unparked since then (microseconds) may have deliveries under way: it counts as parked."""
        self._reader = reader
        self._changed_since = changed_since
        self._log = log
        self._topics = ("deliveries", *tier_topics(settings))
        self._codec = Codec()
        self._cursors = self._parked()

    def find(self, wanted: Collection[str], since: int) -> Whereabouts:
        """Look for deliveries among what was written since (microseconds)."""
        places = self._reader.since(partitions_of(self._log, *self._topics), max(0, since))
        found = Whereabouts(_places(self._reader.read(places), wanted) if wanted else {})
        for cursors in (self._cursors, self._parked()):
            for endpoint, cursor in cursors.items():
                found.cursors[endpoint] = min(cursor, found.cursors.get(endpoint, cursor))
        for topic, group in READ_BY.items():
            found.taken_in |= self._reader.committed(group, partitions_of(self._log, topic))
        return found

    def _parked(self) -> dict[str, int]:
        starts = self._reader.starts(partitions_of(self._log, "lanes"))
        latest = {(record.key or b"").decode(): record for record in self._reader.read(starts)}
        cursors = {}
        for endpoint, record in latest.items():
            lane = lane_of(self._codec, record)
            if lane is not None or record.timestamp >= self._changed_since:
                cursors[endpoint] = 0 if lane is None else lane.cursor
        return cursors


def lane_of(codec: Codec, record: Record) -> Lane | None:
    """Return the parked lane that a record of `lanes` says there is; None if it is not parked."""
    if record.value is None:
        return None
    try:
        lane = codec.decode_as(Lane, record.value)
    except UndecodableError:
        return None
    return lane if lane.parked else None


def _places(records: Iterable[Record], wanted: Collection[str]) -> dict[tuple[str, int], Place]:
    found: dict[tuple[str, int], Place] = {}
    for record in records:
        delivery = record.headers.get(headers.DELIVERY, b"").decode()
        number = record.headers.get(headers.ATTEMPT, b"")
        if delivery in wanted and number.isdigit():
            key, place = (delivery, int(number)), Place(record.topic, record.partition, record.offset)
            found[key] = _preferred(found.get(key), place)
    return found


def _preferred(known: Place | None, place: Place) -> Place:
    """Of several records the one that was, or will be, attempted last: `deliveries` before any tier."""
    if known is None or known.topic != "deliveries":
        return place
    return place if place.topic == "deliveries" and place.offset > known.offset else known


def text(place: Place, taken_in: Mapping[TopicPartition, int | None]) -> str:
    """Say where a record lies, and whether the group that reads it is past it."""
    where = f"at {place.topic}/{place.partition} offset {place.offset}"
    committed = taken_in.get((place.topic, place.partition))
    if committed is None:
        return where
    done = "has finished with" if place.offset < committed else "has not finished with"
    return f"{where}, which the {READ_BY[place.topic]} {done} (it is at {committed})"
