"""An endpoint that takes no more of a replay holds up no other, and kills repeat nothing all the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.replay import Only
from engine.runtime.replaying import line
from engine.runtime.replaying import running as replaying
from tests.pipeline.replays import Receivers, made_again, named, replay_of, start
from tests.pipeline.world import World, a_world

ENDPOINTS = ("ok", "slow", "well")


@contextmanager
def small(outstanding: int = 2, held: int = 1_000) -> Iterator[None]:
    """A replayer that an endpoint holds back soon, and that writes two at a time."""
    before = replaying.BATCH_MAX, replaying.OUTSTANDING_MAX, line.HELD_MAX, line.READY_MIN
    replaying.BATCH_MAX, replaying.OUTSTANDING_MAX, line.HELD_MAX, line.READY_MIN = 2, outstanding, held, 4
    try:
        yield
    finally:
        replaying.BATCH_MAX, replaying.OUTSTANDING_MAX, line.HELD_MAX, line.READY_MIN = before


def have(world: World, receivers: Receivers, messages: int) -> None:
    """Messages that failed at three endpoints, which are up again; one takes a request every two seconds."""
    receivers.down.update(ENDPOINTS)
    for name in ENDPOINTS:
        world.create_endpoint(name, retry_policy=(), rate_limit=0.5 if name == "slow" else None)
    world.run(1)
    for n in range(messages):
        world.publish(f"m{n}")
    world.run_until(lambda: len(world.attempts()) == messages * len(ENDPOINTS), 100)
    receivers.down.clear()


def made(world: World) -> Counter[str]:
    """Deliveries of the replay by endpoint."""
    return Counter(each.endpoint_id for each in made_again(world))


def check_whole(world: World, messages: int) -> None:
    """Each message was made once for each endpoint and named once, and the snapshot says so."""
    again = Counter((each.message_id, each.endpoint_id) for each in made_again(world))
    assert again == dict.fromkeys(((f"m{n}", e) for n in range(messages) for e in ENDPOINTS), 1)
    assert named(world) == dict.fromkeys((each.delivery_id for each in made_again(world)), 1)
    replay = replay_of(world)
    assert (replay.status, replay.deliveries, replay.skipped) == ("finished", messages * len(ENDPOINTS), 0)
    assert (replay.made_ahead, replay.skipped_ahead) == (0, 0)


@pytest.mark.parametrize("only", ["all", "failed"])
def test_one_endpoint_that_takes_no_more_holds_up_no_other(only: Only) -> None:
    """The others have all of theirs while it has hardly begun; killed then, nothing is made again."""
    receivers = Receivers()
    with a_world(receivers) as world, small():
        have(world, receivers, 20)
        start(world, only, endpoint_id="")
        world.run_until(lambda: (made(world)["ok"], made(world)["well"]) == (20, 20), 15)
        assert made(world)["slow"] < 12
        assert replay_of(world).status == "running"
        for _ in range(3):
            world.run(2)
            world.kill("replayer")
        world.run_until(lambda: replay_of(world).status == "finished", 60)
        check_whole(world, 20)


def test_how_much_is_held_back_is_bounded() -> None:
    """Then the others wait too, until it takes some: what it cannot take fills no memory."""
    receivers = Receivers()
    with a_world(receivers) as world, small(held=3):
        have(world, receivers, 20)
        start(world, endpoint_id="")
        world.run(5)
        most = made(world)["slow"] + 3 + 20  # a poll takes in a few more than there is room for
        assert made(world)["ok"] <= most
        (running,) = world.replayer.replays.values()
        assert running._candidates is not None
        assert len(list(running._candidates.line)) <= 3 + 4 + 3 * 70
        world.run_until(lambda: replay_of(world).status == "finished", 90)
        check_whole(world, 20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from(["step"] * 6 + ["kill", "kill", "second", "round", "round"]), max_size=80),
    st.sampled_from(["all", "missed", "failed"]),
)
def test_kills_anywhere_repeat_nothing_that_overtook(actions: list[str], only: Only) -> None:
    """However far ahead of the cursors the others are when the replayer is killed."""
    receivers = Receivers()
    with a_world(receivers) as world, small():
        have(world, receivers, 6)
        start(world, only, endpoint_id="")
        for action in actions:
            match action:
                case "step":
                    world.step("replayer")
                case "kill":
                    world.kill("replayer")
                case "second":
                    world.clock.us += 1_100_000
                case "round":
                    world.run(0.5)
        world.run(1)
        world.run_until(lambda: replay_of(world).status == "finished", 60)
        check_whole(world, 6)
