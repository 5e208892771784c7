"""Parking, rule by rule: what `lanes` says of a lane, what a new owner skips, what a kill repeats."""

from __future__ import annotations

from engine.core.lane import Lane
from engine.ports import Output
from engine.runtime.delivering.drain import DrainScan
from engine.runtime.delivering.parked import AHEAD_MAX, Parked
from engine.runtime.delivering.parking import _with_cursor
from engine.runtime.memory import MemoryLog
from engine.runtime.owned import Input, Owned
from engine.runtime.topics import MESSAGE_MAX
from tests.pipeline.world import CODEC, TENANT, ManualClock
from tests.runtime.parking_scene import AT, LOOK_S, OPEN, REFRESH_S, Loop, Scene, attempt, scene

__all__ = ["scene"]


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


def test_one_that_hangs_bounds_what_is_done_behind_it() -> None:
    """The lane takes nothing more until it ends, so that its snapshot stays a record that Kafka takes."""
    first = 1 << 40
    owned = Owned(AT, (), first, ())
    lane = Parked(owned, "a", TENANT)
    lane.wanted = 256
    lane.begin(first, ())
    lane.behind = None
    for offset in range(first, first + AHEAD_MAX):
        assert lane.room(256) == 256
        taken = Input(owned, offset, (0,))
        taken.done = offset > first
        lane.drained.append(taken)
    assert lane.room(256) == 0
    snapshot = _with_cursor(Lane("a", TENANT, parked=True), lane, 0, first + AHEAD_MAX)
    assert (snapshot.cursor, len(snapshot.done)) == (first, AHEAD_MAX - 1)
    assert len(CODEC.encode(snapshot)) < MESSAGE_MAX / 2
    lane.drained[0].done = True
    assert lane.cursor(first + AHEAD_MAX) == first + AHEAD_MAX
    assert lane.room(256) == 256


def test_what_was_done_before_it_was_killed_keeps_no_lane_from_going_on() -> None:
    """However much lies behind the cursor: the one that hung comes again, and only then it waits."""
    owned = Owned(AT, (), 0, ())
    lane = Parked(owned, "a", TENANT)
    lane.wanted = 256
    lane.begin(0, range(1, AHEAD_MAX + 1))
    assert lane.room(256) == 256
    lane.drained.append(Input(owned, 0, (0,)))
    assert lane.room(256) == 0
