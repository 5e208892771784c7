"""What the log says about every delivery of a scope, as reconciling reads it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from engine.core.accounting import (
    UNKNOWN,
    Fact,
    Illegal,
    Matched,
    PassedOver,
    Range,
    State,
    evolve,
    fact_of,
    is_repeated,
    range_of,
)
from engine.core.model import AttemptFinished, RoutedBatch
from engine.core.replay import ResentBatch
from engine.core.routing import delivery_id
from engine.ports import Record
from engine.runtime.accounting.comparison import Finding
from engine.runtime.accounting.whereabouts import Place
from schemas.codec import Codec, UndecodableError

NOWHERE = Place("", 0, 0)


@dataclass(slots=True)
class Entry:
    """What the log says about one delivery. Times are microseconds since 1970 UTC."""

    endpoint: str
    state: State = UNKNOWN
    changed_at: int = 0
    due: int = 0
    told: Place = NOWHERE
    """The record that its state comes from."""
    source: tuple[int, int] = (0, 0)
    is_first: bool = True
    """Not a resend, replay or test."""
    routed: bool = False
    """Named by a RoutedBatch."""
    resent: bool = False
    """Named by a ResentBatch."""
    is_request_void: bool = False
    """A copy tells of a request for an attempt that the first record ended without one; it has a row."""

    @property
    def named(self) -> bool:
        """Whether the log says that there is to be such a delivery."""
        return self.routed or self.resent

    @property
    def rows(self) -> int:
        """Rows that ClickHouse's `attempts` has of it."""
        return self.state.attempts + self.is_request_void


@dataclass(slots=True)
class Book:
    """Every delivery of the scope that is on the log."""

    entries: dict[str, Entry] = field(default_factory=dict)
    endpoints: dict[str, str] = field(default_factory=dict)
    """Each endpoint's id once: there are many deliveries to each."""
    ranges: defaultdict[int, list[Range]] = field(default_factory=lambda: defaultdict(list))
    illegal: list[Finding] = field(default_factory=list)

    def entry(self, delivery: str, endpoint: str) -> Entry:
        """Return what is known of a delivery, which may be nothing yet."""
        if (entry := self.entries.get(delivery)) is None:
            entry = self.entries[delivery] = Entry(self.endpoints.setdefault(endpoint, endpoint))
        return entry

    def fold(self, delivery: str, entry: Entry, fact: Fact, at: Record, due: int) -> None:
        """Fold a fact into a delivery's state."""
        if not is_repeated(entry.state, fact):
            state = evolve(entry.state, fact)
            if isinstance(state, Illegal):
                self.illegal.append(Finding(delivery, f"{fact} cannot follow {entry.state}"))
            else:
                entry.state, entry.changed_at, entry.due = state, at.timestamp, due
                entry.told = Place(at.topic, at.partition, at.offset)


class Wanted(Protocol):
    """Which deliveries are read: `engine.runtime.accounting.reconcile.Scope`."""

    def holds(self, accepted_at: int) -> bool:
        """Whether a delivery belongs to it."""


def _decoded(codec: Codec, records: Iterable[Record]) -> Iterator[tuple[Record, object]]:
    """Records that can be decoded; what cannot has gone to `invalid`."""
    for record in records:
        try:
            yield record, codec.decode(record.value)
        except UndecodableError:
            continue


def read_attempts(book: Book, codec: Codec, records: Iterable[Record], scope: Wanted) -> None:
    """Take in `attempts`."""
    for record, attempt in _decoded(codec, records):
        if isinstance(attempt, AttemptFinished) and scope.holds(attempt.accepted_at):
            fact, due = fact_of(attempt), attempt.retry_at or attempt.accepted_at
            entry = book.entry(attempt.delivery_id, attempt.endpoint_id)
            book.fold(attempt.delivery_id, entry, fact, record, due)
            entry.is_request_void |= fact.made and entry.state.attempts < fact.number == entry.state.number
            entry.source = (attempt.source_partition, attempt.source_offset)
            entry.is_first = not attempt.origin and attempt.trigger == "scheduled"


def read_routings(book: Book, codec: Codec, records: Iterable[Record], wanted: tuple[str, Wanted]) -> None:
    """Take in `routings`; `wanted` begins with the full name of `messages`."""
    topic, scope = wanted
    for record, batch in _decoded(codec, records):
        match batch:
            case RoutedBatch():
                _read_routed(book, record, batch, (topic, scope))
            case ResentBatch():
                _read_resent(book, record, batch, scope)


def _read_routed(book: Book, record: Record, batch: RoutedBatch, wanted: tuple[str, Wanted]) -> None:
    topic, scope = wanted
    book.ranges[batch.partition].append(range_of(batch))
    for endpoint, fact, offset, accepted_at in _facts(batch):
        if scope.holds(accepted_at):
            delivery = delivery_id(topic, batch.partition, offset, endpoint)
            entry = book.entry(delivery, endpoint)
            book.fold(delivery, entry, fact, record, accepted_at)
            entry.routed = True


def _read_resent(book: Book, record: Record, batch: ResentBatch, scope: Wanted) -> None:
    for each in batch.deliveries:
        if scope.holds(each.accepted_at):
            entry = book.entry(each.delivery_id, each.endpoint_id)
            book.fold(each.delivery_id, entry, Matched(), record, batch.at)
            entry.resent, entry.is_first = True, False


def _facts(batch: RoutedBatch) -> Iterator[tuple[str, Fact, int, int]]:
    for routing in batch.routings:
        if routing.verdict == "routed":
            for endpoint in routing.matched:
                yield endpoint, Matched(), routing.offset, routing.accepted_at
            for skipped in routing.skipped:
                yield skipped.endpoint_id, PassedOver(skipped.reason), routing.offset, routing.accepted_at
