"""Reconcile: prove from the log that nothing was lost, and that ClickHouse says the same.

The order of reading makes a running system provable: `attempts` first, then
`routings`, then where deliveries wait, then ClickHouse. So whatever is known
to one step was already there for the next one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from engine.core.accounting import (
    UNKNOWN,
    Account,
    Fact,
    Illegal,
    Matched,
    PassedOver,
    Range,
    State,
    evolve,
    fact_of,
    gaps,
    is_repeated,
    range_of,
    total,
)
from engine.core.model import AttemptFinished, DeliveryScheduled, RoutedBatch
from engine.core.routing import delivery_id
from engine.ports import Log, Reader, Record, TopicPartition
from engine.runtime.clickhouse import DeliveryState
from engine.runtime.settings import Settings
from engine.runtime.topics import tier_topics
from schemas.codec import Codec, UndecodableError

R = TypeVar("R")

GRACE_US = 60_000_000
"""How late a delivery, and the projection of a fact, may be."""
SHOWN = 20
"""How many of each kind of finding a report holds; the counts are of all."""


class History(Protocol):
    """What is asked of ClickHouse: `engine.runtime.clickhouse.History`."""

    def states(self) -> Iterator[DeliveryState]:
        """Every delivery's state."""

    def made(self) -> Iterator[tuple[str, int, int]]:
        """(delivery id, rows in `attempts`, the last one's microseconds) of every delivery with any."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A delivery that is not as it must be, and how."""

    delivery_id: str
    problem: str


@dataclass(frozen=True, slots=True)
class Report:
    """What reconciling found. `moving`: differs from ClickHouse, but changed within the grace."""

    account: Account
    unrouted: int
    """Messages that no RoutedBatch covers yet, being newer than the last one."""
    gaps: dict[int, list[Range]]
    lost: list[Finding]
    illegal: int
    illegal_shown: list[Finding]
    differences: int
    differences_shown: list[Finding]
    moving: int

    @property
    def ok(self) -> bool:
        """Whether everything is accounted for and ClickHouse agrees."""
        return not (self.gaps or self.account.unaccounted or self.illegal or self.differences)


@dataclass(slots=True)
class _Entry:
    """What the log says about one delivery. Times are microseconds since 1970 UTC."""

    state: State = UNKNOWN
    changed_at: int = 0
    due: int = 0
    source: tuple[int, int] = (0, 0)
    is_first: bool = True
    """Not a resend, replay or test."""
    routed: bool = False
    is_request_void: bool = False
    """A copy tells of a request for an attempt that the first record ended without one; it has a row."""

    @property
    def rows(self) -> int:
        """Rows that ClickHouse's `attempts` has of it."""
        return self.state.attempts + self.is_request_void


@dataclass(slots=True)
class _Book:
    """Every delivery on the log."""

    entries: defaultdict[str, _Entry] = field(default_factory=lambda: defaultdict(_Entry))
    ranges: defaultdict[int, list[Range]] = field(default_factory=lambda: defaultdict(list))
    illegal: list[Finding] = field(default_factory=list)

    def fold(self, delivery: str, fact: Fact, at: int, due: int) -> _Entry:
        entry = self.entries[delivery]
        if not is_repeated(entry.state, fact):
            state = evolve(entry.state, fact)
            if isinstance(state, Illegal):
                self.illegal.append(Finding(delivery, f"{fact} cannot follow {entry.state}"))
            else:
                entry.state, entry.changed_at, entry.due = state, at, due
        return entry


def reconcile(reader: Reader, log: Log, history: History, settings: Settings, now: int) -> Report:
    """Prove the accounting from the log and compare ClickHouse with it; `now` is the time at the start.

    Reads all of `attempts` and `routings`, and of the rest what is needed; about 1 KB of memory a delivery.
    """
    book, codec = _Book(), Codec()
    _read_attempts(book, codec, _all(reader, log, "attempts"))
    ends = reader.ends(_partitions(log, "messages"))
    _read_routings(book, codec, _all(reader, log, "routings"), settings.prefix + "messages")
    _find_unrouted(book)
    pending = {d: e for d, e in book.entries.items() if e.routed and e.state.status == "pending"}
    places = _partitions(log, "deliveries", *tier_topics(settings))
    lost = _find_lost(pending, _waiting(pending, codec, reader, places), now)
    different, moving = _compare(book, history, now)
    return Report(
        total((e.state for e in book.entries.values() if e.routed), len(lost)),
        _unrouted(book, ends),
        _gaps(book, reader.starts(_partitions(log, "messages"))),
        lost,
        len(book.illegal),
        book.illegal[:SHOWN],
        len(different),
        different[:SHOWN],
        moving,
    )


