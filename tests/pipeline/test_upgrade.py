"""What a newer hooklog wrote halts one partition of router and dispatcher, until they are upgraded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
from prometheus_client import REGISTRY

from engine.core.model import Answer, RoutedBatch
from engine.core.routing import partition_of
from engine.runtime.memory import MemoryConsumer
from schemas.codec import MARKER, PREFIX_BYTES
from tests.pipeline.test_lanes import REFUSED, Switch, open_inputs, snapshots
from tests.pipeline.world import CODEC, PARTITIONS, World, a_world

NEWER = MARKER + b"\x09" * 8
"""How a record begins whose schema no version of today knows."""
COUNT = 20


def named(wanted: int, stem: str = "ep") -> str:
    """A name whose records lie on a partition."""
    return next(f"{stem}{n}" for n in range(99) if partition_of(f"{stem}{n}", PARTITIONS) == wanted)


HERE, OTHER = named(0), named(1)
"""Endpoints of the two partitions of `deliveries`."""


@pytest.fixture
def world() -> Iterator[World]:
    """An endpoint a partition."""
    with a_world(Switch(), waiting=50) as made:
        for name in (HERE, OTHER):
            made.create_endpoint(name)
        made.run(1)
        yield made


def held(group: str) -> float:
    """What is counted."""
    return REGISTRY.get_sample_value("hooklog_unknown_schema_records_total", {"group": group}) or 0


def disguise(world: World, topic: str, partition: int, offset: int = -1) -> Callable[[], None]:
    """Let one record be a newer hooklog's, and return what stands for the upgrade that can read it."""
    records = world.log._records[topic, partition]
    before = records[offset]
    at = before.offset
    records[at] = before._replace(value=NEWER + (before.value or b"")[PREFIX_BYTES:])
    return partial(records.__setitem__, at, before)


def delivered(world: World, endpoint: str) -> int:
    """How many of its deliveries have been delivered."""
    return sum(each.endpoint_id == endpoint and each.decision == "delivered" for each in world.attempts())


def publish(world: World, first: int = 0, count: int = COUNT) -> None:
    """Messages to both endpoints."""
    for n in range(first, first + count):
        world.publish(f"m{n}")


def route(world: World) -> None:
    """Let only the router work."""
    for _ in range(12):
        world.step("router")
        world.clock.us += 50_000


def test_a_delivery_of_a_newer_hooklog_halts_its_partition_of_the_dispatcher(world: World) -> None:
    """What came before it is sent, the other partition goes on; the upgrade loses and doubles nothing."""
    publish(world)
    route(world)
    upgrade, before = disguise(world, "deliveries", 0, 5), held("dispatcher")
    world.run(3)
    assert (delivered(world, HERE), delivered(world, OTHER)) == (5, COUNT)
    publish(world, COUNT)
    world.run(3)
    assert (delivered(world, HERE), delivered(world, OTHER)) == (5, 2 * COUNT)
    assert held("dispatcher") == before + 1
    world.kill("dispatcher")  # a restart is no upgrade
    world.run(3)
    assert (delivered(world, HERE), delivered(world, OTHER)) == (5, 2 * COUNT)
    upgrade()
    world.kill("dispatcher")
    world.run(3)
    assert (delivered(world, HERE), delivered(world, OTHER)) == (2 * COUNT, 2 * COUNT)
    assert len(world.requests) == 4 * COUNT
    assert open_inputs(world) == 0
    assert world.records("invalid") == []


def test_a_partition_that_waits_stays_so_when_the_dispatcher_has_room_again(world: World) -> None:
    """Full and not full any more: all partitions are paused, and those that do not wait are resumed."""
    publish(world, 0, 1)
    route(world)
    disguise(world, "deliveries", 0)
    world.run(1)
    consumer = world.intake.processor.consumer
    assert isinstance(consumer, MemoryConsumer)
    world.intake.step(full=True)
    assert consumer._paused == {("deliveries", 0), ("deliveries", 1)}
    world.intake.step(full=False)
    assert consumer._paused == {("deliveries", 0)}


def test_a_parked_delivery_of_a_newer_hooklog_is_not_passed_over() -> None:
    """The cursor waits before it, over a restart too."""
    switch = Switch(HERE)
    with a_world(switch, waiting=50) as world:
        for name in (HERE, OTHER):
            world.create_endpoint(name)
        world.run(1)
        publish(world, 0, 200)
        world.run(5)
        assert snapshots(world)[HERE].parked
        assert snapshots(world)[HERE].cursor < 150
        upgrade, before = disguise(world, "deliveries", 0, 150), held("dispatcher")
        switch.down.clear()
        world.run(40)
        missing = 200 - delivered(world, HERE)
        assert missing > 0
        assert held("dispatcher") == before + 1
        assert snapshots(world)[HERE].cursor <= 150
        assert delivered(world, OTHER) == 200
        upgrade()
        world.kill("dispatcher")
        world.run_until(lambda: delivered(world, HERE) == 200, 60)


def test_lanes_of_a_newer_hooklog_halt_their_partition(world: World) -> None:
    """Where a cursor is we cannot know: whoever went on would pass its backlog over."""
    world.receiver = lambda path, seen: REFUSED if path == HERE else Answer(200)
    publish(world, 0, 60)
    world.run(5)
    assert snapshots(world)[HERE].parked
    last = len(world.log.records(("lanes", 0))) - 1
    upgrade, before = disguise(world, "lanes", 0, last), held("dispatcher")
    world.receiver = Switch()
    world.kill("dispatcher")
    publish(world, 60)
    world.run(5)
    assert delivered(world, HERE) == 0
    assert delivered(world, OTHER) == 60 + COUNT
    assert held("dispatcher") == before + 1
    assert len(world.log.records(("lanes", 0))) == last + 1
    upgrade()
    world.kill("dispatcher")
    world.run_until(lambda: delivered(world, HERE) == 60 + COUNT, 60)


def verdicts(world: World, partition: int) -> list[str]:
    """What is recorded of the messages of a partition, in order, as far as this version can read it."""
    values = [each.value or b"" for each in world.log.records(("routings", partition))]
    batches = [CODEC.decode_as(RoutedBatch, each) for each in values if not each.startswith(NEWER)]
    return [routing.verdict for batch in batches for routing in batch.routings]


@pytest.mark.parametrize("is_committed", [False, True])
def test_routings_of_a_newer_hooklog_halt_their_partition_of_the_router(
    world: World, *, is_committed: bool
) -> None:
    """Found behind the commit, or in the window of duplicates below it: what was decided we cannot know."""
    messages = named(0, "m"), named(1, "m")
    for message in messages:
        world.publish(message)
    route(world)
    assert (verdicts(world, 0), verdicts(world, 1)) == (["routed"], ["routed"])
    upgrade, before = disguise(world, "routings", 0), held("router")
    if not is_committed:
        world.log._groups["router"].positions.clear()
    for _ in range(2):  # a restart is no upgrade
        world.kill("router")
        for message in messages:
            world.publish(message)
        world.run(3)
    assert (verdicts(world, 0), verdicts(world, 1)) == ([], ["routed", "duplicate", "duplicate"])
    assert held("router") == before + 2
    upgrade()
    world.kill("router")
    world.run(3)
    assert verdicts(world, 0) == ["routed", "duplicate", "duplicate"]
    assert len(world.deliveries()) == 4
