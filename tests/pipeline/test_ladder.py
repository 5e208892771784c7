"""Another ladder of delay topics, while retries wait on those of before."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.model import Answer
from tests.pipeline.test_pipeline import decisions
from tests.pipeline.world import TIERS, World, a_world

LADDERS = (TIERS, ("1s", "3s"), ("2s",), ("3s", "4s", "5s"))
ALL = ("1s", "2s", "3s", "4s", "5s")


def down(path: str, seen: int) -> Answer:
    """A receiver that takes the fourth try."""
    return Answer(200 if seen >= 3 else 503)


def on_tier(world: World, tier: str) -> int:
    """How many records were ever put on it."""
    return len(world.records(f"retry.{tier}"))


def rest(tiers: tuple[str, ...]) -> tuple[str, ...]:
    """Every other tier there ever was."""
    return tuple(tier for tier in ALL if tier not in tiers)


def publish(world: World, count: int) -> None:
    """Messages for an endpoint that fails for a while, until all of its first retries wait."""
    world.create_endpoint("ep", retry_policy=(2_500, 4_500, 6_000))
    world.run(1)
    for n in range(count):
        world.publish(f"m{n}")
    world.run_until(lambda: on_tier(world, "2s") == count, 20)


def check_once(world: World, count: int) -> None:
    """Every delivery was delivered at its fourth try, and no try is on the log twice."""
    assert decisions(world) == {("ep", "delivered"): count}
    tries = Counter((delivery.delivery_id, delivery.attempt) for delivery in world.deliveries())
    assert len(tries) == 4 * count
    assert set(tries.values()) == {1}


def test_a_tier_that_is_drained_is_read_and_not_written_to() -> None:
    """What waits there is retried; when it is empty it can go, and the group goes on from its commits."""
    with a_world(down) as world:
        publish(world, 10)
        world.change_ladder(("1s", "3s"), ("2s", "4s"))
        world.run(6)
        assert on_tier(world, "2s") == 10
        assert on_tier(world, "3s") == 10
        assert on_tier(world, "4s") == 0
        world.change_ladder(("1s", "3s"), ())
        world.run(15)
        check_once(world, 10)


def test_a_tier_can_be_added_and_come_back() -> None:
    """The commits of before say nothing of it: it is read back from its beginning."""
    with a_world(down) as world:
        publish(world, 10)
        for ladder in (ALL, TIERS, ALL):
            world.change_ladder(ladder, rest(ladder))
            world.run(3)
        world.run(15)
        check_once(world, 10)


def test_what_a_killed_scheduler_put_on_a_new_tier_is_found() -> None:
    """The commit is of the ladder before, and does not name the new tier."""
    with a_world(down) as world:
        world.create_endpoint("ep", retry_policy=(2_500, 4_500, 6_000))
        world.run(1)
        world.publish("m0")
        world.run(25)
        for n in range(1, 10):
            world.publish(f"m{n}")
        while len(world.attempts()) < 4 + 9:
            world.step("router")
            world.step("dispatcher")
            world.clock.us += 50_000
        world.change_ladder(("1500ms",), TIERS)
        while on_tier(world, "1500ms") < 9:
            world.step("scheduler")
        at = ("attempts", world.records("attempts")[0].partition)
        position = world.scheduler.processor.consumer.committed([at])[at]
        assert position is not None
        assert "retry.2s=" in position.metadata
        assert "retry.1500ms" not in position.metadata
        world.kill("scheduler")
        world.run(25)
        check_once(world, 10)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(LADDERS), st.integers(0, 12)), max_size=12))
def test_no_change_of_the_ladder_loses_or_doubles(changes: list[tuple[tuple[str, ...], int]]) -> None:
    """However often and whenever, the rest being drained; each time the scheduler is killed."""
    with a_world(down) as world:
        publish(world, 6)
        for ladder, steps in changes:
            world.change_ladder(ladder, rest(ladder))
            for _ in range(steps):
                world.step("dispatcher")
                world.step("scheduler")
                world.clock.us += 200_000
        world.run(30)
        check_once(world, 6)
