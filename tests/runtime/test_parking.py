"""Parking, rule by rule: what `lanes` says of a lane, what a new owner skips, what a kill repeats: nothing.

The test acts for the event loop: it begins, finishes and parks what the polling thread hands over.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

import pytest

from consumers.dispatcher import Intake
from engine.core.lane import Circuit, Lane
from engine.core.model import DeliveryScheduled
from engine.ports import Output
from engine.runtime.context import Context
from engine.runtime.delivering.attempt import Waiting
from engine.runtime.delivering.drain import DrainScan
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
        self.drained_left = 0

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


def test_an_input_is_done_once_the_snapshot_that_answers_for_it_is_on_the_log(scene: Scene) -> None:
    """Not when it is sent; killed before that, the delivery comes again."""
    scene.publish(3)
    scene.begin(0)
    inputs = scene.park(1, 2, circuit=OPEN)
    done_when_written = []
    for _ in range(3):
        scene.step()
        done_when_written.append((scene.snapshot() is not None, [taken.done for taken in inputs]))
    assert done_when_written == [(False, [False] * 2), (True, [False] * 2), (True, [True] * 2)]
    assert scene.says()[:2] == (1, ())
    scene.finish(0)
    scene.step()
    assert scene.committed() == 3


def test_killed_before_its_snapshot_is_there_a_lane_was_never_parked(scene: Scene) -> None:
    """The commit still answers for everything, also for what came after it had asked."""
    scene.publish(2)
    scene.park(0, 1, circuit=OPEN)
    scene.publish(1)
    scene.restart()
    assert scene.waiting() == [0, 1, 2]
    assert all(each.parked is None for each in scene.loop.waiting.values())


def test_what_was_under_way_when_its_lane_parked_is_not_lost(scene: Scene) -> None:
    """It lies below the cursor and above the commit: killed, it is tried again, and what ended is not."""
    scene.publish(5)
    scene.publish(1, "b")
    scene.begin(0, 1, 2, 5)
    scene.finish(1, 5)
    scene.park(3, 4, circuit=OPEN)
    scene.run(LOOK_S)
    assert scene.says() == (3, (), 2)
    assert scene.committed() == 0
    scene.restart(0.25)
    assert scene.committed() == 0, "the new cursor is not on the log yet"
    for _ in range(2):
        scene.restart()
        scene.loop.lanes["a"].wanted = 256
        scene.run(LOOK_S)
        assert scene.waiting() == [0, 2, 3, 4]
        assert scene.says()[:2] == (0, (1,)), "its own alone"
        assert scene.committed() == 6


def test_what_is_read_back_is_not_drained(scene: Scene) -> None:
    """A lane that parks after a kill passes over what had ended, polled again already or not yet."""
    scene.publish(500)
    scene.run(LOOK_S)
    ended = {1, 7, 450}
    scene.begin(0, *ended)
    scene.finish(*ended)
    scene.restart(0.25)
    scene.park(*scene.waiting(), wanted=500)
    scene.step()
    assert max(scene.waiting()) < 450, "not polled yet when its lane parked"
    scene.park(*scene.waiting(), wanted=500)
    drained: list[int] = []
    for _ in range(20):
        scene.step()
        drained += (waiting := scene.waiting())
        scene.begin(*waiting)
        scene.finish(*waiting)
    assert drained == [offset for offset in range(500) if offset not in ended]


def test_a_new_owner_repeats_only_what_was_in_flight(scene: Scene) -> None:
    """However often it is killed: what is done behind the cursor is in `done`, whatever `attempts` tells."""
    scene.publish(4)
    scene.park(0, 1, 2, 3, wanted=4, circuit=OPEN)
    scene.run(LOOK_S)
    assert scene.waiting() == [0, 1, 2, 3]
    scene.begin(0, 1, 2)
    scene.finish(1, 2)
    for attempts_from in (0, 2, 2):
        scene.run(REFRESH_S)
        assert scene.says() == (0, (1, 2), attempts_from)
        scene.restart()
        scene.loop.lanes["a"].wanted = 4
        scene.run(LOOK_S)
        assert scene.waiting() == [0, 3]
        scene.begin(0)


def test_what_ended_since_the_snapshot_is_read_back(scene: Scene) -> None:
    """Killed before the next snapshot: `attempts` tells, from `attempts_from` on."""
    scene.publish(3)
    scene.park(0, 1, 2, wanted=3, circuit=OPEN)
    scene.run(LOOK_S)
    scene.begin(0, 1)
    scene.finish(1)
    assert scene.says() == (0, (), 0)
    scene.restart()
    scene.loop.lanes["a"].wanted = 3
    scene.run(LOOK_S)
    assert scene.waiting() == [0, 2]


def test_the_cursor_stays_where_a_full_lane_could_take_no_more(scene: Scene) -> None:
    """The scan may be far ahead for others: what lies behind waits, and is handed out later, once."""
    scene.publish(3)
    scene.publish(3, "b")
    scene.park(0, 1, 2, wanted=1, circuit=OPEN)
    scene.park(3, 4, 5, wanted=3, circuit=OPEN)
    scene.run(LOOK_S)
    assert scene.waiting() == [0, 3, 4, 5], "a lane with room for one holds one"
    scene.begin(0)
    scene.loop.lanes["a"].wanted = 0
    scene.finish(0)
    scene.run(LOOK_S)
    assert scene.says()[:2] == (1, ())
    scene.restart()
    scene.loop.lanes["a"].wanted = 2
    scene.run(LOOK_S)
    assert scene.waiting() == [1, 3, 2]


def test_what_a_lane_gives_back_is_drained_again(scene: Scene) -> None:
    """The circuit has opened: the cursor goes back to the first of them, and the scan with it."""
    scene.publish(4)
    scene.park(0, 1, 2, 3, wanted=4, circuit=OPEN)
    scene.run(LOOK_S)
    scene.begin(0)
    lane = scene.loop.lanes["a"]
    lane.wanted = 0
    scene.intake.parking.ask(lane, (), [scene.take(offset).taken for offset in (1, 2, 3)])
    scene.run(LOOK_S)
    scene.finish(0)
    scene.run(LOOK_S)
    assert scene.says()[:2] == (1, ())
    assert scene.waiting() == []
    lane.wanted = 4
    scene.run(LOOK_S)
    assert scene.waiting() == [1, 2, 3]
    scene.begin(1, 2, 3)
    scene.finish(1, 2, 3)
    scene.run(LOOK_S)
    assert scene.says()[:2] == (4, ())


def unparking(scene: Scene) -> None:
    """Lane `a` has caught up; of what was drained 0 is in flight and 1 done."""
    scene.publish(2)
    scene.park(0, 1)
    scene.run(LOOK_S)
    assert scene.loop.events == ["resumed"]
    scene.begin(0, 1)
    scene.finish(1)


def test_a_lane_that_has_caught_up_takes_its_records_as_they_come(scene: Scene) -> None:
    """Nothing is passed over any more; the commit answers for it."""
    unparking(scene)
    scene.publish(2)
    assert scene.waiting() == [2, 3]
    assert all(each.parked is None for each in scene.loop.waiting.values())
    scene.run(LOOK_S)
    assert scene.committed() == 2


def test_its_snapshot_stays_until_everything_drained_is_done(scene: Scene) -> None:
    """Only then a tombstone; killed before, what is in flight comes again, and nothing else."""
    unparking(scene)
    scene.run(REFRESH_S)
    assert scene.says()[:2] == (0, (1,))
    scene.restart()
    assert scene.waiting() == [0]
    scene.begin(0)
    scene.finish(0)
    scene.run(LOOK_S)
    assert scene.snapshot() is None
    assert scene.loop.events[-1] == "cleared"
    assert scene.intake.parking.lanes[AT] == {}
    scene.restart()
    assert scene.waiting() == []


def test_what_came_on_its_own_behind_the_cursor_is_found_on_attempts(scene: Scene) -> None:
    """While something drained is in flight, `attempts_from` stays before all that began after it."""
    unparking(scene)
    scene.publish(2)
    scene.begin(2, 3)
    scene.finish(2)
    scene.run(REFRESH_S)
    assert scene.says() == (0, (1,), 0)
    scene.restart()
    scene.loop.lanes["a"].wanted = 4
    scene.run(LOOK_S)
    assert scene.waiting() == [0, 3]


def test_parked_again_while_unparking(scene: Scene) -> None:
    """What came on its own in between is neither lost nor repeated, wherever it is killed."""
    unparking(scene)
    scene.publish(4)
    scene.begin(2, 3)
    scene.finish(2)
    inputs = scene.park(4, 5, wanted=0, circuit=OPEN)
    scene.run(LOOK_S)
    assert all(taken.done for taken in inputs)
    assert scene.says() == (0, (1,), 0)
    scene.finish(0)
    scene.run(LOOK_S)
    assert scene.says()[:2] == (4, ())
    scene.restart()
    scene.loop.lanes["a"].wanted = 256
    scene.run(LOOK_S)
    assert scene.waiting() == [3, 4, 5]


@pytest.mark.parametrize("ended", [False, True])
def test_what_was_on_its_way_to_the_lane_when_it_parked_is_handed_out_once(
    scene: Scene, *, ended: bool
) -> None:
    """The drain has had it: given back while unparking, or later, it is passed over and no more."""
    scene.publish(2)
    late = scene.take(1)
    scene.park(0)
    scene.run(LOOK_S)
    assert scene.waiting() == [0, 1]
    scene.begin(0, 1)
    if ended:
        scene.finish(0, 1)
        scene.run(LOOK_S)
        assert scene.snapshot() is None
    scene.intake.parking.ask(scene.loop.lanes["a"], [late.taken])
    scene.run(LOOK_S)
    assert late.taken.done
    assert scene.waiting() == []
    scene.publish(1)
    scene.run(LOOK_S)
    assert scene.waiting() == [2]


def test_a_circuit_that_opens_when_all_is_drained_ends_unparking_first(scene: Scene) -> None:
    """Else its snapshot would claim what came on its own since, and a new owner repeat it."""
    unparking(scene)
    scene.publish(2)
    scene.begin(2, 3)
    scene.finish(0, 2)
    lane = scene.loop.lanes["a"]
    lane.circuit = OPEN
    scene.intake.parking.ask(lane, ())
    scene.clock.us -= 750_000  # no look comes in between
    for _ in range(3):
        scene.step()
    found = scene.snapshot()
    assert found is not None
    assert (found.parked, found.circuit) == (False, "open")
    scene.restart()
    assert scene.waiting() == [3]


def test_what_cannot_be_decoded_is_refused_once(scene: Scene) -> None:
    """No attempt tells of it: behind the cursor it is in `done`, also when the commit is below both."""
    scene.publish(2)
    scene.begin(0)
    scene.park(1, wanted=4, circuit=OPEN)
    scene.run(LOOK_S)
    scene.begin(1)
    scene.log.append(Output(*AT, b"a", b"no headers"))
    scene.run(LOOK_S)
    for _ in range(2):
        scene.run(REFRESH_S)
        assert scene.log.end(("invalid", 0)) == 1
        assert scene.says()[1] == (2,)
        scene.restart()
        scene.loop.lanes["a"].wanted = 4
        scene.run(LOOK_S)
        assert scene.waiting() == [0, 1]


def test_what_another_owner_has_attempted_is_not_begun(scene: Scene) -> None:
    """The owner before may still finish something: what waits here is done, what we have begun is ours."""
    scene.publish(4)
    scene.park(0, 1, 2, 3, wanted=2, circuit=OPEN)
    scene.run(LOOK_S)
    scene.restart()
    scene.loop.lanes["a"].wanted = 2
    scene.run(LOOK_S)
    assert scene.waiting() == [0, 1]
    scene.begin(0)
    for offset in (0, 1, 3):
        scene.log.append(attempt(offset))
    scene.run(LOOK_S)
    assert not scene.flying[0].taken.done
    assert scene.loop.waiting[1].taken.done
    scene.take(1)
    scene.loop.lanes["a"].wanted = 4
    scene.finish(0)
    scene.run(LOOK_S)
    assert scene.waiting() == [2], "3 was attempted while it lay behind the cursor"
    assert scene.says()[:2] == (2, (3,))


def test_a_lane_of_a_partition_that_is_gone_is_not_written(scene: Scene) -> None:
    """What was asked before somebody else took over is no longer ours to say."""
    scene.publish(2)
    scene.park(0, 1, circuit=OPEN)
    scene.intake.processor.progress.lost([AT])
    scene.run(LOOK_S)
    assert scene.log.end(("lanes", 0)) == 0


def test_a_scan_is_never_ahead_of_the_intake() -> None:
    """What was attempted before its input was taken in, a commit's positions would not find."""
    log = MemoryLog(1, ManualClock())
    for _ in range(10):
        log.append(Output(*AT, b"a", b""))
    owned = Owned(AT, (), 4, ())
    lane = Parked(owned, "a", TENANT)
    lane.wanted, lane.circuit = 100, OPEN
    lane.begin(0, ())
    loop, got = Loop(), list[int]()
    scan = DrainScan(log, owned, {lane.key: lane}, loop)
    for intake in (4, 4, 7, 10):
        owned.next = intake
        scan.step(lambda _, record: got.append(record.offset), 5, 100)
        assert got == list(range(intake))