def _partitions(log: Log, *topics: str) -> list[TopicPartition]:
    return [(topic, n) for topic in topics for n in range(log.partitions(topic))]


def _all(reader: Reader, log: Log, topic: str) -> Iterator[Record]:
    return reader.read(reader.starts(_partitions(log, topic)))


def _ours(codec: Codec, kind: type[R], records: Iterable[Record]) -> Iterator[tuple[Record, R]]:
    """Records that are of a kind; what is not has gone to `invalid`."""
    for record in records:
        try:
            yield record, codec.decode_as(kind, record.value)
        except UndecodableError:
            continue


def _read_attempts(book: _Book, codec: Codec, records: Iterable[Record]) -> None:
    for record, attempt in _ours(codec, AttemptFinished, records):
        fact, due = fact_of(attempt), attempt.retry_at or attempt.accepted_at
        entry = book.fold(attempt.delivery_id, fact, record.timestamp, due)
        entry.is_request_void |= fact.made and entry.state.attempts < fact.number == entry.state.number
        entry.source = (attempt.source_partition, attempt.source_offset)
        entry.is_first = not attempt.origin and attempt.trigger == "scheduled"


def _read_routings(book: _Book, codec: Codec, records: Iterable[Record], topic: str) -> None:
    for record, batch in _ours(codec, RoutedBatch, records):
        book.ranges[batch.partition].append(range_of(batch))
        for endpoint, fact, offset, accepted_at in _facts(batch):
            delivery = delivery_id(topic, batch.partition, offset, endpoint)
            book.fold(delivery, fact, record.timestamp, accepted_at).routed = True


def _facts(batch: RoutedBatch) -> Iterator[tuple[str, Fact, int, int]]:
    for routing in batch.routings:
        if routing.verdict == "routed":
            for endpoint in routing.matched:
                yield endpoint, Matched(), routing.offset, routing.accepted_at
            for skipped in routing.skipped:
                yield skipped.endpoint_id, PassedOver(skipped.reason), routing.offset, routing.accepted_at


def _frontier(book: _Book, partition: int) -> int:
    """Return the offset that the next range begins at."""
    return max((r.last + 1 for r in book.ranges[partition]), default=0)


def _covered(book: _Book) -> dict[int, range]:
    """Offsets of `messages` that the ranges still on the log are about, gaps included."""
    return {n: range(min(r.first for r in found), _frontier(book, n)) for n, found in book.ranges.items()}


def _find_unrouted(book: _Book) -> None:
    """An attempt needs a RoutedBatch that names it, unless that is still to be written or gone already."""
    covered = _covered(book)
    for delivery, entry in book.entries.items():
        partition, offset = entry.source
        if entry.is_first and not entry.routed and offset in covered.get(partition, ()):
            book.illegal.append(Finding(delivery, "attempted, and no RoutedBatch names it"))


def _unrouted(book: _Book, ends: dict[TopicPartition, int]) -> int:
    return sum(max(0, end - _frontier(book, partition)) for (_, partition), end in ends.items())


def _gaps(book: _Book, starts: dict[TopicPartition, int]) -> dict[int, list[Range]]:
    found = {partition: gaps(book.ranges[partition], start) for (_, partition), start in starts.items()}
    return {partition: missing for partition, missing in found.items() if missing}


def _waiting(
    pending: Mapping[str, _Entry], codec: Codec, reader: Reader, places: Sequence[TopicPartition]
) -> set[tuple[str, int]]:
    """(delivery, attempt) of what `deliveries` and the tiers hold of pending deliveries."""
    if not pending:
        return set()
    # A delivery is written before the record that makes it pending is, hence the grace.
    oldest = min(entry.changed_at for entry in pending.values()) - GRACE_US
    records = reader.read(reader.since(places, max(0, oldest)))
    scheduled = (delivery for _, delivery in _ours(codec, DeliveryScheduled, records))
    return {(s.delivery_id, s.attempt) for s in scheduled if s.delivery_id in pending}


