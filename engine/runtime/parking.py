"""Parking: what a lane cannot take now waits on the log, and its cursor in `lanes` answers for it.

Runs on the thread that polls Kafka. A parked lane's records are marked done
unread as they are polled, because the lane's snapshot, acknowledged before,
says from which offset on they are its own (docs/adr/0010). A scan a partition
(engine.runtime.drain) hands them out again as fast as the lane takes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from engine.core.lane import CLOSED, Circuit, Lane
from engine.ports import Output, Reader, Record, TopicPartition
from engine.runtime import telemetry
from engine.runtime.context import Context
from engine.runtime.processor import Processor
from engine.runtime.progress import Input, Owned, Progress, settle_elsewhere
from schemas import headers

WRITE_EVERY_S = 1.0
REFRESH_EVERY_S = 30.0
"""So often an idle lane's snapshot is written again: the read-back on assignment begins there."""
_LOG = telemetry.logger("parking")


class Told(Protocol):
    """The event loop's lanes, told by the thread that polls; calls come in order, and later."""

    def resumed(self, parked: Parked, heard: int) -> None:
        """From now on its records come on their own, unless more was asked than `heard`."""

    def cleared(self, parked: Parked, heard: int) -> None:
        """The log says nothing of the lane any more, unless more was asked than `heard`."""


class Parked:
    """What the log says of one lane, and how far its drain is.

    The thread that polls owns it, but for the four that the event loop sets: `circuit`, `wanted`,
    `left` and `asked`.
    """

    __slots__ = (
        "_acknowledged",
        "_covered_from",
        "_passed",
        "_sent",
        "asked",
        "behind",
        "changed_s",
        "circuit",
        "drained",
        "drained_to",
        "floor",
        "found",
        "handed",
        "heard",
        "is_parked",
        "key",
        "left",
        "owned",
        "tenant",
        "until",
        "wanted",
        "written",
    )

    def __init__(self, owned: Owned, endpoint_id: str, tenant: str) -> None:
        self.owned = owned
        self.key = endpoint_id.encode()
        self.tenant = tenant
        self.circuit: Circuit = CLOSED
        self.wanted = 1
        """How many drained deliveries may wait in the lane."""
        self.handed = self.left = 0
        """Deliveries that the drain gave to the lane, and those that left it."""
        self.asked = self.heard = 0
        """Requests that the event loop made of us, and those that we have seen to."""
        self.is_parked = False
        self.behind: int | None = None
        """Offset that the scan must come back to for this lane; None while they are in step."""
        self.until: int | None = None
        """Once unparking: what lies below is the drain's, the rest comes on its own again."""
        self.drained_to = 0
        """Everything below has been drained before: what was on its way to the lane then is no news."""
        self.drained: deque[Input] = deque()
        self.found: set[int] = set()
        """Offsets behind the cursor that were attempted before."""
        self.floor = (0, 0)
        """Until the cursor has passed the first offset, attempts are to be read back from the second."""
        self.changed_s = 0.0
        self.written: Lane | None = None
        self._passed: deque[tuple[int, Input]] = deque()
        self._sent = self._acknowledged = self._covered_from = 0

    @property
    def endpoint_id(self) -> str:
        """The endpoint."""
        return self.key.decode()

    @property
    def stands(self) -> tuple[bool, int]:
        """What changes when it parks, or parks again."""
        return self.is_parked, self._covered_from

    def room(self, most: int) -> int:
        """How many more deliveries the lane takes now, if no more than `most` may wait in it."""
        return min(self.wanted, most) - (self.handed - self.left)

    def holds(self, offset: int) -> bool:
        """Whether a record of its endpoint waits for the drain, or has been drained."""
        return self.is_parked and (self.until is None or offset < self.until)

    def pass_over(self, taken: Input) -> None:
        """Mark an input done unread, once the log says that the lane answers for it."""
        if self._covered_from <= self._acknowledged:
            taken.done = True
        else:
            self._passed.append((self._covered_from, taken))

    def begin(self, first: int, found: Iterable[int]) -> None:
        """Park, from offset `first` on."""
        if not self.is_parked:
            self.is_parked, self.behind = True, max(first, self.drained_to)
            self.found |= set(found)
        elif self.until is not None:
            # what came on its own in between is the commit's, and lies behind the cursor all the same
            self.behind = max(first, self.until)
            self.floor = (self.behind, self.written.attempts_from if self.written else 0)
        else:
            return
        self.until = None
        self._covered_from = self._sent + 1

    def take_back(self, drained: Sequence[Input]) -> None:
        """The lane cannot take these now: the scan comes back to them."""
        returned = {taken.offset for taken in drained}
        kept = [taken for taken in self.drained if taken.offset not in returned]
        self.drained.clear()
        self.drained.extend(kept)
        self.behind, self.until = drained[0].offset, None

    def sending(self) -> int:
        """Number the next snapshot."""
        self._sent += 1
        return self._sent

    def acknowledge(self, number: int) -> bool:
        """The log has a snapshot; whether it is the last one sent."""
        self._acknowledged = number
        while self._passed and self._passed[0][0] <= number:
            self._passed.popleft()[1].done = True
        return number == self._sent

    def cursor(self, scanned: int) -> int:
        """Lowest offset that is the lane's and not done."""
        while self.drained and self.drained[0].done:
            self.drained.popleft()
        if self.drained:
            return self.drained[0].offset
        return scanned if self.behind is None else self.behind


