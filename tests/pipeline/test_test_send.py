"""Test sends: tried at once and once, whatever their endpoint is like, and remembered like any attempt."""

from __future__ import annotations

import pytest

from engine.core.change import DisableEndpoint
from engine.core.model import Answer, AttemptFinished, DeliveryScheduled
from engine.core.routing import partition_of
from engine.ports import Output
from schemas import headers
from tests.pipeline.test_lanes import Switch, open_inputs, snapshots
from tests.pipeline.world import CODEC, PARTITIONS, TENANT, World, a_world

GONE = Answer(410, {"webhook-delivery": "disable"})


def send_test(world: World, name: str, number: int = 0) -> None:
    """What the replayer writes for a test send."""
    at = world.clock.now()
    delivery = DeliveryScheduled(
        *(f"test-{name}-{number}", TENANT, name, f"ping-{name}-{number}", "ping", 1, "test", "", at, at),
        *("standard", 0, 0, 0, 0, b"{}"),
    )
    found = {
        headers.CAUSE: headers.cause("commands", 0, number),
        headers.DELIVERY: delivery.delivery_id.encode(),
        headers.ATTEMPT: b"1",
        headers.TRIGGER: headers.TEST,
    }
    value = CODEC.encode(delivery)
    world.log.append(Output("deliveries", partition_of(name, PARTITIONS), name.encode(), value, found))


def sent_tests(world: World) -> list[AttemptFinished]:
    """Attempts of test sends."""
    return [attempt for attempt in world.attempts() if attempt.trigger == "test"]


def test_a_parked_lane_with_an_open_circuit_does_not_hold_it_up() -> None:
    """It is tried at once, fails for the same reason, and nothing follows; the drain leaves it alone."""
    receiver = Switch("dead")
    with a_world(receiver, waiting=20) as world:
        world.create_endpoint("dead", retry_policy=(3_600_000,))
        world.run(1)
        for n in range(100):
            world.publish(f"m{n}")
        world.run(8)
        lane = snapshots(world)["dead"]
        assert (lane.parked, lane.circuit) == (True, "open")
        send_test(world, "dead")
        world.run(1)
        assert [(a.outcome, a.decision, a.delivery) for a in sent_tests(world)] == [
            ("failure", "failed", b"")
        ]
        receiver.down.clear()
        world.run_until(lambda: snapshots(world) == {}, 120)
        assert len(sent_tests(world)) == 1
        assert [n for (_, message), n in world.seen.items() if message.startswith("ping")] == [1]
        assert world.records("dead-letters") == []


def test_it_is_sent_to_a_disabled_endpoint() -> None:
    """People test before they enable; what is routed is still skipped."""
    with a_world(Switch()) as world:
        world.create_endpoint("off")
        world.run(1)
        world.append("commands", TENANT, DisableEndpoint("d1", TENANT, "test", 0, "off", "by hand"))
        world.run(1)
        send_test(world, "off")
        world.run(1)
        assert [a.decision for a in sent_tests(world)] == ["delivered"]


def test_its_answer_disables_nothing() -> None:
    """410 and the answer header count for what was published, not for a test."""
    with a_world(lambda path, seen: GONE) as world:
        world.create_endpoint("gone")
        world.run(1)
        send_test(world, "gone")
        world.run(2)
        assert [(a.decision, a.error_class, a.disables) for a in sent_tests(world)] == [
            ("failed", "http_4xx", False)
        ]
        assert world.intake.configuration.endpoints["gone"].enabled


def test_one_for_an_unknown_endpoint_ends() -> None:
    """Skipped, so that nobody waits for it."""
    with a_world(Switch()) as world:
        send_test(world, "nobody")
        world.run(1)
        assert [(a.outcome, a.decision, a.reason) for a in sent_tests(world)] == [
            ("none", "skipped", "deleted")
        ]


@pytest.mark.parametrize("steps", range(6))
def test_a_kill_anywhere_loses_none(steps: int) -> None:
    """Tried again only if its record was not there yet."""
    with a_world(Switch()) as world:
        world.create_endpoint("ok")
        world.run(1)
        for n in range(5):
            send_test(world, "ok", n)
        for _ in range(steps):
            world.step("dispatcher")
        world.kill("dispatcher")
        world.run(3)
        assert sorted(a.delivery_id for a in sent_tests(world)) == [f"test-ok-{n}" for n in range(5)]
        assert sum(world.seen.values()) <= 5 + world.killed_in_flight
        assert open_inputs(world) == 0
