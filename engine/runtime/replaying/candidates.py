"""What a replay is to deliver next: bodies read in order of the log, and deliveries made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from engine.core.endpoint import Endpoint
from engine.core.model import DeliveryScheduled
from engine.core.replay import Replay, ReplayFinished, Resent, source_topic
from engine.core.survey import Survey
from engine.ports import Record, TopicPartition, TrimmedError
from engine.runtime.context import Context
from engine.runtime.processor import Processor
from engine.runtime.replaying.line import Item, Line
from engine.runtime.replaying.originals import Original, Originals, embedded
from engine.runtime.replaying.remade import By, Remake, Source
from engine.runtime.replaying.scan import Scan
from engine.runtime.routing.acceptance import BODY_MAX, message_of
from schemas.codec import UndecodableError

POLL_MAX = 200
"""Records at a time, for one endpoint."""
Make = Callable[[Endpoint], DeliveryScheduled]


@dataclass(slots=True)
class Found:
    """What was read back of a replay: its deliveries by id, which are named, the fact of its end."""

    written: dict[str, Resent] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)
    end: ReplayFinished | None = None

    def forget_below(self, cursors: Sequence[int]) -> None:
        """Leave out deliveries of messages below the cursors: those are not met again."""
        for id, each in list(self.written.items()):
            if each.source_offset < cursors[each.source_partition]:
                del self.written[id]


def outputs_of(partition: int, partitions: int) -> tuple[TopicPartition, ...]:
    """Where what a replay writes besides its snapshots can be; its `positions` are in this order."""
    return (*(("deliveries", n) for n in range(partitions)), ("routings", partition), ("changes", partition))


@dataclass(frozen=True, slots=True)
class Tools:
    """What every replay of a process works with."""

    context: Context
    processor: Processor
    remake: Remake
    originals: Originals


def outputs_end(tools: Tools, partition: int) -> tuple[int, ...]:
    """Where, at the least, what the replays of a partition write to ends now."""
    end = tools.processor.progress.end
    return tuple(end(at) for at in outputs_of(partition, tools.remake.partitions))


class Candidates:
    """Reads from a replay's cursors on; in `line` waits what was read."""

    def __init__(self, tools: Tools, replay: Replay, survey: Survey, found: Found) -> None:
        self._tools = tools
        self._codec = tools.context.codec
        self._replay = replay
        self._survey = survey
        self._found = found
        self._by = By(replay.id, "replay", replay.id)
        self._begun = list(replay.cursors)
        self.line = Line()
        self._since = replay.positions
        self.missing = 0
        """Deliveries whose bodies retention took, since this was made."""
        self._scan = self._open()

    def _open(self) -> Scan:
        """Begin at the cursors; leave out what retention took, and count it, and where nothing is wanted."""
        topic, cursors = source_topic(self._replay.only), self._begun
        at = [(topic, n) for n in range(len(cursors))]
        lowest = self._tools.processor.progress.reader.starts(at)
        starts, ends = {}, {}
        for each in at:
            n = each[1]
            first, ends[each] = self._span(n)
            self.missing += self._survey.count(n, cursors[n], lowest[each])
            cursors[n] = max(cursors[n], lowest[each])
            starts[each] = max(cursors[n], first)
        return Scan(self._tools.context.log, starts, ends)

    def _span(self, partition: int) -> tuple[int, int]:
        """Between which offsets there is something to do; what was read back lies anywhere."""
        if self._found.written:
            return 0, self._replay.ends[partition]
        return self._survey.span(partition) or (0, 0)

    @property
    def is_through(self) -> bool:
        """Whether nothing is left."""
        return self._scan.done and not self.line

    def positions(self) -> tuple[int, ...]:
        """From where on what lies at or after the cursors was written."""
        if self._found.written:  # what was read back must be found again
            return self._replay.positions
        return self.line.since() or outputs_end(self._tools, self._replay.partition)

    def cursors(self) -> list[int]:
        """Offsets below which nothing waits or is unread."""
        cursors = list(self._begun)
        for (_, n), offset in self._scan.next.items():
            cursors[n] = max(cursors[n], offset)
        for item in self.line:
            cursors[item.at[0]] = min(cursors[item.at[0]], item.at[1])
        return cursors

    def read(self) -> None:
        """Take in what has been fetched, if there is room."""
        if not self.line.has_room or self._scan.done:
            return
        replay = self._replay
        self._since = replay.positions if self._found.written else outputs_end(self._tools, replay.partition)
        try:
            records = self._scan.poll(max(1, POLL_MAX // len(self._survey.subscribers)))
        except TrimmedError:  # retention was faster than we are: what it took is counted
            self._scan.close()
            for (_, n), offset in self._scan.next.items():
                self._begun[n] = max(self._begun[n], offset)
            self._scan = self._open()
            return
        take = self._take_dead if self._replay.only == "failed" else self._take_message
        for record in records:
            take(record)

    def _take_message(self, record: Record) -> None:
        at = record.partition, record.offset
        message = message_of(self._codec, record)
        if message is None or message.tenant != self._replay.tenant:
            return
        bodies: dict[str, bytes] = {}

        def make(endpoint: Endpoint) -> DeliveryScheduled:
            name, remake = endpoint.settings.profile, self._tools.remake
            if name not in bodies:
                bodies[name] = remake.body(endpoint, message)
            return remake.of_message(message, (record.timestamp, at), endpoint, self._by, bodies[name])

        for endpoint_id in self._survey.subscribers:
            is_wanted = self._survey.is_wanted(endpoint_id, message.event_type, at)
            self._consider(at, (at, endpoint_id), make if is_wanted else None)

    def _take_dead(self, record: Record) -> None:
        endpoint_id = (record.key or b"").decode()
        if endpoint_id not in self._survey.subscribers:
            return
        try:
            dead = embedded(self._codec, record)
        except UndecodableError:
            return
        if dead.tenant == self._replay.tenant:
            at, source = (record.partition, record.offset), (dead.source_partition, dead.source_offset)
            is_wanted = self._survey.is_wanted(endpoint_id, dead.event_type, at)
            self._consider(at, (source, endpoint_id), partial(self._again, dead) if is_wanted else None)

    def _again(self, dead: DeliveryScheduled, endpoint: Endpoint) -> DeliveryScheduled:
        """Make a dead one again; in the endpoint's profile of today if that is another and the log allows."""
        source = dead.source_partition, dead.source_offset
        original: Original | None = None
        if dead.profile != endpoint.settings.profile:
            owner = dead.tenant, dead.message_id
            original = self._tools.originals.message(("messages", source[0]), source[1], owner)
        found = original or Original(None, dead.accepted_at, dead)
        return self._tools.remake.of_original(found, source, endpoint, self._by)

    def _consider(self, at: Source, to: tuple[Source, str], make: Make | None) -> None:
        """Queue what was written before a crash, and what is wanted."""
        source, endpoint_id = to
        if make is None and not self._found.written:
            return
        delivery_id = self._tools.remake.id_of(self._replay.id, source, endpoint_id)
        if delivery_id in self._found.written:
            self.line.add(Item(at, endpoint_id, delivery_id, None, self._since))
        elif make is not None:
            made = self._made(endpoint_id, make)
            self.line.add(Item(at, endpoint_id, delivery_id if made else "", made, self._since))

    def _made(self, endpoint_id: str, make: Make) -> DeliveryScheduled | None:
        endpoint = self._tools.remake.endpoint(endpoint_id, self._replay.tenant)
        made = make(endpoint) if endpoint is not None and endpoint.enabled else None
        return None if made is None or len(made.body) > BODY_MAX else made

    def is_anybody_there(self) -> bool:
        """Whether one of the endpoints is still enabled."""
        found = (self._tools.remake.endpoint(e, self._replay.tenant) for e in self._survey.subscribers)
        return any(each is not None and each.enabled for each in found)

    def close(self) -> None:
        """Let go of the log."""
        self._scan.close()
