"""The loop around a handler: take records in, send what they lead to, commit what is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import inf
from threading import get_ident

from engine.ports import Acknowledged, Clock, Log, Output, QueueFullError, Record, TopicPartition
from engine.runtime import telemetry
from engine.runtime.context import Context
from engine.runtime.owned import Input, Owned
from engine.runtime.progress import Flow, Progress
from engine.runtime.unacknowledged import Unacknowledged

COMMIT_EVERY_S = 0.2
REFRESH_EVERY_S = 1.0
_DRAIN_STEP_S = 0.005
_ROOM_STEP_S = 0.05


class Processor:
    """Owns a group's consumer, producer and progress. One thread polls; `finish` may come from another."""

    def __init__(
        self, log: Log, flow: Flow, clock: Clock, *, drain_s: float = 30, lease_s: float = inf
    ) -> None:
        """`lease_s`: without an acknowledged commit for so long what was polled is held back."""
        self._clock = clock
        self._drain_s = drain_s
        self._lease_s = lease_s
        self._kept: list[tuple[Input, Record]] = []
        """Taken in while somebody else could own its partition."""
        self._group = flow.group
        self._polling = 0
        """The thread that polls."""
        self._is_broken = self._is_held = False
        self._late: deque[tuple[Output, Acknowledged]] = deque()
        """What another thread sent when there was no room."""
        self.unacknowledged = Unacknowledged()
        self.producer = log.producer(linger_ms=flow.linger_ms)
        self.progress = Progress(log, flow, self.drain)
        self.consumer = log.consumer(flow.group, flow.topics, self.progress, patience_ms=flow.patience_ms)
        self.progress.bind(self.consumer)
        self._committed = self._refreshed = clock.monotonic()

    def poll(self, timeout: float, limit: int) -> list[tuple[Input, Record]]:
        """Take records in; one whose outputs were read back is `done` already.

        A process that was frozen, or cut off, for longer than its session lasts still has what it fetched
        before, which a new owner has done since: until it is known whose it is, nothing is taken in.
        """
        self._polling = get_ident()
        for record in self.consumer.poll(timeout, limit):
            entry = self.progress.take(record)
            if entry is not None:
                self._kept.append((entry, record))
        if not self.is_ours:
            self._is_held = True
            if len(self._kept) >= limit:  # not before: to resume can cost a second
                self._move(self.consumer.pause)
            return []
        kept, self._kept = self._kept, []
        if self._is_held:
            self._move(self.consumer.resume)
            self._is_held = False
            return [each for each in kept if self.progress.owned.get(each[0].owner.at) is each[0].owner]
        return kept

    def _move(self, move: Callable[[TopicPartition], None]) -> None:
        for at in self.progress.owned:
            move(at)

    def each(self, polled: Sequence[tuple[Input, Record]]) -> Iterator[tuple[Input, Record]]:
        """Go through what was polled while it is surely ours; the rest comes again, or is dropped."""
        until, now = self.consumer.lease + self._lease_s, self._clock.monotonic
        for number, each in enumerate(polled):
            if now() >= until:
                self._kept[:0], self._is_held = polled[number:], True
                return
            yield each

    def send(self, output: Output, then: Callable[[], None]) -> None:
        """Send an output; `then` is called when it is acknowledged.

        On the thread that polls it waits for room; what comes from another one waits for that thread.
        """
        size = self.unacknowledged.sent(output, self._clock.monotonic())
        acknowledged = partial(self._acknowledged, output[:2], size, then)
        while True:
            try:
                return self.producer.send(output, acknowledged)
            except QueueFullError:
                if get_ident() != self._polling:
                    return self._late.append((output, acknowledged))
                self.producer.poll(_ROOM_STEP_S)

    def _send_late(self) -> None:
        """Send what there was no room for, as far as there is some now."""
        while self._late:
            try:
                self.producer.send(*self._late[0])
            except QueueFullError:
                return
            self._late.popleft()

    def _acknowledged(self, at: TopicPartition, size: int, then: Callable[[], None], offset: int) -> None:
        self.unacknowledged.acknowledged(at, size)
        self.progress.acknowledged(at, offset)
        then()

    @property
    def is_ours(self) -> bool:
        """Whether nobody else can own our partitions yet."""
        return self.holds_lease(self._lease_s)

    def holds_lease(self, seconds: float) -> bool:
        """Whether a commit was acknowledged within so many seconds: else somebody may own our partitions."""
        return self._clock.monotonic() - self.consumer.lease < seconds

    def may_begin(self, seconds: float) -> bool:
        """Whether the lease holds, and no output has waited as long for its acknowledgement.

        Whoever goes on after us makes again what was begun without that.
        """
        is_late = self.unacknowledged.is_late(self._clock.monotonic(), seconds)
        return self.holds_lease(seconds) and not is_late

    def finish(self, taken: Input, output: Output) -> None:
        """Send the one output of an input; it is done when that is acknowledged."""
        self.send(output, partial(settle, taken))

    def turn(self) -> None:
        """Run acknowledgements; commit and refresh when it is time."""
        self.producer.poll()
        self._send_late()
        now = self._clock.monotonic()
        self.unacknowledged.look(now)
        self.progress.follow(now)
        if self.progress.gained or now - self._committed >= COMMIT_EVERY_S:
            self._committed, self.progress.gained = now, False
            self.progress.commit()
            telemetry.WINDOW.labels(self._group).set(self.progress.open_inputs())
        if now - self._refreshed >= REFRESH_EVERY_S:
            self._refreshed = now
            self.progress.refresh()

    def give_up(self) -> None:
        """Something broke: what has begun may never end, so a drain waits only for what was written."""
        self._is_broken = True

    def drain(self, owned: Sequence[Owned]) -> bool:
        """Wait until what has begun of these partitions is acknowledged; False if it takes too long."""
        deadline = self._clock.monotonic() + self._drain_s
        while self._is_sending() or (not self._is_broken and any(each.is_busy() for each in owned)):
            if self._clock.monotonic() > deadline:
                return False
            self.producer.poll(_DRAIN_STEP_S)
            self._send_late()
        return True

    def _is_sending(self) -> bool:
        return len(self.producer) + len(self._late) > 0

    def close(self) -> None:
        """Drain, commit, leave."""
        self.progress.revoked(list(self.progress.owned))
        self.consumer.close()
        self.progress.close()


def leased(context: Context, flow: Flow) -> Processor:
    """Make a processor that takes in what is surely ours, and nothing else."""
    settings = context.settings
    return Processor(context.log, flow, context.clock, drain_s=settings.drain_s, lease_s=settings.lease_s)


def settle(taken: Input) -> None:
    """Mark an input done. Called on the thread that polls."""
    taken.done = True
