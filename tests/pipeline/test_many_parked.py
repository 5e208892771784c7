"""More parked lanes than there are places: what is drained for them leaves room for what comes on its own."""

from __future__ import annotations

from tests.pipeline.test_lanes import Switch, snapshots
from tests.pipeline.test_pipeline import decisions
from tests.pipeline.world import World, a_world

WAITING = 12
DEAD = tuple(f"dead{n}" for n in range(2 * WAITING))


def watched(world: World, seconds: float) -> int:
    """Let everything work; the most that waited at a time."""
    most = 0
    for _ in range(int(seconds * 4)):
        world.run(0.25)
        most = max(most, world.lanes.places.waiting)
    return most


def test_they_keep_places_free_and_have_their_turns() -> None:
    """Each is dead and has a backlog; others are served as they come, and all of it when they are back."""
    receiver = Switch(*DEAD)
    with a_world(receiver, waiting=WAITING) as world:
        for name in DEAD:
            world.create_endpoint(name, ("dead.x",), retry_policy=(3_600_000,) * 9)
        world.create_endpoint("ok", ("ok.x",))
        world.run(1)
        for n in range(20):
            world.publish(f"d{n}", "dead.x")
        world.run_until(lambda: len(snapshots(world)) == len(DEAD), 120)
        world.run_until(lambda: {lane.circuit for lane in snapshots(world).values()} == {"open"}, 120)
        assert watched(world, 40) <= WAITING * 3 // 4
        for n in range(10):
            world.publish(f"m{n}", "ok.x")
            world.run(1)
        assert decisions(world)["ok", "delivered"] == 10
        receiver.down.clear()
        first = {a.delivery_id for a in world.attempts() if a.decision == "retry"}
        everything = 10 + 20 * len(DEAD) - len(first)
        world.run_until(lambda: sum(a.decision == "delivered" for a in world.attempts()) == everything, 200)


def test_large_deliveries_keep_room_too() -> None:
    """The same by bytes: slow lanes hold some of them, and intake goes on."""
    body = b'{"a":"%s"}' % (b"x" * 10_000)
    with a_world(Switch(), waiting_bytes=8_000_000) as world:
        for n in range(5):
            world.create_endpoint(f"slow{n}", ("slow.x",), rate_limit=0.01)
        world.run(1)
        for n in range(260):
            world.publish(f"m{n}", "slow.x", body)
        world.run(20)
        assert {lane.parked for lane in snapshots(world).values()} == {True}
        assert 2_000_000 < world.lanes.places.bytes_waiting < 8_000_000
