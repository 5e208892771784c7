"""Replays on the log in memory: nothing twice, nothing left out, killed anywhere."""

from __future__ import annotations

import pytest

from consumers.replayer import RUNNING_MAX
from engine.core.change import CommandRejected, DisableEndpoint, EnableEndpoint
from engine.core.replay import (
    CancelReplay,
    ReplayCancelled,
    ReplayFinished,
    ReplayStarted,
    StartReplay,
)
from engine.ports import Output
from engine.runtime.replaying import running as replaying
from tests.pipeline.replays import (
    Receivers,
    ask,
    facts,
    have,
    made_again,
    named,
    replay_of,
    resend,
    several,
    start,
)
from tests.pipeline.world import PARTITIONS, TENANT, a_world


def test_all_is_everything_the_subscription_matches_now() -> None:
    """Within the range, of the event types asked for, once each."""
    with a_world(Receivers()) as world:
        world.create_endpoint("ok", ("room.*",))
        world.run(1)
        world.publish("early")
        world.run(1)
        since = world.clock.now()
        for n in range(5):
            world.publish(f"room{n}")
            world.publish(f"rec{n}", "recording.completed")
            world.publish(f"left{n}", "room.left")
        world.run(1)
        until = world.clock.now()
        world.publish("late")
        world.run(1)
        start(world, since=since, until=until, event_types=("room.ended",))
        world.run(3)
        assert sorted(d.message_id for d in made_again(world)) == [f"room{n}" for n in range(5)]
        replay = replay_of(world)
        assert (replay.status, replay.planned, replay.deliveries, replay.missing) == ("finished", 5, 5, 0)
        assert len(facts(world, ReplayStarted)) == len(facts(world, ReplayFinished)) == 1
        assert {(d.trigger, d.origin) for d in made_again(world)} == {("replay", "r1")}


def test_what_nobody_can_decode_is_passed_over() -> None:
    """What the router has put on `invalid` lies among the messages still, and stops no replay."""
    with a_world(Receivers()) as world:
        world.create_endpoint("ok")
        world.run(1)
        for partition in range(PARTITIONS):
            for noise in (b"noise", b"\xc3\x01" + bytes(8)):
                world.log.append(Output("messages", partition, b"key", noise))
        for n in range(4):
            world.publish(f"m{n}")
        world.run(1)
        assert len(world.records("invalid")) == 2 * PARTITIONS
        start(world)
        world.run(3)
        assert sorted(d.message_id for d in made_again(world)) == several(4)
        assert replay_of(world).status == "finished"


def test_missed_is_what_never_came() -> None:
    """Before the endpoint existed, while it was disabled, and what failed; not what was delivered."""
    receivers = Receivers()
    with a_world(receivers) as world:
        world.create_endpoint("other")
        world.run(1)
        world.publish("before")
        world.run(1)
        world.create_endpoint("ok", retry_policy=())
        world.run(1)
        world.publish("delivered")
        world.run(1)
        ask(world, DisableEndpoint("off", TENANT, "test", 0, "ok", "by hand"))
        world.run(1)
        world.publish("disabled")
        world.run(1)
        ask(world, EnableEndpoint("on", TENANT, "test", 0, "ok"))
        world.run(1)
        receivers.down.add("ok")
        world.publish("failed")
        world.run(1)
        receivers.down.clear()
        start(world, "missed")
        world.run(3)
        assert sorted(d.message_id for d in made_again(world)) == ["before", "disabled", "failed"]
        start(world, "missed", "r2")
        world.run(3)
        assert replay_of(world, "r2").deliveries == 0


def test_missed_leaves_alone_what_is_on_its_way() -> None:
    """A delivery that waits for its retry is not missed."""
    receivers = Receivers("ok")
    with a_world(receivers) as world:
        world.create_endpoint("ok", retry_policy=(60_000,))
        world.run(1)
        world.publish("m")
        world.run(2)
        start(world, "missed")
        world.run(3)
        assert replay_of(world).status == "finished"
        assert made_again(world) == []


def test_failed_is_what_ended_so_and_was_not_made_good() -> None:
    """Bodies come from the dead letters; what a resend delivered since is left alone."""
    receivers = Receivers("ok")
    with a_world(receivers) as world:
        world.create_endpoint("ok", retry_policy=())
        world.run(1)
        for n in range(5):
            world.publish(f"m{n}")
        world.run(2)
        receivers.down.clear()
        resend(world, "m3")
        world.publish("fine")
        world.run(2)
        start(world, "failed")
        world.run(3)
        again = [d for d in made_again(world) if d.trigger == "replay"]
        assert sorted(d.message_id for d in again) == ["m0", "m1", "m2", "m4"]
        assert replay_of(world).deliveries == 4


