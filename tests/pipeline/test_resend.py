"""Resends and test sends on the log in memory: nothing twice, nothing to a stranger."""

from __future__ import annotations

from engine.core.change import CommandRejected, DisableEndpoint
from engine.core.replay import (
    Resend,
    SendTest,
)
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
from tests.pipeline.world import TENANT, a_world

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
