"""Parking: what a lane cannot take now waits on the log, and its cursor in `lanes` answers for it.

Runs on the thread that polls Kafka. A parked lane's records are marked done
unread as they are polled, because the lane's snapshot, acknowledged before,
says from which offset on they are its own (docs/adr/0010). A scan a partition
(engine.runtime.delivering.drain) hands them out again as fast as the lane takes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from engine.core.lane import Circuit, Lane
from engine.ports import Output, Reader, Record, TopicPartition
from engine.runtime import telemetry
from engine.runtime.context import Context
from engine.runtime.delivering.parked import Parked
from engine.runtime.owned import Input, Owned, settle_elsewhere
from engine.runtime.processor import Processor
from engine.runtime.progress import Progress
from schemas import headers

WRITE_EVERY_S = 1.0
REFRESH_EVERY_S = 30.0
"""How often an idle lane's snapshot is written again: the read-back on assignment begins there."""
_LOG = telemetry.logger("parking")


class ParkingListener(Protocol):
    """The event loop's lanes, told by the thread that polls; calls are run in order, and later."""

    def resumed(self, parked: Parked, heard: int) -> None:
        """From now on its records come on their own, unless more was asked than `heard`."""

    def cleared(self, parked: Parked, heard: int) -> None:
        """The log says nothing of the lane any more, unless more was asked than `heard`."""


class Parking:
    """The parked lanes of every partition that this process owns."""

    def __init__(self, context: Context, listener: ParkingListener) -> None:
        self._context = context
        self._listener = listener
        self._asked: deque[tuple[Parked, Sequence[Input], Sequence[Input]]] = deque()
        self._looked = 0.0
        self.lanes: dict[TopicPartition, dict[bytes, Parked]] = {}

    def disowned(self, owned: Owned) -> None:
        """Forget the lanes of a partition that is not ours any more."""
        del self.lanes[owned.at]

    def ask(self, parked: Parked, inputs: Sequence[Input], drained: Sequence[Input] = ()) -> None:
        """From the event loop: let these wait on the log, those drained again, and write down the circuit."""
        parked.asked += 1
        self._asked.append((parked, inputs, drained))

    def step(self, processor: Processor, scanned: Callable[[Parked], int]) -> None:
        """See to what was asked; write snapshots that are due, while the lease holds."""
        if not processor.holds_lease(self._context.settings.lease_s):
            return
        changed: dict[bytes, Parked] = {}
        while self._asked:
            parked, inputs, drained = self._asked.popleft()
            if processor.progress.owned.get(parked.owned.at) is not parked.owned:
                continue
            if self._see_to(parked, inputs, drained):
                changed[parked.key] = parked
        for parked in changed.values():
            self._write(parked, processor, scanned(parked))
        now = self._context.clock.monotonic()
        if now - self._looked >= WRITE_EVERY_S:
            self._looked = now
            self._look(processor, scanned)

    def _see_to(self, parked: Parked, inputs: Sequence[Input], drained: Sequence[Input]) -> bool:
        """Do what was asked; whether there is something to write down."""
        parked.heard += 1
        self._keep(parked)
        before = parked.stands
        _end_if_drained(parked)  # else we would write a cursor behind which things came on their own
        if drained:
            parked.take_back(drained)
        if inputs:
            parked.begin(inputs[0].offset, _found_behind(parked, inputs[0].offset))
            for taken in inputs:
                parked.pass_over(taken)
        said = parked.written.circuit if parked.written else "closed"
        return parked.stands != before or parked.circuit.state != said

    def _keep(self, parked: Parked) -> None:
        self.lanes[parked.owned.at][parked.key] = parked
        parked.owned.aside[parked.key] = parked.drained

    def _look(self, processor: Processor, scanned: Callable[[Parked], int]) -> None:
        """Write the snapshots of lanes that have moved, or that are old."""
        now = self._context.clock.monotonic()
        parked_lanes = [parked for lanes in self.lanes.values() for parked in lanes.values()]
        for parked in parked_lanes:
            if parked.is_parked:
                _end_if_drained(parked)
                written = parked.written
                moved = written is None or parked.cursor(scanned(parked)) != written.cursor
                if moved or not parked.is_parked or now - parked.changed_s >= REFRESH_EVERY_S:
                    self._write(parked, processor, scanned(parked))
        telemetry.LANES_PARKED.set(sum(parked.is_parked for parked in parked_lanes))

    def _write(self, parked: Parked, processor: Processor, scanned: int) -> None:
        """Send the lane's snapshot; nothing to say any more is a tombstone, which clears the lane."""
        at = parked.owned.at[1]
        snapshot = self._snapshot(parked, processor.progress.end(("attempts", at)), scanned)
        value = None if snapshot is None else self._context.codec.encode(snapshot)
        parked.written, parked.changed_s = snapshot, self._context.clock.monotonic()
        written = partial(self._written, parked, parked.sending())
        processor.send(Output("lanes", at, parked.key, value), written)

    def _snapshot(self, parked: Parked, attempts_end: int, scanned: int) -> Lane | None:
        circuit = parked.circuit
        if not parked.is_parked and circuit.state == "closed":
            return None
        lane = Lane(
            parked.endpoint_id,
            parked.tenant,
            parked.is_parked,
            circuit=circuit.state,
            opened=circuit.opened,
            probe_at=circuit.probe_at,
            changed_at=self._context.clock.now(),
            worker=self._context.worker,
        )
        return _with_cursor(lane, parked, attempts_end, scanned) if parked.is_parked else lane

    def _written(self, parked: Parked, number: int) -> None:
        if parked.acknowledge(number) and parked.written is None:
            self.lanes.get(parked.owned.at, {}).pop(parked.key, None)
            parked.owned.aside.pop(parked.key, None)
            self._listener.cleared(parked, parked.heard)

    # -- assignment --------------------------------------------------------------------

    def restore(self, owned: Owned, progress: Progress) -> list[Parked]:
        """Take up the lanes of a partition as the log has them, and return them.

        UnknownSchemaError, and none taken up, if a newer hooklog wrote one.
        """
        reader, lanes = progress.reader, ("lanes", owned.at[1])
        self.lanes[owned.at] = {}
        snapshots: dict[bytes, Lane | None] = {}
        for record in reader.read(reader.starts([lanes])):
            key = record.key or b""
            snapshots[key] = self._context.codec.decode_as(Lane, record.value) if record.value else None
        start = reader.starts([owned.at])[owned.at]
        for lane in snapshots.values():
            if lane is not None:
                self._keep(_restored(owned, lane, start))
        self._read_back(owned, [lane for lane in snapshots.values() if lane and lane.parked], reader)
        return list(self.lanes[owned.at].values())

    def _read_back(self, owned: Owned, snapshots: Sequence[Lane], reader: Reader) -> None:
        """Find what was attempted of parked lanes since their snapshots were made, and since the commit."""
        if not snapshots:
            return
        attempts = ("attempts", owned.at[1])
        first = min([*owned.kept, *(lane.attempts_from for lane in snapshots)])
        start = max(first, reader.starts([attempts])[attempts])
        if start < reader.ends([attempts])[attempts]:
            for record in reader.read({attempts: start}):
                self.attempted(owned, record)

    def attempted(self, owned: Owned, record: Record) -> None:
        """Somebody has attempted what may lie behind a cursor: the drain passes it over."""
        parked = self.lanes[owned.at].get(record.key or b"")
        cause = headers.cause_of(record.headers)
        if parked is None or cause is None or cause[:2] != owned.at:
            return
        parked.found.add(cause[2])
        settle_elsewhere(parked.drained, cause[2])


