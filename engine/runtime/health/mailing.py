"""Notices become mail: one at a time, tried until the mail server takes it, then marked by a commit.

Nothing is sent before the mark of the mail before is acknowledged, so a crash can repeat one mail:
the one that the server took just before, whose commit was under way (milliseconds). A mail that waits,
because the server does not take it, holds the commit of its partition and no other mail: the commit's
metadata says which wait, so that a restart repeats none of those after it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass

from engine.core.endpoint import Endpoint
from engine.core.notice import Notice, subject, text
from engine.ports import Log, LogError, Position, Record, TopicPartition
from engine.runtime import telemetry
from engine.runtime.configuration.views import is_deleted
from engine.runtime.context import Context
from engine.runtime.mail import Mail, MailError, PutOffMailError, RefusedMailError, Send
from engine.runtime.member import Member
from engine.runtime.owned import METADATA_MAX
from engine.runtime.settings import Settings
from schemas.codec import UndecodableError

GROUP = "mail"
WAITING_MAX = 500
"""Notices that wait in memory; the rest waits on the log."""
COMMIT_EVERY_S = 0.5
"""While a mail waits, else IDLE_EVERY_S: what is passed by again does no harm."""
IDLE_EVERY_S = 5.0
ANSWER_S = 10.0
"""How long giving up a partition waits for the server's answer."""
Key = tuple[TopicPartition, int]
AGAIN_S, AGAIN_MAX_S = 5.0, 300.0
"""Pause after a failure, doubled by each one that follows."""
REFUSALS_MAX = 5
"""A mail is given up when the server has refused it for good (5xx) this often."""
PUT_OFFS_MAX = 300
"""A mail is given up when the server has put it off (4xx) this often: after about a day."""
_LOG = telemetry.logger(GROUP)


@dataclass(slots=True)
class WaitingMail:
    """A mail that the server has not taken yet."""

    notice: Notice
    to: tuple[str, ...]
    failures: int = 0
    refusals: int = 0
    put_offs: int = 0
    due: float = 0.0


@dataclass(frozen=True, slots=True)
class Mark:
    """What a commit says: all notices below `next` are done but these."""

    next: int
    waiting: Collection[int]

    def position(self) -> Position:
        """As a commit: at the first that waits; metadata: how far it is to the next offset and the others.

        Metadata is bounded: what does not fit is as if it had not been taken in.
        """
        waiting, end = sorted(self.waiting), self.next
        if not waiting:
            return Position(end, "")
        first, *others = waiting
        while len(text := ",".join(str(offset - first) for offset in (end, *others))) > METADATA_MAX:
            half = len(others) // 2
            end, others = others[half], others[:half]
        return Position(first, text)


def read_mark(position: Position) -> Mark:
    """Undo `Mark.position`."""
    first = position.offset
    if not position.metadata:
        return Mark(first, ())
    end, *waiting = (first + int(distance) for distance in position.metadata.split(","))
    return Mark(end, frozenset((first, *waiting)))


def recipients(settings: Settings, tenant: str) -> tuple[str, ...]:
    """Who is told about a tenant's endpoints: its own address, else the platform's."""
    own = settings.tenant_addresses.get(tenant)
    return settings.mail_to if own is None else (own,)


class _MailMember(Member):
    """Says at once which partitions are given up: another owner may send their mail. Knows what was sent."""

    def __init__(self, log: Log, give_up: Callable[[Sequence[TopicPartition]], None]) -> None:
        self._give_up = give_up
        self._marks: dict[TopicPartition, Mark] = {}
        """Of the commits we started from."""
        super().__init__(log, GROUP, ("notices",))

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Start from the commits, and remember which of what follows them was done."""
        committed = self.consumer.committed(partitions)
        self._marks |= {at: read_mark(each) for at, each in committed.items() if each is not None}
        return super().assigned(partitions)

    def was_done(self, record: Record) -> bool:
        """Whether the owner before was done with a notice, although one before it waited."""
        mark = self._marks.get((record.topic, record.partition))
        return mark is not None and record.offset < mark.next and record.offset not in mark.waiting

    def mark(self, at: TopicPartition, waiting: Sequence[int]) -> Mark:
        """What is done of a partition: also what was done before us, though we have not come so far again."""
        taken_in, before = self.next[at], self._marks.get(at)
        if before is None or before.next <= taken_in:
            return Mark(taken_in, waiting)
        return Mark(before.next, (*waiting, *(offset for offset in before.waiting if offset >= taken_in)))

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Give up."""
        self._give_up(partitions)
        for at in partitions:
            self._marks.pop(at, None)
        super().revoked(partitions)


