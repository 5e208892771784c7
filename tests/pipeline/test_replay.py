"""Resends, test sends and replays on the log in memory: nothing twice, nothing left out, killed anywhere."""

from __future__ import annotations

import pytest

from consumers.replayer import RUNNING_MAX
from engine.core.change import CommandRejected, DisableEndpoint, EnableEndpoint
from engine.core.replay import (
    CancelReplay,
    ReplayCancelled,
    ReplayFinished,
    ReplayStarted,
    Resend,
    SendTest,
    StartReplay,
)
from engine.ports import Output
from engine.runtime.replaying import running as replaying
from tests.pipeline.replays import (
    Receivers,
    ask,
    attempts_of,
    facts,
    first_of,
    have,
    made_again,
    named,
    replay_of,
    resend,
    several,
    start,
)
from tests.pipeline.world import PARTITIONS, TENANT, a_world

# -- resends ---------------------------------------------------------------------------


def test_a_resend_is_a_new_delivery_linked_to_the_old_one() -> None:
    """Same body, id of its own, named for the accounting, tried by the whole policy."""
    receivers = Receivers()
    with a_world(receivers) as world:
        world.create_endpoint("ok")
        world.run(1)
        world.publish("m", payload=b'{"a":1}')
        world.run(1)
        receivers.down.add("ok")
        resend(world, "m")
        world.run(8)
        old, (new,) = first_of(world, "m"), made_again(world)
        assert (new.trigger, new.origin, new.body) == ("resend", old.delivery_id, old.body)
        assert new.delivery_id != old.delivery_id
        assert [a.decision for a in attempts_of(world, "resend")] == ["retry", "retry", "failed"]
        assert named(world) == {new.delivery_id: 1}


def test_the_same_resend_twice_is_one() -> None:
    """A command id that was seen before changes nothing, after a restart too."""
    with a_world(Receivers()) as world:
        have(world, "m")
        resend(world, "m")
        resend(world, "m")
        world.run(1)
        world.kill("replayer")
        resend(world, "m")
        world.run(1)
        assert len(made_again(world)) == 1


def test_a_dead_letter_is_resent_when_its_message_is_gone() -> None:
    """The body comes from `dead-letters`; without one the command is refused, in words."""
    with a_world(Receivers("ok")) as world:
        world.create_endpoint("ok", retry_policy=())
        world.run(1)
        world.publish("m")
        world.run(2)
        old = first_of(world, "m")
        gone = ("ok", old.delivery_id, "another", old.source_partition, old.source_offset)
        ask(world, Resend("dead", TENANT, "test", 0, *gone, 1))
        ask(world, Resend("none", TENANT, "test", 0, *gone, 0))
        world.run(2)
        (new,) = made_again(world)
        assert (new.body, new.origin, new.message_id) == (old.body, old.delivery_id, "m")
        (refused,) = facts(world, CommandRejected)
        assert isinstance(refused, CommandRejected)
        assert (refused.command_id, refused.command) == ("none", "Resend")
        assert "retention" in refused.reason


def test_nothing_is_resent_to_another_tenants_endpoint_or_from_its_messages() -> None:
    """Tenant and id are verified at the coordinates."""
    with a_world(Receivers()) as world:
        have(world, "m")
        old = first_of(world, "m")
        at = ("m", old.source_partition, old.source_offset, 0)
        world.append("commands", TENANT, Resend("x", "other", "test", 0, "ok", old.delivery_id, *at))
        wrong = ("n", *at[1:])
        ask(world, Resend("y", TENANT, "test", 0, "ok", old.delivery_id, *wrong))
        world.run(1)
        assert made_again(world) == []
        assert len(facts(world, CommandRejected)) == 2


# -- test sends ------------------------------------------------------------------------


def test_a_test_send_is_tried_once_even_if_the_endpoint_is_disabled() -> None:
    """Signed, rendered for the profile, no retry, no dead letter, named for the accounting."""
    with a_world(Receivers("ok")) as world:
        world.create_endpoint("ok")
        world.run(1)
        ask(world, DisableEndpoint("off", TENANT, "test", 0, "ok", "by hand"))
        world.run(1)
        ask(world, SendTest("cmd_t", TENANT, "test", world.clock.now(), "ok", "ping", b"{}"))
        world.run(5)
        (attempt,) = attempts_of(world, "test")
        assert (attempt.outcome, attempt.decision, attempt.event_type) == ("failure", "failed", "ping")
        assert (attempt.message_id, attempt.origin) == ("test_t", "cmd_t")
        assert world.records("dead-letters") == []
        assert list(named(world).values()) == [1]


def test_tests_are_prompt_while_a_replay_goes_on() -> None:
    """A replay at a low rate holds up no other command."""
    with a_world(Receivers()) as world:
        have(world, *several(30))
        start(world, rate=1.0)
        world.run(2)
        ask(world, SendTest("cmd_t", TENANT, "test", world.clock.now(), "ok", "ping", b"{}"))
        world.run(1)
        assert len(attempts_of(world, "test")) == 1
        assert replay_of(world).status == "running"


# -- replays ---------------------------------------------------------------------------


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
