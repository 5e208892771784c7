"""Many more endpoints that never answer than there are places: the others are served at once all the same."""

from __future__ import annotations

from engine.core.model import Answer
from tests.pipeline.test_lanes import Switch
from tests.pipeline.world import ANSWER_US, World, a_world

IN_FLIGHT = 8
DEAD = tuple(f"dead{n}" for n in range(6 * IN_FLIGHT))
HANGS_US = 10_000_000
TIMEOUT = Answer(0, error_class="timeout")


class BlackHole(Switch):
    """Those that are down never answer."""

    def __call__(self, path: str, seen: int) -> Answer:
        """A timeout, or taken."""
        return TIMEOUT if path in self.down else Answer(200)


def dead_ones(world: World, receiver: BlackHole) -> None:
    """Each has been tried at least once, and has more to be tried."""
    world.answer_us = lambda message: HANGS_US if receiver.down and message[0] == "d" else ANSWER_US
    for name in DEAD:
        world.create_endpoint(name, ("dead.x",), retry_policy=(5_000,) * 40)
    world.create_endpoint("ok", ("ok.x",))
    world.run(1)
    for n in range(3):
        world.publish(f"d{n}", "dead.x")
    world.run_until(lambda: {a.endpoint_id for a in world.attempts()} == set(DEAD), 200)


def waited(world: World) -> list[float]:
    """How long each message to the healthy endpoint waited for its request, seconds."""
    return [(a.attempted_at - a.accepted_at) / 1e6 for a in world.attempts() if a.endpoint_id == "ok"]


def test_a_healthy_endpoint_is_served_at_once() -> None:
    """Those that were down when last heard of have a quarter of the places, probes or not."""
    receiver = BlackHole(*DEAD)
    with a_world(receiver, in_flight=IN_FLIGHT) as world:
        dead_ones(world, receiver)
        for n in range(30):
            world.publish(f"m{n}", "ok.x")
            world.run(2)
        assert len(waited(world)) == 30
        assert max(waited(world)) < 1
        assert 0 < world.sender.in_flight <= IN_FLIGHT // 4


def test_each_of_them_has_its_turn() -> None:
    """When they are back everything is delivered, in turns, and they are suspects no more."""
    receiver = BlackHole(*DEAD)
    with a_world(receiver, in_flight=IN_FLIGHT) as world:
        dead_ones(world, receiver)
        world.run(20)
        receiver.down.clear()
        expected = 3 * len(DEAD)
        world.run_until(lambda: sum(a.decision == "delivered" for a in world.attempts()) == expected, 300)
        assert world.lanes._suspects.in_flight == 0
        world.run(2)
        assert not world.lanes._lanes


def test_one_that_is_heard_of_again_waits_with_the_suspects_no_longer() -> None:
    """It failed with others under way: their success puts it back in line, whoever hangs meanwhile."""
    receiver = BlackHole(*DEAD)
    with a_world(receiver, in_flight=IN_FLIGHT) as world:
        dead_ones(world, receiver)
        receiver.down.add("ok")
        world.answer_us = lambda message: {"f": 250_000, "s": 2_000_000}.get(message[0], HANGS_US)
        for name in ("slow", "fast"):
            world.publish(name, "ok.x")
        lane = world.lanes._lanes
        world.run(0.5)
        assert lane["ok"].circuit.failures == 1
        receiver.down.discard("ok")
        world.publish("slow2", "ok.x")
        world.run(0.5)
        assert lane["ok"].is_aside
        world.run(4)
        assert {a.message_id for a in world.attempts() if a.decision == "delivered"} >= {"slow", "slow2"}
