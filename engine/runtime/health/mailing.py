"""Notices become mail: one at a time, tried until the mail server takes it, then marked by a commit.

Nothing is sent before the mark of the mail before is acknowledged, so a crash can repeat one mail:
the one that the server took just before, whose commit was under way (milliseconds).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass

from engine.core.notice import Notice, subject, text
from engine.ports import Log, LogError, Position, Record, TopicPartition
from engine.runtime import telemetry
from engine.runtime.atleastonce import AtLeastOnce
from engine.runtime.context import Context
from engine.runtime.mail import Mail, MailError, RefusedMailError, Send
from engine.runtime.settings import Settings
from schemas.codec import UndecodableError

GROUP = "mail"
WAITING_MAX = 500
"""Notices that wait in memory; the rest waits on the log."""
COMMIT_EVERY_S = 0.5
ANSWER_S = 10.0
"""How long whoever gives up a partition waits for the server's answer."""
Key = tuple[TopicPartition, int]
AGAIN_S, AGAIN_MAX_S = 5.0, 300.0
"""Pause after a failure, doubled by each one that follows."""
REFUSALS_MAX = 5
"""A mail that the server refused for good so often (5xx) is given up."""
_LOG = telemetry.logger(GROUP)


@dataclass(slots=True)
class Waiting:
    """A mail that the server has not taken yet."""

    notice: Notice
    to: tuple[str, ...]
    failures: int = 0
    refusals: int = 0
    due: float = 0.0


def recipients(settings: Settings, tenant: str) -> tuple[str, ...]:
    """Who is told about a tenant's endpoints: its own address, else the platform's."""
    own = settings.tenant_addresses.get(tenant)
    return settings.mail_to if own is None else (own,)


class _Inputs(AtLeastOnce):
    """Says at once which partitions are given up: another owner may send their mail."""

    def __init__(self, log: Log, give_up: Callable[[Sequence[TopicPartition]], None]) -> None:
        self._give_up = give_up
        super().__init__(log, GROUP, ("notices",))

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Give up."""
        self._give_up(partitions)
        super().revoked(partitions)


class Mailing:
    """Sends notices as mail, by the pool's thread: a step never waits for the server."""

    def __init__(self, context: Context, send: Send | None, pool: Executor) -> None:
        self._context = context
        self._send = send
        self._pool = pool
        self._sending: tuple[Key, Waiting, Future[None]] | None = None
        self._waiting: dict[Key, Waiting] = {}
        self._inputs = _Inputs(context.log, self._give_up)
        self._paused: set[TopicPartition] = set()
        self._committed = 0.0
        self._sent_at = 0.0
        self._not_before = 0.0
        self._failures = 0

    def step(self) -> None:
        """Take notices in, send at most one at a time, commit."""
        for _ in self._inputs.each(self._inputs.poll(0, WAITING_MAX), self._take):
            pass
        self._hold_back()
        self._conclude()
        if self._sending is None and self._may_send() and (following := self._next()) is not None:
            self._begin(*following)
            self._conclude()
        if self._context.clock.monotonic() - self._committed >= COMMIT_EVERY_S:
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
        try:
            notice = self._context.codec.decode_as(Notice, record.value)
        except UndecodableError:
            return
        to = recipients(self._context.settings, notice.tenant)
        if self._send is not None and to:
            self._waiting[(record.topic, record.partition), record.offset] = Waiting(notice, to)

    def _hold_back(self) -> None:
        """Take no more in while much waits."""
        consumer, owned = self._inputs.consumer, set(self._inputs.next)
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
        now, lease = self._context.clock.monotonic(), self._inputs.consumer.lease
        is_ours = lease >= self._sent_at and now - lease < self._context.settings.lease_s
        return is_ours and now >= self._not_before

    def _next(self) -> tuple[Key, Waiting] | None:
        now = self._context.clock.monotonic()
        return next(((key, each) for key, each in self._waiting.items() if each.due <= now), None)

    def _begin(self, key: Key, waiting: Waiting) -> None:
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

    def _failed(self, key: Key, waiting: Waiting, error: MailError) -> None:
        """Try again later: this mail if it was refused, none if the server is away."""
        notice, is_refused = waiting.notice, isinstance(error, RefusedMailError)
        telemetry.MAIL_ERRORS.inc()
        waiting.failures += 1
        waiting.refusals += is_refused
        if waiting.refusals >= REFUSALS_MAX:
            _LOG.error(
                "mail.given_up",
                notice=notice.id,
                kind=notice.kind,
                endpoint=notice.endpoint_id,
                error=str(error),
            )
            self._done(key, waiting, "given_up")
            return
        now = self._context.clock.monotonic()
        waiting.due = now + _pause_s(waiting.failures)
        if not is_refused:
            self._failures += 1
            self._not_before = now + _pause_s(self._failures)
        _LOG.warning("mail.failed", notice=notice.id, error=str(error), waiting=len(self._waiting))

    def _done(self, key: Key, waiting: Waiting, result: str) -> None:
        self._waiting.pop(key, None)
        telemetry.NOTIFICATIONS.labels(waiting.notice.kind, result).inc()
        self._sent_at = self._context.clock.monotonic()
        self._commit(wait=False)

    # -- the mark ----------------------------------------------------------------------

    def _commit(self, *, wait: bool) -> None:
        """Commit, of each partition, the first notice that waits; also renews the lease."""
        self._committed = self._context.clock.monotonic()
        lowest = dict(self._inputs.next)
        for at, offset in self._waiting:
            lowest[at] = min(lowest[at], offset)
        self._inputs.consumer.commit({at: Position(n, "") for at, n in lowest.items()}, wait=wait)

    def close(self) -> None:
        """Mark what was sent, leave."""
        self._finish()
        self._inputs.consumer.close()


def _pause_s(failures: int) -> float:
    return min(AGAIN_S * (1 << min(failures - 1, 10)), AGAIN_MAX_S)
