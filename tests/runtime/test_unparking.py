"""Unparking, rule by rule: a lane that has caught up takes its records as they come, and loses none."""

from __future__ import annotations

import pytest

from tests.runtime.parking_scene import AT, LOOK_S, OPEN, REFRESH_S, Scene, scene

__all__ = ["scene"]


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
