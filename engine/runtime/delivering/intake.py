"""The dispatcher's Kafka side: takes deliveries in and hands them to the lanes, on the thread that polls."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from engine.core.endpoint import Endpoint
from engine.core.model import DeliveryScheduled
from engine.core.recent import RECENT_MAX, RECENT_US, Recent
from engine.ports import Record
from engine.runtime import telemetry
from engine.runtime.configuration.vault import Keyring
from engine.runtime.configuration.views import CONFIGURATION_TOPICS, Configuration, View
from engine.runtime.context import Context
from engine.runtime.delivering.attempt import Waiting
from engine.runtime.delivering.drain import Drain, Room
from engine.runtime.delivering.lane import DRAINED_MAX
from engine.runtime.delivering.parked import Parked
from engine.runtime.delivering.parking import Parking, ParkingListener
from engine.runtime.held import HeldPartitions
from engine.runtime.invalid import invalid_output
from engine.runtime.owned import Input, Owned
from engine.runtime.processor import Processor
from engine.runtime.progress import Flow
from schemas import headers
from schemas.codec import UndecodableError, UnknownSchemaError

GROUP = "dispatcher"
POLL_MAX = 200
LINGER_MS = 5
"""Nobody waits for an attempt's record: let it share a request to the broker."""
SCARCE_SHARE, DRAINED_SHARE = 0.5, 0.75
"""Of the places: from where on a parked lane may hold one drained delivery, and from where on none."""


class IntakeListener(ParkingListener, Protocol):
    """The event loop's lanes: `engine.runtime.delivering.lanes.Lanes`. Calls are run in order, and later."""

    @property
    def drained_left(self) -> int:
        """Drained deliveries that have left their lanes."""

    @property
    def drained_bytes_left(self) -> int:
        """The same in bytes."""

    def changed(self, endpoint_ids: Collection[str]) -> None:
        """The view has other snapshots of these endpoints than before, or none any more."""

    def arrive(self, batch: Sequence[Waiting]) -> None:
        """Deliveries were taken in."""

    def restore(self, owned: Owned, found: Iterable[Parked]) -> None:
        """A partition is ours; what the log says of its lanes."""

    def forget(self, partition: int) -> None:
        """A partition is not ours any more."""


