"""scheduler: attempts -> retry.N, dead-letters; retry.N -> deliveries or a smaller tier.

Holds each record until its time. It reads Kafka headers only: the delivery to
retry is the tail of the attempt's record, so it is sliced and never decoded.
"""

from __future__ import annotations

import gc
import heapq
from collections import deque
from itertools import chain, takewhile
from threading import Event
from typing import NamedTuple

from engine.core.recent import RECENT_MAX, RECENT_US, Recent
from engine.core.retry import tier_for
from engine.ports import Output, Record, TopicPartition
from engine.runtime import telemetry
from engine.runtime.context import Context, Ready
from engine.runtime.invalid import invalid_output
from engine.runtime.owned import Input, Owned
from engine.runtime.processor import leased, settle
from engine.runtime.progress import Flow
from engine.runtime.topics import RETRY_NOW, tier_topic, tier_topics
from schemas import headers

GROUP = "scheduler"
POLL_MAX = 500
LINGER_MS = 2
PATIENCE_MS = 50
"""Retries wait for seconds: fuller fetches cost them nothing that matters."""
UNACKNOWLEDGED_MAX = 5_000
HELD_MAX = 1_000
HELD_BYTES_MAX = 2 << 20
"""What is held of one tier's partition before it is paused."""
DUE_MAX = 50_000
DUE_BYTES_MAX = 64 << 20
"""What is held of `retry.0`, all partitions together."""
RESUME_AHEAD_US = 3_000_000
"""A paused partition fetches again only after up to 1 s: resume before what is held runs out."""
OBSERVE_EVERY_US = 1_000_000
DECISIONS = frozenset({b"delivered", b"retry", b"failed", b"skipped"})


class Ticket(NamedTuple):
    """What the headers of an attempt or a waiting record say."""

    key: bytes
    """Stands for (delivery, attempt)."""
    decision: bytes
    due: int
    length: int


def ticket_of(record: Record) -> Ticket | None:
    """Read the headers; None if they are not as the dispatcher and the scheduler write them."""
    found = record.headers
    key, decision = headers.attempt_key(found), found.get(headers.DECISION, b"")
    if record.topic == "attempts" and decision not in DECISIONS:
        return None
    waits = record.topic != "attempts" or decision == b"retry"
    try:
        due = int(found[headers.DUE]) if waits else 0
        length = int(found[headers.LENGTH]) if decision == b"retry" else 0
    except (KeyError, ValueError):
        return None
    if key is None or length > len(record.value or b"") or (decision == b"retry" and length <= 0):
        return None
    return Ticket(key, decision, due, length)


class WaitingRecord(NamedTuple):
    """A record that waits; ordered by when it leaves."""

    leaves_at: int
    order: int
    due: int
    taken: Input
    record: Record


class Tier:
    """What is held of one partition of a delay topic, in order."""

    def __init__(self) -> None:
        self.held: deque[WaitingRecord] = deque()
        self.bytes = 0