class Parking:
    """The parked lanes of every partition that this process owns."""

    def __init__(self, context: Context, told: Told) -> None:
        self._context = context
        self._told = told
        self._asked: deque[tuple[Parked, Sequence[Input], Sequence[Input]]] = deque()
        self._looked = 0.0
        self.lanes: dict[TopicPartition, dict[bytes, Parked]] = {}

    def ask(self, parked: Parked, inputs: Sequence[Input], drained: Sequence[Input] = ()) -> None:
        """From the event loop: let these wait on the log, those drained again, and write down the circuit."""
        parked.asked += 1
        self._asked.append((parked, inputs, drained))

    def step(self, processor: Processor, scanned: Callable[[Parked], int]) -> None:
        """See to what was asked; write snapshots that are due, while the lease holds."""
        for at in self.lanes.keys() - processor.progress.owned.keys():
            del self.lanes[at]
        if not processor.holds_lease(self._context.settings.session_timeout_s / 2):
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
        if drained:
            parked.take_back(drained)
        if inputs:
            parked.begin(inputs[0].offset, _found_behind(parked.owned, inputs[0].offset))
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
            self._told.cleared(parked, parked.heard)

    # -- assignment --------------------------------------------------------------------

    def restore(self, owned: Owned, progress: Progress) -> list[Parked]:
        """Take up the lanes of a partition as the log has them; return them."""
        reader, lanes = progress.reader, ("lanes", owned.at[1])
        snapshots: dict[bytes, Lane | None] = {}
        for record in reader.read(reader.starts([lanes])):
            key = record.key or b""
            snapshots[key] = self._context.codec.decode_as(Lane, record.value) if record.value else None
        start = reader.starts([owned.at])[owned.at]
        self.lanes[owned.at] = {}
        for lane in snapshots.values():
            if lane is not None:
                self._keep(_restored(owned, lane, start))
        self._read_back(owned, [lane for lane in snapshots.values() if lane and lane.parked], reader)
        return list(self.lanes[owned.at].values())

    def _read_back(self, owned: Owned, snapshots: Sequence[Lane], reader: Reader) -> None:
        """Find what was attempted of parked lanes since their snapshots were made."""
        if not snapshots:
            return
        attempts = ("attempts", owned.at[1])
        start = max(min(lane.attempts_from for lane in snapshots), reader.starts([attempts])[attempts])
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


def _found_behind(owned: Owned, first: int) -> set[int]:
    """Offsets from `first` on whose outputs were read back: their lane must not attempt them again."""
    taken = {each.offset for each in owned.open if each.found is not None and each.offset > first}
    return taken | {offset for offset in owned.found if offset > first}


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
    if cursor < parked.floor[0]:
        under_way.append(parked.floor[1])
    parked.found = {offset for offset in parked.found if offset >= cursor}
    done = parked.found | {taken.offset for taken in parked.drained if taken.done}
    attempts_from = min([attempts_end, *under_way])
    return replace(lane, cursor=cursor, attempts_from=attempts_from, done=tuple(sorted(done)))


def _restored(owned: Owned, lane: Lane, start: int) -> Parked:
    parked = Parked(owned, lane.endpoint_id, lane.tenant)
    # the probe of a half-open circuit died with the process that made it
    state = "open" if lane.circuit == "half_open" else lane.circuit
    parked.circuit = Circuit(state, opened=lane.opened, probe_at=lane.probe_at)
    parked.written = lane
    if lane.parked:
        parked.begin(max(lane.cursor, start), lane.done)
        parked.acknowledge(parked.sending())
    if lane.parked and lane.cursor < start:
        telemetry.LANES_TRIMMED.inc(start - lane.cursor)
        _LOG.error(
            "lane.trimmed",
            endpoint=lane.endpoint_id,
            partition=owned.at[1],
            first=lane.cursor,
            last=start - 1,
            todo="deliveries of this endpoint among these offsets are lost: `hooklog reconcile` lists them",
        )
    return parked