class Mailing:
    """Sends notices as mail, by the pool's thread: a step never waits for the server."""

    def __init__(
        self, context: Context, send: Send | None, pool: Executor, endpoints: Mapping[str, Endpoint]
    ) -> None:
        """`endpoints` is a view that somebody else follows."""
        self._context = context
        self._endpoints = endpoints
        self._send = send
        self._pool = pool
        self._sending: tuple[Key, WaitingMail, Future[None]] | None = None
        self._waiting: dict[Key, WaitingMail] = {}
        self.member = _MailMember(context.log, self._give_up)
        self._paused: set[TopicPartition] = set()
        self._committed = 0.0
        self._sent_at = 0.0
        self._not_before = 0.0
        self._failures = 0

    def step(self) -> None:
        """Take notices in, send at most one at a time, commit."""
        for _ in self.member.each(self.member.poll(0, WAITING_MAX), self._take):
            pass
        self._drop_deleted()
        self._hold_back()
        self._conclude()
        if self._sending is None and self._may_send() and (following := self._next()) is not None:
            self._begin(*following)
            self._conclude()
        telemetry.MAILS_WAITING.set(len(self._waiting))
        every = COMMIT_EVERY_S if self._waiting else IDLE_EVERY_S
        if self._context.clock.monotonic() - self._committed >= every:
            self._commit(wait=False)

    def _give_up(self, partitions: Sequence[TopicPartition]) -> None:
        """Somebody else sends these now; what the server is just taking is marked first."""
        if self._sending is not None and self._sending[0][0] in partitions:
            self._finish()
        self._waiting = {key: each for key, each in self._waiting.items() if key[0] not in partitions}

    def _finish(self) -> None:
        """Wait for the server's answer and mark it."""
        if self._sending is not None:
            wait([self._sending[2]], ANSWER_S)
            self._conclude()
        try:
            self._commit(wait=True)
        except LogError as error:  # the next owner may send one mail again
            _LOG.warning("mail.last_commit_failed", error=str(error))

    def _take(self, record: Record) -> None:
        if self.member.was_done(record):
            return
        try:
            notice = self._context.codec.decode_as(Notice, record.value)
        except UndecodableError:
            return
        to = recipients(self._context.settings, notice.tenant)
        if self._send is not None and to:
            self._waiting[(record.topic, record.partition), record.offset] = WaitingMail(notice, to)

    def _drop_deleted(self) -> None:
        """Nobody wants to hear of endpoints that were deleted meanwhile."""
        for key, waiting in list(self._waiting.items()):
            if is_deleted(self._endpoints, waiting.notice.endpoint_id):
                del self._waiting[key]
                telemetry.NOTIFICATIONS.labels(waiting.notice.kind, "dropped").inc()

    def _hold_back(self) -> None:
        """Take no more in while much waits."""
        consumer, owned = self.member.consumer, set(self.member.next)
        self._paused &= owned
        if len(self._waiting) >= WAITING_MAX:
            for at in owned - self._paused:
                consumer.pause(at)
            self._paused = owned
        elif self._paused and len(self._waiting) < WAITING_MAX // 2:
            for at in self._paused:
                consumer.resume(at)
            self._paused = set()

    # -- sending -----------------------------------------------------------------------

    def _may_send(self) -> bool:
        """Whether the partitions are surely ours, the mark of the last mail is on the log, and it is time."""
        now, lease = self._context.clock.monotonic(), self.member.consumer.lease
        is_ours = lease >= self._sent_at and now - lease < self._context.settings.lease_s
        return is_ours and now >= self._not_before

    def _next(self) -> tuple[Key, WaitingMail] | None:
        now = self._context.clock.monotonic()
        return next(((key, each) for key, each in self._waiting.items() if each.due <= now), None)

    def _begin(self, key: Key, waiting: WaitingMail) -> None:
        notice = waiting.notice
        mail = Mail(notice.id, notice.at, waiting.to, subject(notice), text(notice))
        assert self._send is not None
        self._sending = key, waiting, self._pool.submit(self._send, mail)

    def _conclude(self) -> None:
        """See what became of the mail that was handed over, if that is known."""
        if self._sending is None or not self._sending[2].done():
            return
        key, waiting, sending = self._sending
        self._sending = None
        try:
            sending.result()
        except MailError as error:
            self._failed(key, waiting, error)
            return
        self._failures = 0
        self._done(key, waiting, "mailed")
        notice = waiting.notice
        _LOG.info("mail.sent", notice=notice.id, kind=notice.kind, endpoint=notice.endpoint_id)

    def _failed(self, key: Key, waiting: WaitingMail, error: MailError) -> None:
        """Try again later: this mail if the answer was about it, none if the server is away."""
        telemetry.MAIL_ERRORS.inc()
        waiting.failures += 1
        waiting.refusals += isinstance(error, RefusedMailError)
        waiting.put_offs += isinstance(error, PutOffMailError)
        if waiting.refusals >= REFUSALS_MAX or waiting.put_offs >= PUT_OFFS_MAX:
            self._give_one_up(key, waiting, error)
            return
        now = self._context.clock.monotonic()
        waiting.due = now + _pause_s(waiting.failures)
        if not isinstance(error, RefusedMailError | PutOffMailError):
            self._failures += 1
            self._not_before = now + _pause_s(self._failures)
        _LOG.warning("mail.failed", notice=waiting.notice.id, error=str(error), waiting=len(self._waiting))

    def _give_one_up(self, key: Key, waiting: WaitingMail, error: MailError) -> None:
        notice = waiting.notice
        _LOG.error(
            "mail.given_up", notice=notice.id, kind=notice.kind, endpoint=notice.endpoint_id, error=str(error)
        )
        self._done(key, waiting, "given_up")

    def _done(self, key: Key, waiting: WaitingMail, result: str) -> None:
        self._waiting.pop(key, None)
        telemetry.NOTIFICATIONS.labels(waiting.notice.kind, result).inc()
        self._sent_at = self._context.clock.monotonic()
        self._commit(wait=False)

    # -- the mark ----------------------------------------------------------------------

    def _commit(self, *, wait: bool) -> None:
        """Commit the first notice of each partition that waits, and which others do; renews the lease."""
        self._committed = self._context.clock.monotonic()
        waiting: dict[TopicPartition, list[int]] = {at: [] for at in self.member.next}
        for at, offset in self._waiting:
            waiting[at].append(offset)
        positions = {at: self.member.mark(at, waiting[at]).position() for at in self.member.next}
        self.member.consumer.commit(positions, wait=wait)

    def close(self) -> None:
        """Mark what was sent, leave."""
        self._finish()
        self.member.consumer.close()


def _pause_s(failures: int) -> float:
    return min(AGAIN_S * (1 << min(failures - 1, 10)), AGAIN_MAX_S)