class Scheduler:
    """The scheduler's state: what it holds, and which attempts it has seen."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tiers_us = context.settings.tiers_us
        self._delay_of = tier_topics(context.settings)
        """By topic, microseconds; those of a ladder that is drained are read, and not written to."""
        self._recent: Recent[int] = Recent(RECENT_US, RECENT_MAX)
        """Offset on `attempts` by (delivery, attempt)."""
        self._tiers: dict[TopicPartition, Tier] = {}
        self._due: list[WaitingRecord] = []
        self._due_bytes = 0
        self._order = 0
        self._observed = 0
        """When the gauges were set, microseconds since 1970 UTC."""
        self.processor = leased(context, self._flow())

    def _flow(self) -> Flow:
        return Flow(
            GROUP,
            ("attempts", *self._delay_of),
            self._outputs,
            owning=self._owning,
            disowned=self._disowned,
            waiting=frozenset(self._delay_of) - {RETRY_NOW},
            linger_ms=LINGER_MS,
            patience_ms=PATIENCE_MS,
        )

    def _outputs(self, topic: str, partition: int) -> tuple[TopicPartition, ...]:
        """Where outputs can be: an attempt goes to any tier, a tier to itself or any smaller one."""
        tiers = list(self._delay_of)
        if topic == "attempts":
            return tuple((name, partition) for name in ("dead-letters", *tiers))
        return tuple((name, partition) for name in ("deliveries", *tiers[: tiers.index(topic) + 1]))

    def _owning(self, owned: Owned) -> None:
        """Forget what was held before; remember the attempts that were seen lately."""
        if owned.at[0] != "attempts":
            self._tiers[owned.at] = Tier()
            return
        reader = self.processor.progress.reader
        since = self._context.clock.now() - RECENT_US
        for record in reader.read(reader.since([owned.at], since)):
            key = headers.attempt_key(record.headers)
            if key is not None and record.offset < owned.next:
                self._is_copy(key, record)

    def _disowned(self, owned: Owned) -> None:
        self._tiers.pop(owned.at, None)  # `attempts` has none

    # -- attempts ----------------------------------------------------------------------

    def _is_copy(self, key: bytes, record: Record) -> bool:
        """Remember a (delivery, attempt); whether an earlier record of it was seen: the first one counts."""
        first = self._recent.get(key)
        if first is None:
            self._recent.put(key, record.offset, record.timestamp)
        return first not in (None, record.offset)

    def take(self, taken: Input, record: Record) -> None:
        """Take in an attempt or a record of a tier; what cannot be read blocks nothing."""
        ticket = ticket_of(record)
        if ticket is None:
            self._refuse(taken, record)
        elif record.topic != "attempts":
            if not taken.done:
                self._hold(taken, ticket, record)
        elif self._is_copy(ticket.key, record):
            telemetry.COPIES_DROPPED.labels(GROUP).inc()
            taken.done = True
        elif not taken.done:
            self._schedule(taken, ticket, record)

    def _refuse(self, taken: Input, record: Record) -> None:
        if not taken.done:
            now, detail = self._context.clock.now(), "the headers do not say what is to be done, or when"
            self._release_position(taken)
            self.processor.finish(
                taken, invalid_output(self._context.codec, record, "undecodable", detail, now)
            )

    def _release_position(self, taken: Input) -> None:
        if taken.positions is None:
            self.processor.progress.release(taken)

    def _schedule(self, taken: Input, ticket: Ticket, record: Record) -> None:
        if ticket.decision == b"retry":
            self.processor.finish(taken, self._retry(ticket, record))
        elif ticket.decision == b"failed" and not headers.is_test(record.headers):
            telemetry.DEAD_LETTERS.inc()
            found = {**record.headers, headers.CAUSE: headers.cause_for(record)}
            output = Output("dead-letters", record.partition, record.key, record.value, found)
            self.processor.finish(taken, output)
        else:
            settle(taken)

    def _retry(self, ticket: Ticket, record: Record) -> Output:
        """Slice the next delivery off the attempt's record and put it on its first tier."""
        topic = tier_topic(tier_for(ticket.due - self._context.clock.now(), self._tiers_us))
        telemetry.RETRIES_SCHEDULED.labels(topic).inc()
        found = {
            headers.CAUSE: headers.cause_for(record),
            headers.DELIVERY: record.headers[headers.DELIVERY],
            headers.ATTEMPT: b"%d" % (int(record.headers[headers.ATTEMPT]) + 1),
            headers.DUE: record.headers[headers.DUE],
        }
        return Output(topic, record.partition, record.key, (record.value or b"")[-ticket.length :], found)

    # -- tiers -------------------------------------------------------------------------

    def _hold(self, taken: Input, ticket: Ticket, record: Record) -> None:
        self._order += 1
        size = len(record.value or b"")
        if record.topic == RETRY_NOW:
            heapq.heappush(self._due, WaitingRecord(ticket.due, self._order, ticket.due, taken, record))
            self._due_bytes += size
            return
        leaves_at = record.timestamp + self._delay_of[record.topic]
        tier = self._tiers[taken.owner.at]
        tier.held.append(WaitingRecord(leaves_at, self._order, ticket.due, taken, record))
        tier.bytes += size

    def release(self) -> int:
        """Send on what has waited long enough; return when the next one leaves (microseconds)."""
        now = self._context.clock.now()
        following = now + 1_000_000
        if not self.processor.is_ours:  # a new owner has sent it on, maybe long ago
            return following
        for at, tier in self._tiers.items():
            while tier.held and tier.held[0].leaves_at <= now and self._may_send():
                held = tier.held.popleft()
                tier.bytes -= len(held.record.value or b"")
                self._leave(held, now)
            if tier.held:
                following = min(following, tier.held[0].leaves_at)
            self._balance(at, tier, now)
        while self._due and self._due[0].leaves_at <= now and self._may_send():
            held = heapq.heappop(self._due)
            self._due_bytes -= len(held.record.value or b"")
            self._leave(held, now)
        return min(following, self._due[0].leaves_at) if self._due else following

    def _may_send(self) -> bool:
        return len(self.processor.producer) < UNACKNOWLEDGED_MAX and self.processor.is_ours

    def _leave(self, held: WaitingRecord, now: int) -> None:
        """Send a record on to `deliveries` if it is due, else to the largest tier that fits."""
        taken, record = held.taken, held.record
        if taken.owner.stopping:
            return
        self._release_position(taken)
        due = held.due
        topic = "deliveries" if due <= now else tier_topic(tier_for(due - now, self._tiers_us))
        if due <= now:
            telemetry.RETRIES_RELEASED.inc()
            telemetry.RETRY_LATENESS_SECONDS.observe((now - due) / 1e6)
        found = {**record.headers, headers.CAUSE: headers.cause_for(record)}
        self.processor.finish(taken, Output(topic, record.partition, record.key, record.value, found))

    def _balance(self, at: TopicPartition, tier: Tier, now: int) -> None:
        """Pause a partition that holds enough; resume before what it holds has left."""
        if at[0] == RETRY_NOW:
            full = len(self._due) > DUE_MAX or self._due_bytes > DUE_BYTES_MAX
            low = len(self._due) < DUE_MAX // 2 and self._due_bytes < DUE_BYTES_MAX // 2
        else:
            full = len(tier.held) > HELD_MAX or tier.bytes > HELD_BYTES_MAX
            low = self._is_low(self._delay_of[at[0]], tier, now)
        if full:
            self.processor.consumer.pause(at)
        elif low:
            self.processor.consumer.resume(at)

    def _is_low(self, delay_us: int, tier: Tier, now: int) -> bool:
        if not tier.held:
            return True
        if delay_us > 2 * RESUME_AHEAD_US:
            return tier.held[-1].leaves_at - now < RESUME_AHEAD_US
        return len(tier.held) < HELD_MAX // 2 and tier.bytes < HELD_BYTES_MAX // 2

    # -- the loop ----------------------------------------------------------------------

    def step(self) -> None:
        """Release what is due, take in what is there, commit."""
        wait_s = (self.release() - self._context.clock.now()) / 1e6
        polled = self.processor.poll(min(max(wait_s, 0.001), 0.02), POLL_MAX)
        for taken, record in self.processor.each(polled):
            self.take(taken, record)
        self.processor.turn()
        self._observe()

    def _observe(self) -> None:
        """Say what is overdue and how full we are, now and then."""
        now = self._context.clock.now()
        if now - self._observed < OBSERVE_EVERY_US:
            return
        self._observed = now
        leaving = (takewhile(lambda held: held.leaves_at <= now, tier.held) for tier in self._tiers.values())
        overdue = [held.due for held in chain(self._due, *leaving) if held.due <= now]
        telemetry.RETRIES_OVERDUE.set(len(overdue))
        telemetry.RETRY_OVERDUE_SECONDS.set((now - min(overdue, default=now)) / 1e6)
        telemetry.WINDOW_FILL.labels(GROUP).set(len(self.processor.producer) / UNACKNOWLEDGED_MAX)


def run(context: Context, stop: Event, ready: Ready) -> None:
    """Run until `stop` is set."""
    scheduler = Scheduler(context)
    ready()
    gc.freeze()
    while not stop.is_set():
        scheduler.step()
    scheduler.processor.close()
