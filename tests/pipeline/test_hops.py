"""Retries that are due later than their tier, and hop: through it again, and then through smaller ones."""

from __future__ import annotations

import pytest

from consumers.scheduler import Scheduler
from engine.core.model import Answer
from engine.ports import Record
from engine.runtime.memory import MemoryConsumer
from tests.pipeline.world import World, a_world

STEP_US = 20_000
TIER = "retry.4s"


def fails_first(path: str, seen: int) -> Answer:
    """503, then 200."""
    return Answer(200 if seen else 503)


class Members:
    """Several schedulers of a world, and the other groups."""

    def __init__(self, world: World, count: int) -> None:
        self.world = world
        self.all = [world.scheduler, *(Scheduler(world.context()) for _ in range(count - 1))]
        self.work(2)

    def step(self) -> None:
        """Everybody does a little, and a little time passes."""
        for group in ("control", "router", "dispatcher"):
            self.world.step(group)
        for scheduler in self.all:
            scheduler.step()
        self.world.clock.us += STEP_US

    def work(self, seconds: float) -> None:
        """Let everybody work for so long."""
        for _ in range(int(seconds * 1_000_000 / STEP_US)):
            self.step()

    def owner(self, topic: str, partition: int) -> Scheduler:
        """Who owns a partition."""
        return next(each for each in self.all if (topic, partition) in each.processor.progress.owned)

    def kill(self, scheduler: Scheduler) -> None:
        """Kill it and start another one."""
        consumer = scheduler.processor.consumer
        assert isinstance(consumer, MemoryConsumer)
        consumer.kill()
        self.all[self.all.index(scheduler)] = Scheduler(self.world.context())


def waits(members: Members) -> Record:
    """A message has failed, and its retry waits on the largest tier, for longer than that."""
    members.world.create_endpoint("ep", retry_policy=(10_000,))
    members.work(1)
    members.world.publish("m")
    members.work(1)
    (record,) = members.world.records(TIER)
    return record


@pytest.mark.parametrize("count", [3, 5])
def test_a_hop_within_a_tier_is_read_back(count: int) -> None:
    """Killed between the hop and its commit, whoever owns the tier's partition repeats nothing."""
    with a_world(fails_first) as world:
        members = Members(world, count)
        record = waits(members)
        owner = members.owner(TIER, record.partition)
        assert owner is not members.owner("attempts", record.partition), "who would read it back for the tier"
        members.work((record.timestamp + 3_900_000 - world.clock.us) / 1e6)
        while len(world.records(TIER)) < 2 or len(owner.processor.producer):
            owner.processor._committed = world.clock.monotonic()  # not yet time for a commit
            members.step()
        members.kill(owner)
        members.work(15)
        assert len(world.records(TIER)) == 2
        assert [d.attempt for d in world.deliveries()] == [1, 2]
        assert len(world.requests) == 2


def test_a_commit_of_an_older_scheduler_is_taken_up() -> None:
    """It says nothing of hops within the tier: they are looked for behind the committed offset."""
    with a_world(fails_first) as world:
        members = Members(world, 1)
        record = waits(members)
        members.work(1)
        positions = world.log._groups["scheduler"].positions
        at = TIER, record.partition
        older = ",".join(part.partition("=")[2] for part in positions[at].metadata.split(";")[:-1])
        assert older.count(",") == 3, "deliveries and three smaller tiers"
        members.all[0].processor.consumer.kill()  # type: ignore[attr-defined]
        positions[at] = positions[at]._replace(metadata=older)
        members.all = [Scheduler(world.context())]
        members.work(1)
        owned = members.all[0].processor.progress.owned[at]
        assert owned.kept[-1] == positions[at].offset == record.offset
        members.work(12)
        assert [d.attempt for d in world.deliveries()] == [1, 2]
