"""What the scheduler says of retries that it should have released."""

from __future__ import annotations

from prometheus_client import REGISTRY

from engine.core.model import Answer
from tests.pipeline.world import World, a_world


def overdue(world: World) -> tuple[float | None, float | None]:
    """How many, and for how long the oldest has been due (seconds)."""
    world.scheduler._observe()
    return (
        REGISTRY.get_sample_value("hooklog_retries_overdue"),
        REGISTRY.get_sample_value("hooklog_oldest_overdue_retry_seconds"),
    )


def test_retries_that_are_due_and_not_released_are_overdue() -> None:
    """Whether they wait on a tier or for the moment itself; those that only wait are not."""
    with a_world(lambda path, seen: Answer(500)) as world:
        world.create_endpoint("failing", retry_policy=(3_000, 60_000))
        world.run(1)
        for n in range(3):
            world.publish(f"m{n}")
        world.run(2)
        assert overdue(world) == (0, 0)
        world.clock.us += 30_000_000
        count, oldest_s = overdue(world)
        assert count == 3
        assert oldest_s is not None
        assert 26 < oldest_s < 30
        world.run(2)
        assert overdue(world) == (0, 0)
