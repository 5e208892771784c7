"""An endpoint that is slow, or limited to little, holds no offset; one that keeps up is not parked."""

from __future__ import annotations

import pytest

from engine.core.routing import partition_of
from engine.runtime.delivering.patience import LOOK_US, PATIENCE_US
from engine.runtime.owned import Input
from tests.pipeline.test_lanes import Switch, open_inputs, snapshots
from tests.pipeline.test_pipeline import decisions
from tests.pipeline.world import PARTITIONS, World, a_world

PATIENCE_S = (PATIENCE_US + 2 * LOOK_US) / 1e6
"""After so long, at the latest, what waits holds the commit no more."""


def parkings(world: World, name: str) -> int:
    """How often a lane was parked that was not."""
    values = [record.value for record in world.records("lanes") if record.key == name.encode()]
    return sum(
        value is not None and before is None for before, value in zip([None, *values], values, strict=False)
    )


def test_three_messages_to_a_very_limited_endpoint_hold_no_offset() -> None:
    """One in a quarter of an hour, and the partition's commit follows its neighbours'."""
    partition = partition_of("a", PARTITIONS)
    neighbour = next(name for name in map(str, range(50)) if partition_of(name, PARTITIONS) == partition)
    with a_world(Switch()) as world:
        world.create_endpoint("a", ("a",), rate_limit=0.001)
        world.create_endpoint(neighbour, ("b",))
        world.run(1)
        for n in range(3):
            world.publish(f"a{n}", "a")
        for n in range(200):
            world.publish(f"b{n}", "b")
        world.run(PATIENCE_S + 2)
        assert open_inputs(world) == 0
        assert snapshots(world)["a"].parked
        world.kill("dispatcher")
        world.run(PATIENCE_S)
        assert decisions(world)[neighbour, "delivered"] == 200
        assert len(world.requests) == 200, "nothing again, and none of the limited one yet"
        for _ in range(3):
            world.clock.us += 1_001_000_000
            world.run(3)
        assert decisions(world)["a", "delivered"] == 3
        world.run_until(lambda: snapshots(world) == {}, 20)


def test_one_that_answers_late_holds_only_what_is_under_way() -> None:
    """Its requests hang for a minute; what waits for them waits on the log."""
    with a_world(Switch(), endpoint_in_flight=2) as world:
        world.answer_us = lambda message: 60_000_000
        world.create_endpoint("a", timeout_ms=60_000)
        world.run(1)
        for n in range(6):
            world.publish(f"m{n}")
        world.run(PATIENCE_S + 2)
        assert sum(not taken.begun for taken in open_of(world)) == 0
        world.run(60)
        assert open_inputs(world) == 0, "what the drain begins holds no commit"
        world.run_until(lambda: decisions(world) == {("a", "delivered"): 6}, 140)
        assert len(world.requests) == 6


def open_of(world: World) -> list[Input]:
    """Inputs that hold the commit and are not done."""
    owned = world.intake.processor.progress.owned.values()
    return [taken for each in owned for taken in each.open if not taken.done]


@pytest.mark.parametrize("answer_us", [250_000, 2_000_000, 5_000_000])
def test_one_that_keeps_up_is_never_parked(answer_us: int) -> None:
    """However long its answers take: what waits does not wait for long."""
    with a_world(Switch()) as world:
        world.answer_us = lambda message: answer_us
        world.create_endpoint("a")
        world.run(1)
        for n in range(60):
            world.publish(f"m{n}")
            world.run(1)
        assert world.records("lanes") == []


def test_one_that_does_not_keep_up_is_parked_once() -> None:
    """It stays so until it has caught up, and takes its records as they come again."""
    with a_world(Switch()) as world:
        world.create_endpoint("a", rate_limit=1.0)
        world.run(1)
        for n in range(120):
            world.publish(f"m{n}")
            world.run(0.5)
        assert parkings(world, "a") == 1
        assert open_inputs(world) == 0
        world.run_until(lambda: decisions(world) == {("a", "delivered"): 120}, 90)
        world.run_until(lambda: snapshots(world) == {}, 20)
        before = len(world.records("lanes"))
        world.publish("well")
        world.run(3)
        assert decisions(world) == {("a", "delivered"): 121}
        assert len(world.records("lanes")) == before
        assert len(world.requests) == 121