def _find_lost(pending: Mapping[str, _Entry], waiting: Set[tuple[str, int]], now: int) -> list[Finding]:
    problems = ((d, _why_lost(e, now, found=(d, e.state.number + 1) in waiting)) for d, e in pending.items())
    return [Finding(delivery, why) for delivery, why in problems if why]


def _why_lost(entry: _Entry, now: int, *, found: bool) -> str:
    attempt = entry.state.number + 1
    if not found and entry.changed_at + GRACE_US < now:
        return f"attempt {attempt} is neither in `deliveries` nor in a tier"
    if entry.due + GRACE_US < now:
        return f"attempt {attempt} is overdue by {(now - entry.due) // 1_000_000} s"
    return ""


def _compare(book: _Book, history: History, now: int) -> tuple[list[Finding], int]:
    """(what differs from ClickHouse, how many of them changed too lately to be judged)."""
    known = {d: e for d, e in book.entries.items() if e.routed or e.state.number}
    found = [*_compare_states(known, _covered(book), history), *_compare_attempts(known, history)]
    settled = [finding for finding, changed_at in found if changed_at + GRACE_US < now]
    return settled, len(found) - len(settled)


def _compare_states(
    known: Mapping[str, _Entry], covered: Mapping[int, range], history: History
) -> Iterator[tuple[Finding, int]]:
    unseen = set(known)
    for row in history.states():
        unseen.discard(row.delivery_id)
        entry = known.get(row.delivery_id)
        if entry is None:
            # ClickHouse keeps history for longer than the log does.
            if row.offset in covered.get(row.partition, ()):
                yield Finding(row.delivery_id, "in ClickHouse, and not on the log"), row.updated_at
        elif (row.status, row.attempts) != (entry.state.status, entry.state.attempts):
            log_says = f"{entry.state.status} after {entry.state.attempts}"
            problem = f"{row.status} after {row.attempts} attempts in ClickHouse, {log_says} on the log"
            yield Finding(row.delivery_id, problem), max(row.updated_at, entry.changed_at)
    yield from _missing(known, unseen, "not in ClickHouse's deliveries")


def _compare_attempts(known: Mapping[str, _Entry], history: History) -> Iterator[tuple[Finding, int]]:
    """What ClickHouse alone knows has been found among the states."""
    unseen = {delivery for delivery, entry in known.items() if entry.rows}
    for delivery, made, last in history.made():
        unseen.discard(delivery)
        entry = known.get(delivery)
        if entry is not None and made != entry.rows:
            problem = f"{made} rows in ClickHouse's attempts, {entry.rows} attempts on the log"
            yield Finding(delivery, problem), max(last, entry.changed_at)
    yield from _missing(known, unseen, "not in ClickHouse's attempts")


def _missing(
    known: Mapping[str, _Entry], unseen: Iterable[str], problem: str
) -> Iterator[tuple[Finding, int]]:
    return ((Finding(delivery, problem), known[delivery].changed_at) for delivery in sorted(unseen))


def summary(report: Report) -> Sequence[str]:
    """The report in lines for people; the last one is the sum."""
    a = report.account
    lines = [
        f"partition {partition} of messages: offsets {gap.first} to {gap.last} are in no RoutedBatch"
        for partition, missing in sorted(report.gaps.items())
        for gap in missing[:SHOWN]
    ]
    lines += [f"unaccounted {f.delivery_id}: {f.problem}" for f in report.lost[:SHOWN]]
    lines += [f"illegal {f.delivery_id}: {f.problem}" for f in report.illegal_shown]
    lines += [f"different {f.delivery_id}: {f.problem}" for f in report.differences_shown]
    lines.append(
        f"log and ClickHouse: {report.differences} differences, {report.moving} still moving,"
        f" {report.unrouted} messages not routed yet, {report.illegal} illegal records"
    )
    lines.append(
        f"accounted: {a.matched} deliveries = {a.delivered} delivered + {a.failed} failed"
        f" + {a.skipped} skipped + {a.pending} pending, {a.unaccounted} unaccounted"
    )
    return lines
