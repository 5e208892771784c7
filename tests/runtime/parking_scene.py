"""A partition with lanes on a log in memory; the test acts for the event loop.

It begins, finishes and parks what the polling thread hands over.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence

import pytest

from engine.core.lane import Circuit, Lane
from engine.core.model import DeliveryScheduled
from engine.ports import Output
from engine.runtime.context import Context
from engine.runtime.delivering.attempt import Waiting
from engine.runtime.delivering.intake import Intake
from engine.runtime.delivering.parked import Parked
from engine.runtime.memory import MemoryConsumer, MemoryLog
from engine.runtime.owned import Input, Owned
from engine.runtime.settings import Settings
from schemas import headers
from tests.pipeline.world import CODEC, PROFILES, TENANT, VAULT, ManualClock, NoWait

AT = ("deliveries", 0)
OPEN = Circuit("open", opened=1, probe_at=1)
LOOK_S, REFRESH_S = 1.5, 31.0
"""After so long a snapshot that has changed is on the log, and one that has not is there again."""


class Loop:
    """What the event loop is told."""

    def __init__(self) -> None:
        self.waiting: dict[int, Waiting] = {}
        self.lanes: dict[str, Parked] = {}
        self.events: list[str] = []
        self.drained_left = self.drained_bytes_left = 0

    def changed(self, endpoint_ids: Collection[str]) -> None:
        """No endpoint is known here."""

    def arrive(self, batch: Sequence[Waiting]) -> None:
        """Nothing is ever handed over twice."""
        for waiting in batch:
            assert waiting.taken.offset not in self.waiting
            self.waiting[waiting.taken.offset] = waiting

    def restore(self, owned: Owned, found: Iterable[Parked]) -> None:
        """The lanes that the log knows."""
        self.lanes = {parked.endpoint_id: parked for parked in found}

    def forget(self, partition: int) -> None:
        """One partition is all there is."""
        self.waiting.clear()

    def resumed(self, parked: Parked, heard: int) -> None:
        """Noted, if nothing more was asked."""
        if parked.asked == heard:
            self.events.append("resumed")

    def cleared(self, parked: Parked, heard: int) -> None:
        """Noted, if nothing more was asked."""
        if parked.asked == heard:
            self.events.append("cleared")


class Scene:
    """One partition of `deliveries` and the process that owns it, which can be killed."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(1, self.clock)
        self.log.changed = NoWait(threading.RLock())
        self.start()

    def start(self, seconds: float = LOOK_S) -> None:
        """A new process takes in what is there."""
        self.loop = Loop()
        self.flying: dict[int, Waiting] = {}
        settings = Settings(partitions=1)
        context = Context(settings, self.log, self.clock, CODEC, PROFILES, VAULT, "test")
        self.intake = Intake(context, self.loop)
        self.run(seconds)

    def kill(self) -> None:
        """Be gone: nothing is drained, acknowledged or committed."""
        consumer = self.intake.processor.consumer
        assert isinstance(consumer, MemoryConsumer)
        consumer.kill()
        self.intake.processor.progress.close()

    def restart(self, seconds: float = LOOK_S) -> None:
        """SIGKILL, and a new owner."""
        self.kill()
        self.start(seconds)

    def step(self) -> None:
        """One turn of the thread that polls, a quarter of a second."""
        self.clock.us += 250_000
        self.intake.step(full=False)

    def run(self, seconds: float) -> None:
        """Let the thread that polls work."""
        for _ in range(int(seconds * 4)):
            self.step()

    # -- what happens ------------------------------------------------------------------

    def publish(self, count: int, key: str = "a") -> None:
        """Deliveries for an endpoint; they are taken in."""
        for _ in range(count):
            name = f"d{self.log.end(AT)}"
            delivery = DeliveryScheduled(
                name, TENANT, key, name, "e", 1, "scheduled", "", 0, 0, "standard", 0, 0, 0, 0, b"{}"
            )
            found = {headers.DELIVERY: name.encode(), headers.ATTEMPT: b"1"}
            self.log.append(Output(*AT, key.encode(), CODEC.encode(delivery), found))
        self.step()

    def take(self, offset: int) -> Waiting:
        """Take a delivery out of its lane."""
        waiting = self.loop.waiting.pop(offset)
        if waiting.parked is not None:
            waiting.parked.left += 1
            self.loop.drained_left += 1
            self.loop.drained_bytes_left += waiting.size
        return waiting

    def begin(self, *offsets: int) -> None:
        """Start requests."""
        for offset in offsets:
            self.flying[offset] = self.take(offset)
            assert self.flying[offset].taken.begin()

    def finish(self, *offsets: int) -> None:
        """They have ended, their records are acknowledged."""
        for offset in offsets:
            waiting = self.flying.pop(offset)
            self.intake.processor.finish(waiting.taken, attempt(offset, waiting.delivery.endpoint_id))
        for _ in range(3):
            self.intake.processor.producer.poll()

    def park(self, *offsets: int, wanted: int = 256, circuit: Circuit | None = None) -> list[Input]:
        """The lane cannot take these; it has room for so many, and this circuit."""
        taken = [self.take(offset) for offset in offsets]
        key = taken[0].delivery.endpoint_id
        lane = self.loop.lanes.setdefault(key, Parked(taken[0].taken.owner, key, TENANT))
        lane.wanted = wanted
        lane.circuit = circuit or lane.circuit
        inputs = [each.taken for each in taken]
        self.intake.parking.ask(lane, inputs)
        return inputs

    # -- what is so --------------------------------------------------------------------

    def snapshot(self, key: str = "a") -> Lane | None:
        """What the log says last of a lane."""
        values = [r.value for r in self.log.records(("lanes", 0)) if r.key == key.encode()]
        return CODEC.decode_as(Lane, values[-1]) if values and values[-1] else None

    def says(self) -> tuple[int, tuple[int, ...], int]:
        """Cursor, done, attempts_from of the parked lane `a`."""
        lane = self.snapshot()
        assert lane is not None
        assert lane.parked
        return lane.cursor, lane.done, lane.attempts_from

    def waiting(self) -> list[int]:
        """Offsets that wait in lanes, in the order they came."""
        return list(self.loop.waiting)

    def committed(self) -> int:
        """Offset that the group has committed."""
        position = self.intake.processor.consumer.committed([AT])[AT]
        assert position is not None
        return position.offset


def attempt(offset: int, key: str = "a") -> Output:
    """The record of an attempt of the delivery at an offset."""
    found = {
        headers.CAUSE: headers.cause(*AT, offset),
        headers.DELIVERY: b"d%d" % offset,
        headers.ATTEMPT: b"1",
    }
    return Output("attempts", 0, key.encode(), b"", found)


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A scene, cleared away."""
    made = Scene()
    yield made
    made.kill()