def _found_behind(parked: Parked, first: int) -> set[int]:
    """Offsets from `first` on whose outputs were read back: the lane must not attempt them again."""
    owned = parked.owned
    taken = {each.offset for each in owned.open if each.found == parked.key and each.offset > first}
    return taken | {offset for offset, key in owned.found.items() if key == parked.key and offset > first}


def _end_if_drained(parked: Parked) -> None:
    """Unparking ends when all that was drained is done and intake has passed where the drain ended."""
    if parked.until is None or parked.owned.next < parked.until:
        return
    if all(taken.done for taken in parked.drained):
        parked.drained.clear()
        parked.found.clear()
        parked.is_parked, parked.drained_to, parked.until, parked.behind = False, parked.until, None, None


def _with_cursor(lane: Lane, parked: Parked, attempts_end: int, scanned: int) -> Lane:
    """Say where the backlog begins, what behind it is done, and from where on attempts of it can be.

    `attempts_end` was read before we look at what has begun, so what begins later comes later.
    """
    cursor = parked.cursor(scanned)
    under_way = [t.positions[0] for t in parked.drained if t.begun and not t.done and t.positions]
    parked.found = {offset for offset in parked.found if offset >= cursor}
    done = parked.found | {taken.offset for taken in parked.drained if taken.done}
    attempts_from = min([attempts_end, *under_way])
    return replace(lane, cursor=cursor, attempts_from=attempts_from, done=tuple(sorted(done)))


def _restored(owned: Owned, lane: Lane, start: int) -> Parked:
    parked = Parked(owned, lane.endpoint_id, lane.tenant)
    # the probe of a half-open circuit died with the process that made it
    state = "open" if lane.circuit == "half_open" else lane.circuit
    parked.circuit = Circuit(state, opened=lane.opened, probe_at=lane.probe_at)
    if lane.parked and owned.next < lane.cursor:
        # what was under way when it parked lies below its cursor: from now on it is the lane's as well
        parked.begin(max(owned.next, start), lane.done)
        return parked
    parked.written = lane
    if lane.parked:
        parked.begin(max(lane.cursor, start), lane.done)
        parked.acknowledge(parked.sending())
    if lane.parked and lane.cursor < start:
        tell_trimmed(parked, lane.cursor, start)
    return parked


def tell_trimmed(parked: Parked, first: int, start: int) -> None:
    """Say what retention took of a lane's backlog: what lies from `first` to below `start`."""
    telemetry.LANES_TRIMMED.inc(start - first)
    _LOG.error(
        "lane.trimmed",
        endpoint=parked.endpoint_id,
        partition=parked.owned.at[1],
        first=first,
        last=start - 1,
        todo="deliveries of this endpoint among these offsets are lost: `hooklog reconcile` lists them",
    )
