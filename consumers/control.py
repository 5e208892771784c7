"""control: commands -> changes + endpoints + directory, one Kafka transaction a batch.

The single writer of configuration. A command id seen before is a no-op. Here
topics must agree and latency does not matter, so a transaction is worth it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from threading import Event

from engine.core.change import REMEMBERED_US as SEEN_US
from engine.core.change import Command, CommandBase, EndpointDeleted, RotateSecret
from engine.core.directory import DeleteTenant, DirectoryCommand, KeyRevoked
from engine.core.recent import Recent
from engine.ports import Output, Record, TopicPartition
from engine.runtime import telemetry
from engine.runtime.configuration.decisions import Decisions
from engine.runtime.configuration.views import CONFIGURATION_TOPICS, Configuration, View
from engine.runtime.context import Context, Ready
from engine.runtime.invalid import invalid_output
from engine.runtime.member import Member
from schemas import headers
from schemas.codec import UndecodableError, UnknownSchemaError

GROUP = "control"
BATCH_MAX = 100
SWEEP_EVERY_S = 60.0
SEEN_MAX = 200_000
"""Command ids that are remembered at most: some 30 MB."""


class Batch:
    """What the records of one poll lead to, and where each partition began: what moves nothing ends there."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.outputs: list[Output] = []
        self.endpoints: set[bytes | None] = set()
        """Whose snapshots are among them, or were."""
        self.unmoved: dict[TopicPartition, int] = {}
        for record in records:
            self.unmoved.setdefault((record.topic, record.partition), record.offset)

    def add(self, outputs: Iterable[Output]) -> None:
        """Take in what a command leads to."""
        made = list(outputs)
        self.outputs += made
        self.endpoints |= {output.key for output in made if output.topic == "endpoints"}


class Control:
    """Configuration as it stands, and the commands decided lately."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.member = Member(context.log, GROUP, ("commands",))
        self._transactions = context.log.transactions(f"{GROUP}-{context.settings.instance}")
        self._seen: Recent[bool] = Recent(SEEN_US, SEEN_MAX)
        """By id; False for a fact that may be a part of what a tenant's deletion leads to."""
        self._batch = Batch(())
        self._decisions = Decisions(context)
        self._swept = context.clock.monotonic()

    @property
    def configuration(self) -> Configuration:
        """The configuration that the decisions made so far add up to."""
        return self._decisions.configuration

    def step(self, timeout: float) -> None:
        """Decide the commands that are there, all in one transaction."""
        records = self.member.poll(timeout, BATCH_MAX)
        telemetry.WINDOW_FILL.labels(GROUP).set(len(records) / BATCH_MAX)
        if self.member.gained:
            self.member.gained = False
            self._load()
        tombstones = self._tombstones()
        if not records and not tombstones:
            return
        self._batch = Batch(records)
        announced = self._announce(records)
        for made in self.member.each(records, self._handle):
            self._batch.add(made)
        written = self._batch.endpoints
        ended = [
            self._decisions.snapshot(id, at) for id, at in announced.items() if id.encode() not in written
        ]
        outputs = [*self._batch.outputs, *ended, *tombstones]
        self._transactions.write(outputs, self.member.next, self.member.consumer)

    def _tombstones(self) -> Sequence[Output]:
        """End, now and then, what is kept of endpoints that were deleted long ago."""
        now = self._context.clock.monotonic()
        if not self.member.next or now - self._swept < SWEEP_EVERY_S:
            return ()
        found = self._decisions.tombstones({partition for _, partition in self.member.next}, BATCH_MAX)
        if len(found) < BATCH_MAX:  # else the rest comes with the next batch
            self._swept = now
        return found

    def _announce(self, records: Sequence[Record]) -> Mapping[str, bytes]:
        """Announce new secrets before they are decided; return causes by endpoint id (docs/adr/0011).

        The announcement has a transaction of its own. A dispatcher that goes on signing with an old
        secret after it has ended has not read it yet, and soon will.
        """
        outputs = [output for record in records for output in self._announcement(record)]
        if outputs:
            self._transactions.write(outputs, self._batch.unmoved, self.member.consumer)
        return {(output.key or b"").decode(): output.headers[headers.CAUSE] for output in outputs}

    def _announcement(self, record: Record) -> Iterable[Output]:
        try:
            command = self._context.codec.decode(record.value)
        except (UndecodableError, UnknownSchemaError):  # `_handle` will see to it
            return ()
        if not isinstance(command, RotateSecret) or command.command_id.encode() in self._seen:
            return ()
        return self._decisions.announce(command, headers.cause_for(record))

    def _load(self) -> None:
        """Learn what other members decided before these partitions came to us."""
        self._decisions = Decisions(self._context)
        view = View(self._context.log, CONFIGURATION_TOPICS, self._decisions.configuration.fold)
        view.load()
        view.close()
        self._decisions.settle()
        self._seen = Recent(SEEN_US, SEEN_MAX)
        reader = self._context.log.reader()
        changes = [("changes", partition) for _, partition in self.member.next]
        unread: dict[int, str] = {}
        for record in reader.read(reader.since(changes, self._context.clock.now() - SEEN_US)):
            try:
                fact = self._context.codec.decode(record.value)
            except UnknownSchemaError as error:
                unread.setdefault(record.partition, f"changes offset {record.offset}: {error}")
            else:
                is_part = isinstance(fact, EndpointDeleted | KeyRevoked)
                self._remember(getattr(fact, "command_id", ""), record.timestamp, is_whole=not is_part)
        reader.close()
        for partition, reason in unread.items():  # we cannot know what was decided there
            self.member.hold(("commands", partition), reason)

    def _remember(self, command_id: str, at: int, *, is_whole: bool = True) -> None:
        self._seen.put(command_id.encode(), is_whole, at)

    def _handle(self, record: Record) -> Iterable[Output]:
        try:
            command = self._context.codec.decode(record.value)
        except UndecodableError as error:
            return [self._invalid(record, str(error))]
        if not isinstance(command, CommandBase):
            return [self._invalid(record, f"a {type(command).__name__} is no command")]
        if not isinstance(command, Command | DirectoryCommand):
            return []  # the replayer's, which reads them too
        if self._is_decided(command):
            telemetry.COPIES_DROPPED.labels(GROUP).inc()
            return []
        self._remember(command.command_id, record.timestamp)
        cause = headers.cause_for(record)
        if isinstance(command, Command):
            return self._decisions.about_endpoint(command, cause)
        if isinstance(command, DeleteTenant):
            for part in self._decisions.ending(command, cause):
                self._write_ahead(part)
        return self._decisions.about_directory(command, cause)

    def _is_decided(self, command: CommandBase) -> bool:
        """Whether a command was seen before; a tenant's deletion that was cut short goes on."""
        is_whole = self._seen.get(command.command_id.encode())
        return bool(is_whole) or (is_whole is False and not isinstance(command, DeleteTenant))

    def _write_ahead(self, part: Sequence[Output]) -> None:
        """Write what was decided so far in a transaction of its own, which moves no offset."""
        self._batch.add(part)
        self._transactions.write(self._batch.outputs, self._batch.unmoved, self.member.consumer)
        self._batch.outputs = []

    def _invalid(self, record: Record, detail: str) -> Output:
        return invalid_output(self._context.codec, record, "undecodable", detail, self._context.clock.now())

    def close(self) -> None:
        """Leave the group."""
        self.member.consumer.close()


def run(context: Context, stop: Event, ready: Ready) -> None:
    """Run until `stop` is set."""
    control = Control(context)
    ready()
    while not stop.is_set():
        control.step(0.05)
    control.close()
