"""Reconcile: prove from the log that nothing was lost, and that ClickHouse says the same.

The order of reading makes a running system provable: `attempts` first, then
`routings`, then where deliveries wait, then ClickHouse. So whatever is known
to one step was already there for the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

from engine.core.accounting import Account, Range, gaps, total
from engine.core.routing import partition_of
from engine.ports import Log, Reader, Record, TopicPartition
from engine.runtime.accounting.accounts import FOREVER
from engine.runtime.accounting.book import Book, Entry, read_attempts, read_routings
from engine.runtime.accounting.comparison import DeliveryStates, Finding, compare
from engine.runtime.accounting.whereabouts import Finder, Whereabouts, text
from engine.runtime.settings import Settings
from engine.runtime.topics import catalogue, partitions_of
from schemas.codec import Codec

GRACE_US = 60_000_000
"""How late a delivery, and the projection of a fact, may be."""
SHOWN = 20
"""How many of each kind of finding a report holds; the counts are of all."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is to be proven: messages accepted from `since` to before `until`, as of `now`; microseconds."""

    now: int
    since: int = 0
    until: int = FOREVER
    grace_us: int = GRACE_US
    shown: int = SHOWN

    def holds(self, accepted_at: int) -> bool:
        """Whether a delivery belongs to it."""
        return self.since <= accepted_at < self.until


@dataclass(frozen=True, slots=True)
class Report:
    """What reconciling found. `moving`: differs from ClickHouse, but changed within the grace."""

    account: Account
    resends: Account
    """Of deliveries that were made again, and test sends: no part of the equation."""
    unrouted: int
    """Messages that no RoutedBatch covers yet, being newer than the last one."""
    unrouted_late: int
    """Those of them that were accepted longer ago than the grace."""
    gaps: dict[int, list[Range]]
    lost: list[Finding]
    illegal: int
    illegal_shown: list[Finding]
    differences: int
    differences_shown: list[Finding]
    moving: int
    parked: int
    """Pending deliveries that wait in the range of a parked lane."""
    since: int
    """Since when deliveries were proven (microseconds), if the log was trimmed and more was asked; else 0."""

    @property
    def ok(self) -> bool:
        """Whether everything is accounted for and ClickHouse agrees."""
        lost = self.gaps or self.unrouted_late or self.lost
        return not (lost or self.illegal or self.differences)


class Sources(NamedTuple):
    """What is read."""

    reader: Reader
    log: Log
    history: DeliveryStates


def reconcile(sources: Sources, settings: Settings, scope: Scope) -> Report:
    """Prove the accounting of a scope from the log and compare ClickHouse with it.

    Reads `routings` and `attempts` from the beginning of the scope on; about 0.7 KB of memory a delivery.
    """
    reader, log, history = sources
    finder = Finder(reader, log, settings, scope.now - scope.grace_us)
    provable = _provable_since(sources, settings, scope.now)
    trimmed = provable if provable > scope.since else 0
    scope = replace(scope, since=max(scope.since, provable))
    book, codec = Book(), Codec()
    read_attempts(book, codec, _from(sources, "attempts", scope), scope)
    bounds = _bounds(sources, scope)
    read_routings(book, codec, _from(sources, "routings", scope), (settings.prefix + "messages", scope))
    _find_unrouted(book)
    pending = {d: e for d, e in book.entries.items() if e.named and e.state.status == "pending"}
    # A delivery is written before the record that makes it pending is, hence the grace.
    oldest = min((e.changed_at for e in pending.values()), default=scope.now) - GRACE_US
    where = finder.find(pending.keys(), oldest)
    lost = [Finding(d, why) for d, e in pending.items() if (why := _why_lost(d, e, where, (scope, log)))]
    known = {d: e for d, e in book.entries.items() if e.named or e.state.number}
    different, moving = compare(known, history, scope)
    waiting = _unrouted(book, bounds, reader, scope)
    return Report(
        account=total((e.state for e in book.entries.values() if e.routed), _lost(book, lost, resent=False)),
        resends=total((e.state for e in book.entries.values() if e.resent), _lost(book, lost, resent=True)),
        unrouted=len(waiting),
        unrouted_late=sum(at + scope.grace_us < scope.now for at in waiting),
        gaps=_gaps(book, bounds),
        lost=lost,
        illegal=len(book.illegal),
        illegal_shown=book.illegal[: scope.shown],
        differences=len(different),
        differences_shown=different[: scope.shown],
        moving=moving,
        parked=sum(_is_parked(d, e, where) for d, e in pending.items()),
        since=trimmed,
    )


def _provable_since(sources: Sources, settings: Settings, now: int) -> int:
    """What was accepted before this may have lost records to the retention; 0 if nothing was trimmed."""
    reader, log, _ = sources
    kept = {spec.name: (spec.retention_ms or 0) * 1000 for spec in catalogue(settings)}
    since = 0
    for at, start in reader.starts(partitions_of(log, "routings", "attempts")).items():
        if start > 0:
            first = next(iter(reader.read({at: start})), None)
            since = max(since, now - kept[at[0]] if first is None else first.timestamp)
    return since


