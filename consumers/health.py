"""health: attempts, changes -> health, commands, notices; notices -> mail and operational webhooks.

Folds attempts into each endpoint's health. An endpoint whose answer disables it (410 Gone, or the
answer header `disable`, where the profile honours them), or that has failed for too long, is
disabled by a command that holds for the version of the endpoint that the requests used
(docs/adr/0007). All that follows from attempts is one Kafka transaction with their commit, as in
control: it is not on the way of a delivery (docs/adr/0012). The mail server has a thread of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from engine.core.change import EndpointDisabled
from engine.core.endpoint import Endpoint
from engine.core.notice import Notice, notice_id
from engine.ports import Output, Record
from engine.runtime import telemetry
from engine.runtime.configuration.vault import Keyring
from engine.runtime.configuration.views import Configuration, View, is_deleted
from engine.runtime.context import Context, Ready
from engine.runtime.health.mailing import Mailing
from engine.runtime.health.operations import Operations
from engine.runtime.health.states import ACTOR, States, notice_output
from engine.runtime.mail import server_of
from engine.runtime.member import Member
from schemas import headers
from schemas.codec import UndecodableError

GROUP = "health"
BATCH_MAX = 2_000
PATIENCE_MS = 100
STEP_S = 0.25
"""Attempts gather this long for one transaction, unless there are many."""
COMMIT_EVERY_S = 2.0
"""Attempts that lead to nothing, such as successes, are committed this late: they may be read again."""
SWEEP_EVERY_S = 1.0
TOLD_WITHIN_US = 7 * 86_400_000_000
"""Nobody is told of an endpoint disabled longer ago: the group has just begun on a log with a past."""


class Health:
    """Folds attempts; tells of endpoints that were disabled."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.member = Member(context.log, GROUP, ("attempts", "changes"), patience_ms=PATIENCE_MS)
        self._transactions = context.log.transactions(f"{GROUP}-{context.settings.instance}")
        self._configuration = Configuration(context.codec, Keyring(context.vault))
        self.view = View(context.log, ("endpoints",), self._configuration.fold)
        self._reader = context.log.reader()
        self._states = States(context, self._configuration.endpoints)
        self._swept = self._committed = context.clock.monotonic()
        self._has_news = False
        """Whether records were taken in since the last commit."""

    @property
    def endpoints(self) -> Mapping[str, Endpoint]:
        """By id, as our view has them."""
        return self._configuration.endpoints

    def step(self, timeout: float) -> bool:
        """Take in what is there and write, in one transaction, what follows; whether there was much."""
        records = self.member.poll(timeout, BATCH_MAX)
        if self.member.gained:
            self.member.gained = False
            self._load(records)
        self._states.keep(number for topic, number in self.member.next if topic == "attempts")
        self.view.advance()
        outputs = [output for made in self.member.each(records, self._handle) for output in made]
        outputs += self._swept_up()
        outputs += self._states.snapshots()
        self._has_news |= bool(records)
        telemetry.WINDOW_FILL.labels(GROUP).set(len(records) / BATCH_MAX)
        if outputs or (self._has_news and self._is_commit_due()):
            self._write(outputs)
        return len(records) >= BATCH_MAX

    def _is_commit_due(self) -> bool:
        return self._context.clock.monotonic() - self._committed >= COMMIT_EVERY_S

    def _write(self, outputs: Sequence[Output]) -> None:
        self._transactions.write(outputs, self.member.next, self.member.consumer)
        self._committed, self._has_news = self._context.clock.monotonic(), False

    def _load(self, taken_in: Sequence[Record]) -> None:
        """Read all states anew; what was folded and led to no output need not be remembered."""
        owned = {
            number: offset for (topic, number), offset in self.member.next.items() if topic == "attempts"
        }
        for record in reversed(taken_in):  # polled, and not folded yet
            if record.topic == "attempts":
                owned[record.partition] = record.offset
        for number, reason in self._states.load(self._reader, owned).items():
            self.member.hold(("attempts", number), reason)

    def _handle(self, record: Record) -> Iterable[Output]:
        return self._states.fold(record) if record.topic == "attempts" else self._changed(record)

    def _changed(self, record: Record) -> Iterable[Output]:
        """Tell of an endpoint that was disabled because we asked for it."""
        try:
            fact = self._context.codec.decode(record.value)
        except UndecodableError:
            return []  # the projector puts it on `invalid`
        if not isinstance(fact, EndpointDisabled) or fact.actor != ACTOR:
            return []
        is_old = fact.at < self._context.clock.now() - TOLD_WITHIN_US
        if is_old or is_deleted(self.endpoints, fact.endpoint_id):
            return []
        return [self._disabled(fact, record)]

    def _disabled(self, fact: EndpointDisabled, record: Record) -> Output:
        endpoint = self.endpoints.get(fact.endpoint_id)
        notice = Notice(
            notice_id("disabled", fact.endpoint_id, fact.version),
            "disabled",
            fact.tenant,
            fact.endpoint_id,
            fact.at,
            url="" if endpoint is None else endpoint.settings.url,
            since=fact.at,
            reason=fact.reason,
        )
        return notice_output(self._context, notice, {headers.CAUSE: headers.cause_for(record)})

    def _swept_up(self) -> Iterable[Output]:
        now = self._context.clock.monotonic()
        if now - self._swept < SWEEP_EVERY_S:
            return ()
        self._swept = now
        return self._states.sweep()

    def close(self) -> None:
        """Leave; what was taken in and is not committed led to nothing."""
        if self._has_news and self.member.next:
            self._write([])
        self.member.consumer.close()
        self._reader.close()
        self.view.close()


def run(context: Context, stop: Event, ready: Ready) -> None:
    """Run until `stop` is set."""
    with ThreadPoolExecutor(1, "mail") as pool:
        health = Health(context)
        operations = Operations(context, health.endpoints)
        mailing = Mailing(context, server_of(context.settings), pool, health.endpoints)
        health.view.load()
        ready()
        while not stop.is_set():
            is_behind = health.step(0.05)
            operations.step()
            mailing.step()
            if not is_behind:
                stop.wait(STEP_S)
        mailing.close()
        operations.close()
        health.close()
