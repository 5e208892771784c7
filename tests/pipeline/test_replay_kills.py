"""The replayer is killed anywhere: nothing is delivered, named or told twice, and nothing is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.change import CommandRejected
from engine.core.replay import CancelReplay, Only, ReplayCancelled, ReplayFinished, ReplayStarted, SendTest
from engine.runtime.replaying import running as replaying
from tests.pipeline.replays import (
    Receivers,
    ask,
    attempts_of,
    facts,
    have,
    made_again,
    named,
    replay_of,
    resend,
    several,
    start,
)
from tests.pipeline.world import TENANT, World, a_world


def check_whole(world: World, messages: int, name: str = "r1") -> None:
    """Each message was replayed once, named once, and the snapshot says so."""
    again = Counter(d.message_id for d in made_again(world) if d.origin == name)
    assert again == dict.fromkeys((f"m{n}" for n in range(messages)), 1)
    assert set(named(world).values()) == {1}
    replay = replay_of(world, name)
    assert (replay.status, replay.reason, replay.deliveries) == ("finished", "", messages)
    assert len(facts(world, ReplayStarted)) == len(facts(world, ReplayFinished)) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.sampled_from(["step"] * 6 + ["kill", "wait", "second", "round"]), max_size=60),
    st.sampled_from(["all", "missed", "failed"]),
)
def test_kills_anywhere_repeat_nothing(actions: list[str], only: Only) -> None:
    """Whenever the replayer is killed, each delivery is on the log once, and is named once."""
    receivers = Receivers("ok")
    with a_world(receivers) as world:
        world.create_endpoint("ok", retry_policy=())
        world.run(1)
        for n in range(7):
            world.publish(f"m{n}")
        world.run(2)
        receivers.down.clear()
        start(world, only)
        replaying_slowly(world, actions)
        world.run(6)
        check_whole(world, 7)


@pytest.mark.parametrize("first", range(12, 60, 8))
@pytest.mark.parametrize("second", range(4, 36, 4))
def test_a_snapshot_after_a_crash_forgets_nothing(first: int, second: int) -> None:
    """Killed between snapshots, then soon after the next one: what was read back once is found again."""
    with a_world(Receivers()) as world:
        world.create_endpoint("ok")
        world.run(1)
        for n in range(12):
            world.publish(f"m{n}")
        world.run(2)
        start(world)
        replaying_slowly(world, ["step"] * first + ["kill", "second"])
        replaying_slowly(world, (["step"] * 4 + ["wait"]) * (second // 4) + ["second"] + ["step"] * 4)
        replaying_slowly(world, ["kill"] + ["step"] * 8 + ["kill"])
        world.run(6)
        check_whole(world, 12)


@pytest.mark.parametrize("steps", range(12))
def test_an_end_is_told_once(steps: int) -> None:
    """By hand or by itself: killed between the fact and the snapshot, the fact is not written again."""
    with a_world(Receivers()) as world:
        have(world, *several(3))
        start(world, name="slow", rate=0.1)
        world.run(1)
        start(world)
        replaying_slowly(world, ["step"] * (steps + 14) + ["kill", "step", "second", "step"])
        ask(world, CancelReplay("stop", TENANT, "test", 0, "slow"))
        replaying_slowly(world, ["step"] * steps + ["kill"])
        world.run(3)
        assert len(facts(world, ReplayCancelled)) == 1
        assert len(facts(world, ReplayFinished)) == 1
        assert facts(world, CommandRejected) == []
        assert replay_of(world, "slow").status == "cancelled"
        assert replay_of(world).deliveries == 3


def replaying_slowly(world: World, actions: Sequence[str]) -> None:
    """Do what hypothesis says, in batches of two."""
    before, replaying.BATCH_MAX = replaying.BATCH_MAX, 2
    try:
        for action in actions:
            match action:
                case "step":
                    world.step("replayer")
                case "kill":
                    world.kill("replayer")
                case "wait":
                    world.clock.us += 100_000
                case "second":
                    world.clock.us += 1_100_000
                case "round":
                    world.run(0.25)
    finally:
        replaying.BATCH_MAX = before


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(["step"] * 6 + ["kill", "wait", "cancel"]), max_size=40))
def test_kills_anywhere_of_resends_tests_and_cancellations(actions: list[str]) -> None:
    """One delivery a command, named once, whenever the replayer is killed; a replay ends once."""
    with a_world(Receivers()) as world:
        have(world, *several(4))
        resend(world, "m0", "a")
        ask(world, SendTest("cmd_t", TENANT, "test", 0, "ok", "ping", b"{}"))
        start(world, rate=1.0)
        resend(world, "m1", "b")
        for n, action in enumerate(actions):
            if action == "cancel":
                ask(world, CancelReplay(f"stop{n}", TENANT, "test", 0, "r1"))
            else:
                replaying_slowly(world, [action])
        world.run(10)
        assert set(Counter(d.delivery_id for d in made_again(world)).values()) == {1}
        assert set(named(world)) == {d.delivery_id for d in made_again(world)}
        assert set(named(world).values()) == {1}
        assert len(attempts_of(world, "resend")) == 2
        assert len(attempts_of(world, "test")) == 1
        assert len(facts(world, ReplayFinished, ReplayCancelled)) == 1
        assert replay_of(world).status == ("cancelled" if "cancel" in actions else "finished")