def _from(sources: Sources, topic: str, scope: Scope) -> Iterator[Record]:
    """Records of a topic that can be about the scope: what follows from a message is never older than it."""
    reader, all_of = sources.reader, partitions_of(sources.log, topic)
    return reader.read(reader.since(all_of, scope.since) if scope.since else reader.starts(all_of))


def _bounds(sources: Sources, scope: Scope) -> dict[int, Range]:
    """Offsets of `messages` that the scope is about, by partition: first, and the one before its end."""
    reader, all_of = sources.reader, partitions_of(sources.log, "messages")
    firsts = reader.since(all_of, scope.since) if scope.since else reader.starts(all_of)
    ends = reader.since(all_of, scope.until) if scope.until < scope.now else reader.ends(all_of)
    return {at[1]: Range(firsts[at], ends[at] - 1) for at in all_of}


def _lost(book: Book, lost: Sequence[Finding], *, resent: bool) -> int:
    return sum(book.entries[each.delivery_id].resent == resent for each in lost)


def _frontier(book: Book, partition: int) -> int:
    """Return the offset that the next range begins at."""
    return max((r.last + 1 for r in book.ranges[partition]), default=0)


def _find_unrouted(book: Book) -> None:
    """An attempt needs a RoutedBatch that names it, unless that is still to be written or gone already."""
    covered = {n: range(min(r.first for r in found), _frontier(book, n)) for n, found in book.ranges.items()}
    for delivery, entry in book.entries.items():
        partition, offset = entry.source
        if entry.is_first and not entry.routed and offset in covered.get(partition, ()):
            book.illegal.append(Finding(delivery, "attempted, and no RoutedBatch names it"))


def _unrouted(book: Book, bounds: dict[int, Range], reader: Reader, scope: Scope) -> list[int]:
    """When each message behind the last RoutedBatch was accepted; what was aborted is none."""
    starts: dict[TopicPartition, int] = {}
    for partition, bound in bounds.items():
        if (frontier := max(_frontier(book, partition), bound.first)) <= bound.last:
            starts["messages", partition] = frontier
    tail = (r for r in reader.read(starts) if r.offset <= bounds[r.partition].last)
    return [r.timestamp for r in tail if scope.holds(r.timestamp)]


def _gaps(book: Book, bounds: dict[int, Range]) -> dict[int, list[Range]]:
    found = {}
    for partition, bound in bounds.items():
        missing = gaps(book.ranges[partition], bound.first)
        found[partition] = [Range(m.first, min(m.last, bound.last)) for m in missing if m.first <= bound.last]
    return {partition: missing for partition, missing in found.items() if missing}


def _is_parked(delivery: str, entry: Entry, where: Whereabouts) -> bool:
    place = where.places.get((delivery, entry.state.number + 1))
    return place is not None and where.is_parked(place, entry.endpoint)


def _why_lost(delivery: str, entry: Entry, where: Whereabouts, asked: tuple[Scope, Log]) -> str:
    """Why a pending delivery is unaccounted, and where it should be; empty if it is pending indeed."""
    scope, log = asked
    attempt = entry.state.number + 1
    place = where.place(delivery, attempt, entry.told)
    if place is None:
        if entry.changed_at + scope.grace_us >= scope.now:
            return ""
        partition = partition_of(entry.endpoint, log.partitions("deliveries"))
        where_due = "a tier" if entry.due > scope.now else f"deliveries/{partition}"
        return (
            f"attempt {attempt} is neither in `deliveries` nor in a tier, not attempted either: "
            f"it should be in {where_due}, for endpoint {entry.endpoint}"
        )
    late = scope.now - entry.due
    if late <= scope.grace_us or where.is_parked(place, entry.endpoint):
        return ""
    return f"attempt {attempt} is overdue by {late // 1_000_000} s: it lies {text(place, where.taken_in)}"


def summary(report: Report, shown: int = SHOWN) -> Sequence[str]:
    """The report in lines for people; the last one is the sum."""
    lines = [
        f"partition {partition} of messages: offsets {gap.first} to {gap.last} are in no RoutedBatch"
        for partition, missing in sorted(report.gaps.items())
        for gap in missing[:shown]
    ]
    if report.since:
        begins = datetime.fromtimestamp(report.since // 1_000_000, UTC).isoformat()
        lines.append(f"the log begins at {begins}: what was accepted before that is not judged")
    if report.unrouted_late:
        lines.append(f"{report.unrouted_late} messages wait for a RoutedBatch for longer than the grace")
    lines += [f"unaccounted {f.delivery_id}: {f.problem}" for f in report.lost[:shown]]
    lines += [f"illegal {f.delivery_id}: {f.problem}" for f in report.illegal_shown]
    lines += [f"different {f.delivery_id}: {f.problem}" for f in report.differences_shown]
    lines.append(
        f"log and ClickHouse: {report.differences} differences, {report.moving} still moving,"
        f" {report.unrouted} messages not routed yet, {report.illegal} illegal records,"
        f" {report.parked} deliveries parked"
    )
    if report.resends.matched:
        lines.append(f"made again or tested: {_equation(report.resends)}")
    lines.append(f"accounted: {_equation(report.account)}")
    return lines


def _equation(a: Account) -> str:
    return (
        f"{a.matched} deliveries = {a.delivered} delivered + {a.failed} failed"
        f" + {a.skipped} skipped + {a.pending} pending, {a.unaccounted} unaccounted"
    )