def test_a_replay_of_a_tenant_goes_to_each_endpoint_what_it_wants() -> None:
    """Every enabled endpoint by its own subscription."""
    with a_world(Receivers()) as world:
        world.create_endpoint("ok")
        world.create_endpoint("rooms", ("room.*",))
        world.run(1)
        world.publish("a", "room.ended")
        world.publish("b", "recording.completed")
        world.run(1)
        start(world, endpoint_id="")
        world.run(3)
        assert sorted((d.endpoint_id, d.message_id) for d in made_again(world)) == [
            ("ok", "a"),
            ("ok", "b"),
            ("rooms", "a"),
        ]


def test_the_same_replay_twice_does_nothing_twice() -> None:
    """Same command, same replay id: nothing is delivered again."""
    with a_world(Receivers()) as world:
        have(world, "m")
        start(world)
        start(world)
        world.run(3)
        world.kill("replayer")
        start(world)
        world.run(3)
        assert len(made_again(world)) == 1
        assert len(facts(world, ReplayStarted)) == 1


def test_one_tenants_replays_do_not_hold_up_anothers() -> None:
    """However many of its own go on slowly; the last of them waits for its turn."""
    with a_world(Receivers()) as world:
        world.create_endpoint("theirs", tenant="globex")
        have(world, *several(2))
        for n in range(RUNNING_MAX + 1):
            start(world, name=f"slow{n}", rate=0.001)
        world.run(2)
        command = StartReplay("start-r1", "globex", "test", 0, "r1", "theirs", 0, 0, "all", (), 0.0)
        world.append("commands", "globex", command)
        world.run(4)
        assert replay_of(world).status == "finished"
        planned = [replay_of(world, f"slow{n}").planned for n in range(RUNNING_MAX + 1)]
        assert planned == [2] * RUNNING_MAX + [0]


def test_rate_and_cancel() -> None:
    """So many a second; a cancellation takes effect within a second and is told."""
    with a_world(Receivers()) as world:
        have(world, *several(60))
        start(world, rate=5.0)
        world.run(4)
        assert 12 <= len(made_again(world)) <= 22
        ask(world, CancelReplay("stop", TENANT, "test", 0, "r1"))
        world.run(1)
        count = len(made_again(world))
        world.run(3)
        assert len(made_again(world)) == count
        assert replay_of(world).status == "cancelled"
        (told,) = facts(world, ReplayCancelled)
        assert isinstance(told, ReplayCancelled)
        assert told.deliveries == count == sum(named(world).values())


def test_a_replay_that_has_ended_or_is_unknown_cannot_be_cancelled() -> None:
    """The command is refused."""
    with a_world(Receivers()) as world:
        ask(world, CancelReplay("stop", TENANT, "test", 0, "r1"))
        world.run(1)
        (refused,) = facts(world, CommandRejected)
        assert isinstance(refused, CommandRejected)
        assert "has ended" in refused.reason


def test_a_replay_cancelled_at_once_ends() -> None:
    """The cancellation may be right behind the start."""
    with a_world(Receivers()) as world:
        have(world, "m")
        start(world, rate=0.001)
        ask(world, CancelReplay("stop", TENANT, "test", 0, "r1"))
        world.run(2)
        assert replay_of(world).status == "cancelled"


def test_a_disabled_endpoint_refuses_or_ends_it() -> None:
    """At the start it is refused; in the midst it ends, with why."""
    with a_world(Receivers()) as world:
        have(world, *several(30))
        start(world, rate=2.0)
        world.run(2)
        ask(world, DisableEndpoint("off", TENANT, "test", 0, "ok", "by hand"))
        world.run(3)
        replay = replay_of(world)
        assert replay.status == "finished"
        assert "disabled" in replay.reason
        assert replay.deliveries < 10
        start(world, "all", "r2")
        world.run(1)
        (refused,) = facts(world, CommandRejected)
        assert isinstance(refused, CommandRejected)
        assert refused.command == "StartReplay"


def test_outstanding_deliveries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that takes nothing is not flooded; when it does again, the rest follows."""
    with a_world(Receivers()) as world:
        monkeypatch.setattr(replaying, "OUTSTANDING_MAX", 10)
        have(world, *several(40))
        start(world)
        for _ in range(100):
            world.step("replayer")
            world.clock.us += 10_000
        assert len(made_again(world)) == 10
        world.run(5)
        assert len(made_again(world)) == 40