class Intake:
    """Polls, drops copies, follows the view, drains parked lanes, hands deliveries over; for one thread."""

    def __init__(self, context: Context, listener: IntakeListener) -> None:
        self._context = context
        self._listener = listener
        self._recent: Recent[int] = Recent(RECENT_US, RECENT_MAX)
        """Offset on `deliveries` by (delivery, attempt)."""
        self._held = HeldPartitions(GROUP)
        """Deliveries taken in before, and those drained, go on."""
        self._batch: list[Waiting] = []
        self._is_paused = False
        self._drained_in = self._drained_bytes_in = 0
        self.taken_in = 0
        self.bytes_in = 0
        self._changed: set[str] = set()
        """Endpoints that the lanes are still to be told of."""
        self.configuration = Configuration(context.codec, Keyring(context.vault), self._note_changed)
        self.view = View(context.log, CONFIGURATION_TOPICS, self.configuration.fold)
        self.parking = Parking(context, listener)
        self._drain = Drain(context.log, listener)
        flow = Flow(
            GROUP,
            ("deliveries",),
            lambda _, partition: (("attempts", partition),),
            owning=self._owning,
            disowned=self._disowned,
            seen=self.parking.attempted,
            linger_ms=LINGER_MS,
        )
        self.processor = Processor(context.log, flow, context.clock, drain_s=context.settings.drain_s)

    def _owning(self, owned: Owned) -> None:
        """Take up the partition's lanes; remember what was attempted lately, by whoever owned it then."""
        self._listener.restore(owned, self._lanes_of(owned))
        reader = self.processor.progress.reader
        since = self._context.clock.now() - RECENT_US
        for record in reader.read(reader.since([("attempts", owned.at[1])], since)):
            key, cause = headers.attempt_key(record.headers), headers.cause_of(record.headers)
            if key is not None and cause is not None:
                self._recent.put(key, cause[2], record.timestamp)

    def _lanes_of(self, owned: Owned) -> Iterable[Parked]:
        """What the log says of the partition's lanes; it waits if that is for a newer hooklog to read."""
        try:
            return self.parking.restore(owned, self.processor.progress)
        except UnknownSchemaError as error:
            self._held.add(owned.at, f"lanes: {error}")
            return ()

    def _note_changed(self, endpoint: Endpoint) -> None:
        self._changed.add(endpoint.id)

    def _follow_view(self) -> None:
        self.view.advance()
        if self._changed:  # whoever is told finds the new snapshots
            changed, self._changed = self._changed, set()
            self._listener.changed(changed)

    def _disowned(self, owned: Owned) -> None:
        self.parking.disowned(owned)
        self._held.discard(owned.at)
        self._listener.forget(owned.at[1])

    def step(self, full: bool) -> None:
        """Poll once, drain, and run acknowledgements; when `full`, everything is paused and polled on."""
        self._follow_view()
        self._pause(full)
        room = self._room_drained()
        drained = 0 if full else self._drain.step(self.parking.lanes, self._take_drained, room, self._held)
        for taken, record in self.processor.poll(0 if drained else 0.02, POLL_MAX):
            self._take_in(taken, record)
        self._hand_over()
        self.parking.step(self.processor, self._drain.scanned)
        self.processor.turn()

    def _room_drained(self) -> Room:
        """Above half of the places it is one a lane, and above three quarters none.

        The rest is for what comes on its own, however many lanes there are and however long they keep what
        they have.
        """
        settings = self._context.settings
        held = self._drained_in - self._listener.drained_left
        size = self._drained_bytes_in - self._listener.drained_bytes_left
        share = max(held / settings.waiting, size / settings.waiting_bytes)
        left = max(1, int(settings.waiting * DRAINED_SHARE) - held) if share < DRAINED_SHARE else 0
        return Room(DRAINED_MAX if share < SCARCE_SHARE else 1, left)

    def _pause(self, full: bool) -> None:
        """Let the log hold what we cannot."""
        if full or self._is_paused:
            for at in self.processor.progress.owned:
                if at not in self._held:
                    (self.processor.consumer.pause if full else self.processor.consumer.resume)(at)
        self._is_paused = full

    def _take_in(self, taken: Input, record: Record) -> None:
        """Take a record in, unless its partition waits; then it stays open, and so the commit before it."""
        if taken.owner.at in self._held:
            self.processor.consumer.pause(taken.owner.at)
        elif not taken.done and not self._is_parked(taken, record):
            self._take(taken, record)

    def _is_parked(self, taken: Input, record: Record) -> bool:
        """Whether a parked lane answers for the record; a test send it never holds up."""
        parked = self.parking.lanes[taken.owner.at].get(record.key or b"")
        if parked is None or not parked.holds(record.offset) or headers.is_test(record.headers):
            return False
        parked.pass_over(taken)
        telemetry.PASSED_OVER.inc()
        return True

    def _take_drained(self, parked: Parked, record: Record) -> None:
        """Take a record in for a parked lane: its cursor waits for it, not the commit; for an upgrade too."""
        attempts = self.processor.progress.end(("attempts", record.partition))
        taken = Input(parked.owned, record.offset, (attempts,))
        parked.drained.append(taken)
        telemetry.DRAINED.inc()
        if parked.owned.at not in self._held:
            self._take(taken, record, parked)

    def _take(self, taken: Input, record: Record, parked: Parked | None = None) -> None:
        try:
            delivery = self._accept(taken, record)
        except UnknownSchemaError as error:
            self._held.add(taken.owner.at, f"offset {record.offset}: {error}")
            self.processor.consumer.pause(taken.owner.at)
            return
        if delivery is None:
            return
        self._batch.append(Waiting(taken, delivery, len(record.value or b""), record.timestamp, parked))
        if parked is not None:
            parked.handed += 1
            self._drained_in += 1
            self._drained_bytes_in += self._batch[-1].size

    def _hand_over(self) -> None:
        if self._batch:
            batch, self._batch = self._batch, []
            self.taken_in += len(batch)
            self.bytes_in += sum(each.size for each in batch)
            self._listener.arrive(batch)

    def _accept(self, taken: Input, record: Record) -> DeliveryScheduled | None:
        """Decode; None for a copy of one that was taken in, and for what goes to `invalid`.

        UnknownSchemaError if a newer hooklog wrote it.
        """
        key = headers.attempt_key(record.headers)
        if key is None:
            self._refuse(taken, record, "the headers delivery and attempt are missing")
            return None
        if self._recent.get(key) not in (None, record.offset):
            taken.done = True
            telemetry.COPIES_DROPPED.labels(GROUP).inc()
            return None
        try:
            delivery = self._context.codec.decode_as(DeliveryScheduled, record.value)
        except UndecodableError as error:
            self._refuse(taken, record, str(error))
            return None
        self._recent.put(key, record.offset, record.timestamp)
        return delivery

    def _refuse(self, taken: Input, record: Record, detail: str) -> None:
        now = self._context.clock.now()
        self.processor.finish(taken, invalid_output(self._context.codec, record, "undecodable", detail, now))

    def close(self) -> None:
        """Drain, commit, leave."""
        self.processor.close()
        self._drain.close()
        self.view.close()
