"""Test sends have places of their own: however many somebody asks for, they cost others nothing."""

from __future__ import annotations

from engine.runtime.delivering.requests import TEST_WAITS_US, TESTS_AT_ONCE, TESTS_WAITING
from tests.pipeline.test_lanes import Switch, open_inputs
from tests.pipeline.test_test_send import send_test, sent_tests
from tests.pipeline.world import ANSWER_US, World, a_world

HANGS_US = 60_000_000
IN_FLIGHT = 16


def hang(world: World, name: str, count: int) -> None:
    """Ask for test sends to an endpoint that answers none of them for a minute."""
    world.answer_us = lambda message: HANGS_US if message.startswith("ping-evil") else ANSWER_US
    for n in range(count):
        send_test(world, name, n)


def in_flight(world: World) -> int:
    """Requests that the receivers have seen and not answered."""
    return world.sender.in_flight


def test_tests_that_hang_hold_up_no_delivery() -> None:
    """More of them than there are places, and a message goes out at once."""
    with a_world(Switch(), in_flight=IN_FLIGHT) as world:
        for n in range(40):
            world.create_endpoint(f"evil-{n}", ("none",))
        world.create_endpoint("ok")
        world.run(1)
        for n in range(40):
            hang(world, f"evil-{n}", 2)
        world.run(2)
        assert in_flight(world) == IN_FLIGHT // 8
        world.publish("m")
        world.run(1)
        assert [a.endpoint_id for a in world.attempts() if a.decision == "delivered"] == ["ok"]


def test_one_endpoint_leaves_places_for_the_tests_of_others() -> None:
    """It has so many at a time; the next ones wait in order, another endpoint's is made at once."""
    with a_world(Switch(), in_flight=64) as world:
        world.create_endpoint("evil", ("none",))
        world.create_endpoint("ok", ("none",))
        world.run(1)
        hang(world, "evil", 10)
        world.run(1)
        assert in_flight(world) == TESTS_AT_ONCE
        send_test(world, "ok")
        world.run(1)
        assert [a.endpoint_id for a in sent_tests(world)] == ["ok"]


def test_they_are_made_in_order() -> None:
    """Those that wait for each other all end with their own answer, the first one first."""
    with a_world(Switch()) as world:
        world.create_endpoint("ok", ("none",))
        world.run(1)
        for n in range(TESTS_WAITING):
            send_test(world, "ok", n)
        world.run(10)
        assert [a.decision for a in sent_tests(world)] == ["delivered"] * TESTS_WAITING
        made = [message for (_, message), _ in world.requested_at]
        assert made == [f"ping-ok-{n}" for n in range(TESTS_WAITING)]


def test_one_that_nobody_waits_for_any_more_is_not_made() -> None:
    """It ends as expired without a request, and holds the commit no longer."""
    with a_world(Switch()) as world:
        world.create_endpoint("evil", ("none",))
        world.run(1)
        hang(world, "evil", 10)
        world.run(2 * HANGS_US / 1e6 + 5)
        ended = [(a.outcome, a.reason) for a in sent_tests(world)]
        assert ended.count(("none", "expired")) == 10 - 2 * TESTS_AT_ONCE
        assert len(world.requests) == 2 * TESTS_AT_ONCE
        assert open_inputs(world) == 0
        assert world.lanes.places.waiting == 0
        assert world.records("dead-letters") == []
        assert HANGS_US < TEST_WAITS_US < 2 * HANGS_US


def test_more_than_may_wait_end_at_once() -> None:
    """A flood takes no more places of what waits than a few; the newest are kept."""
    with a_world(Switch()) as world:
        world.create_endpoint("evil", ("none",))
        world.run(1)
        hang(world, "evil", TESTS_WAITING + TESTS_AT_ONCE + 20)
        world.run(2)
        assert world.lanes.places.waiting <= TESTS_WAITING
        assert {(a.outcome, a.reason) for a in sent_tests(world)} == {("none", "expired")}
        assert f"test-evil-{TESTS_WAITING + TESTS_AT_ONCE + 19}" not in [
            a.delivery_id for a in sent_tests(world)
        ]
        assert not world.lanes.failed.done()


def test_all_endpoints_together_have_a_share_of_what_waits() -> None:
    """Tests of many endpoints leave room for what is published."""
    with a_world(Switch(), waiting=80, in_flight=8) as world:
        for n in range(30):
            world.create_endpoint(f"evil-{n}", ("none",))
        world.run(1)
        for n in range(30):
            hang(world, f"evil-{n}", 1)
        world.run(2)
        assert world.lanes.places.waiting <= 80 // 8
