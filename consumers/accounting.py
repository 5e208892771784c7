"""accounting: routings, attempts, lanes -> metrics. Checks all the time that nothing is lost.

Follows the log without a group, so that one process sees every partition; it
writes nothing, and two of them say the same (docs/adr/0008). A check is as of a
moment: it judges when all that was on the log at that moment is folded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from threading import Event
from typing import NamedTuple, Protocol

from engine.core.ledger import Attempted, Books, Pending, key_of, split
from engine.core.minutes import MINUTE_US, Agreement, Found
from engine.core.model import RoutedBatch
from engine.core.replay import ResentBatch
from engine.core.tiling import Tiling
from engine.ports import Follower, LogError, Record, TopicPartition
from engine.runtime import telemetry
from engine.runtime.accounting.accounts import FOREVER, Accounts, PendingDelivery
from engine.runtime.accounting.whereabouts import lane_of
from engine.runtime.configuration.views import View
from engine.runtime.context import Context, Ready
from engine.runtime.history.clickhouse import History, UnavailableError, connect
from engine.runtime.topics import partitions_of
from schemas import headers
from schemas.codec import UndecodableError, UnknownSchemaError

GROUP = "accounting"
FOLLOWED = ("routings", "attempts")
PROJECTOR = "projector"
POLL_MAX = 2_000
POLL_S = 0.25
AWAY_S = 2.0
"""How long to wait before ClickHouse is asked again at the start."""
SNAPSHOTS = 64
SHOWN = 10
_LOG = telemetry.logger(GROUP)


class Pace(NamedTuple):
    """How often checks are made, and how late a delivery or its row may be."""

    every_s: float = 15.0
    again_s: float = 600.0
    """Minutes that agreed with ClickHouse are compared again after this long."""
    grace_us: int = 60_000_000


PACE = Pace()


class Snapshot(NamedTuple):
    """Where `messages`, `routings` and `attempts` ended at a time, microseconds."""

    at: int
    ends: Mapping[TopicPartition, int]

    def is_within(self, reached: Mapping[TopicPartition, int], *topics: str) -> bool:
        """Whether all that some topics held then has been reached."""
        return all(reached.get(at, 0) >= end for at, end in self.ends.items() if at[0] in topics)


class CheckResult(NamedTuple):
    """What a check found."""

    late: list[Pending]
    parked: int
    unrouted: int
    contradictions: int
    history: Mapping[int, int] | None
    """Differences by minute; None if ClickHouse could not be compared."""


class DeliveryCounts(Protocol):
    """What is asked of ClickHouse: `engine.runtime.accounting.accounts.Accounts`."""

    def pending(self) -> Iterable[PendingDelivery]:
        """Every delivery that is pending."""

    def minutes(self, since: int, until: int) -> list[Found]:
        """Counts of what was accepted within a time, minute by minute."""


def attempted_of(record: Record) -> Attempted | None:
    """Read the headers of an attempt; None if they are not as the dispatcher writes them."""
    found = record.headers
    try:
        due = int(found[headers.DUE]) if found[headers.DECISION] == b"retry" else 0
        key, number = key_of(found[headers.DELIVERY].decode()), int(found[headers.ATTEMPT])
        return Attempted(key, (record.key or b"").decode(), number, due, record.timestamp)
    except (KeyError, ValueError):
        return None


class Accounting:
    """Folds the log and checks it: call `begin` until it returns true, then `step`."""

    def __init__(self, context: Context, counts: DeliveryCounts, pace: Pace = PACE) -> None:
        self._context = context
        self._counts = counts
        self._pace = pace
        self._window_us = int(context.settings.accounting_window_s * 1_000_000)
        self._reader = context.log.reader()
        self._follower: Follower | None = None
        self.books = Books(context.settings.prefix + "messages")
        self._next: dict[TopicPartition, int] = {}
        self._routed: dict[TopicPartition, int] = {}
        """Offsets of `messages` below which nothing is left to route, whatever the batches say."""
        self._parked: dict[str, int] = {}
        """Until when an endpoint counts as parked, microseconds."""
        self._lanes = View(context.log, ("lanes",), self._fold_lane)
        self._lanes.load()
        self._agreement = Agreement()
        self._snapshots: deque[Snapshot] = deque(maxlen=SNAPSHOTS)
        self._target: Snapshot | None = None
        self._check_at = self._again_at = 0.0
        self._first_minute = 0
        self._said: CheckResult | None = None

    # -- the start ---------------------------------------------------------------------

    def begin(self) -> bool:
        """Learn what is pending and where to fold on from; False while ClickHouse or the log is away.

        The projector's commits are read before ClickHouse is, so what lies below them is in its list.
        """
        if self._follower is not None:
            return True
        books = Books(self._context.settings.prefix + "messages")
        try:
            starts = self._starts(self._context.clock.now() - self._window_us)
            for each in self._counts.pending():
                number = each.attempts + 1
                books.ledger.known(Pending(key_of(each.delivery_id), each.endpoint_id, number, each.due))
        except (UnavailableError, LogError) as error:
            _LOG.warning("accounting.waiting", error=str(error))
            return False
        whole = [
            partition for (topic, partition), first in starts.items() if topic == "routings" and not first
        ]
        books.tilings.update({partition: Tiling(0) for partition in whole})
        self.books, self._next = books, starts
        self._follower = self._context.log.follower(starts)
        _LOG.info("accounting.begun", pending=len(books.ledger), window_s=self._window_us // 1_000_000)
        return True

    def _starts(self, since: int) -> dict[TopicPartition, int]:
        """The first offset of the window, or that which ClickHouse does not have yet if that is lower."""
        followed = partitions_of(self._context.log, *FOLLOWED)
        messages = partitions_of(self._context.log, "messages")
        starts, firsts = self._reader.since(followed, max(0, since)), self._reader.starts(followed)
        committed = self._reader.committed(PROJECTOR, followed)
        self._routed = self._reader.since(messages, max(0, since))
        self._first_minute = since // MINUTE_US + 1
        return {at: max(firsts[at], min(starts[at], committed[at] or 0)) for at in followed}

    # -- folding -----------------------------------------------------------------------

    def step(self, timeout: float) -> None:
        """Fold what has come; check when it is time."""
        assert self._follower is not None
        for record in self._follower.poll(timeout, POLL_MAX):
            self._fold(record)
        now = self._context.clock.monotonic()
        if self._target is None and now >= self._check_at:
            self._check_at = now + self._pace.every_s
            self._target = self._snapshot()
        if self._target is not None and self._target.is_within(self._next, *FOLLOWED):
            target, self._target = self._target, None
            self._check(target)

    def _fold(self, record: Record) -> None:
        self._next[record.topic, record.partition] = record.offset + 1
        if record.topic == "attempts":
            if (attempt := attempted_of(record)) is not None:
                self.books.ledger.attempted(attempt)
            return
        try:
            batch = self._context.codec.decode(record.value)
        except UndecodableError:
            return  # the projector puts it on `invalid`
        except UnknownSchemaError as error:
            at = f"{record.topic}/{record.partition} offset {record.offset}"
            raise LogError(f"{at}: {error}: a newer hooklog wrote it; upgrade this one") from error
        match batch:
            case RoutedBatch():
                self.books.routed(batch, record.timestamp)
            case ResentBatch():
                self.books.resent(batch)

    def _fold_lane(self, record: Record) -> None:
        """A lane that unparks has its last deliveries still under way, hence the grace."""
        parked = lane_of(self._context.codec, record) is not None
        until = FOREVER if parked else record.timestamp + self._pace.grace_us
        self._parked[(record.key or b"").decode()] = until

    # -- checking ----------------------------------------------------------------------

    def _snapshot(self) -> Snapshot | None:
        at, topics = self._context.clock.now(), ("messages", *FOLLOWED)
        try:
            return Snapshot(at, self._reader.ends(partitions_of(self._context.log, *topics)))
        except LogError as error:  # the age of the last check tells
            _LOG.warning("accounting.log_away", error=str(error))
            return None

    def _check(self, target: Snapshot) -> None:
        """Judge as of the snapshot; without ClickHouse or the broker's answers the age goes on growing."""
        while self._lanes.advance():
            pass
        self._parked = {e: until for e, until in self._parked.items() if until > target.at}
        self._snapshots.append(target)
        try:
            result = self._judge(target)
        except LogError as error:
            _LOG.warning("accounting.log_away", error=str(error))
            return
        self._settle(target)
        self._tell(target, result)

    def _judge(self, target: Snapshot) -> CheckResult:
        ledger = self.books.ledger
        late, parked = split(ledger.overdue(target.at - self._pace.grace_us), self._parked, target.at)
        unrouted, contradictions = self._unrouted(target), len(ledger.contradictions)
        return CheckResult(late, parked, unrouted, contradictions, self._compare(target))

    def _unrouted(self, target: Snapshot) -> int:
        """Messages in no RoutedBatch: in gaps, or behind the last one for longer than the grace."""
        old = [each for each in self._snapshots if each.at <= target.at - self._pace.grace_us]
        behind = 0
        for at, end in old[-1].ends.items() if old else ():
            if at[0] == "messages" and self._frontier(at) < end:
                # what is left may be nothing but a transaction that was aborted
                first = next(iter(self._reader.read({at: self._frontier(at)})), None)
                left = max(0, end - first.offset) if first is not None else 0
                self._routed[at] = max(self._routed[at], end - left)
                behind += left
        return behind + sum(tiling.missing for tiling in self.books.tilings.values())

    def _frontier(self, at: TopicPartition) -> int:
        return max(self.books.frontier(at[1]), self._routed[at])

    def _settle(self, target: Snapshot) -> None:
        """Forget what no longer matters."""
        reached = {at: self._frontier(at) for at in self._routed}
        routed = [each.at for each in self._snapshots if each.is_within(reached, "messages")]
        self.books.ledger.settle(routed[-1] if routed else 0, target.at - self._window_us)
        self._first_minute = max(self._first_minute, (target.at - self._window_us) // MINUTE_US + 1)
        self.books.forget_before(self._first_minute)

    def _compare(self, target: Snapshot) -> Mapping[int, int] | None:
        """Compare closed minutes with ClickHouse; None if it is away or the projection is late."""
        grace = self._pace.grace_us
        committed = self._reader.committed(PROJECTOR, partitions_of(self._context.log, *FOLLOWED))
        reached = {at: offset or 0 for at, offset in committed.items()}
        projected = [each.at for each in self._snapshots if each.is_within(reached, *FOLLOWED)]
        if not projected or projected[-1] < target.at - 2 * grace:
            return None
        if self._context.clock.monotonic() >= self._again_at:
            self._again_at = self._context.clock.monotonic() + self._pace.again_s
            self._agreement.again()
        closed = min(projected[-1], target.at - grace) // MINUTE_US
        minutes, span = self.books.minutes, range(self._first_minute, closed)
        asked = self._agreement.open(minutes, span, projected[-1])
        try:
            found = self._counts.minutes(asked[0] * MINUTE_US, (asked[-1] + 1) * MINUTE_US) if asked else []
        except UnavailableError as error:
            _LOG.warning("accounting.clickhouse_away", error=str(error))
            return None
        self._agreement.judge(asked, minutes, {each.minute: each for each in found})
        return dict(self._agreement.differences)

    # -- telling -----------------------------------------------------------------------

    def _tell(self, target: Snapshot, result: CheckResult) -> None:
        late, pending = len(result.late), len(self.books.ledger)
        for state, count in (("overdue", late), ("parked", result.parked)):
            telemetry.PENDING.labels(state).set(count)
        telemetry.PENDING.labels("waiting").set(pending - late - result.parked)
        telemetry.UNACCOUNTED.labels("overdue").set(late)
        telemetry.UNACCOUNTED.labels("unrouted").set(result.unrouted)
        telemetry.UNACCOUNTED.labels("contradiction").set(result.contradictions)
        if result.history is not None:
            telemetry.UNACCOUNTED.labels("history").set(sum(result.history.values()))
            telemetry.ACCOUNTING_CHECKED.set(target.at / 1e6)
        if result != self._said and (late or result.unrouted or result.contradictions or result.history):
            self._log(target, result)
        self._said = result

    def _log(self, target: Snapshot, result: CheckResult) -> None:
        """Name some of what is wrong; `hooklog reconcile` names all."""
        named = [
            f"dlv_{p.key.hex()} attempt {p.number} of endpoint {p.endpoint},"
            f" overdue by {(target.at - p.due) // 1_000_000} s"
            for p in result.late[:SHOWN]
        ]
        _LOG.error(
            "accounting.unaccounted",
            overdue=len(result.late),
            unrouted=result.unrouted,
            contradictions=result.contradictions,
            history=dict(list((result.history or {}).items())[:SHOWN]),
            deliveries=named,
            todo="hooklog reconcile --since 2h names them all",
        )

    def close(self) -> None:
        """Let go of the log."""
        for each in (self._follower, self._lanes, self._reader):
            if each is not None:
                each.close()


def run(context: Context, stop: Event, ready: Ready) -> None:
    """Run until `stop` is set."""
    history = History(partial(connect, context.settings))
    accounting = Accounting(context, Accounts(history))
    ready()
    while not stop.is_set():
        if accounting.begin():
            accounting.step(POLL_S)
        else:
            stop.wait(AWAY_S)
    accounting.close()
    history.close()
