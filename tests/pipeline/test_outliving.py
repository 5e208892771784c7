"""A backlog never outlives the log: it ends in time, and what retention takes all the same is told."""

from __future__ import annotations

from collections import Counter

from prometheus_client import REGISTRY

from engine.core.lane import KEPT_MARGIN_US
from engine.core.routing import partition_of
from engine.runtime.accounting.whereabouts import Finder
from engine.runtime.topics import kept_us
from tests.pipeline.test_lanes import Switch, open_inputs, snapshots
from tests.pipeline.test_pipeline import decisions
from tests.pipeline.world import PARTITIONS, World, a_world

MONTHS = tuple([30 * 86_400_000] * 50)
"""The longest policy there may be, milliseconds."""


def parked_backlog(world: World, count: int) -> None:
    """An endpoint that is dead, and a backlog behind its cursor."""
    world.create_endpoint("dead", retry_policy=MONTHS)
    world.run(1)
    for n in range(count):
        world.publish(f"m{n}")
    world.run(8)
    lane = snapshots(world)["dead"]
    assert (lane.parked, lane.circuit) == (True, "open")


def test_a_backlog_ends_before_the_log_lets_go_of_it() -> None:
    """However long the policy is: failed and told while the record is still there, and not before."""
    with a_world(Switch("dead"), waiting=50, disable_after="none", warn_after="none") as world:
        began = world.clock.now()
        parked_backlog(world, 100)
        ends = began + kept_us(world.settings, "deliveries") - KEPT_MARGIN_US
        world.clock.us = ends - 3_600_000_000
        world.run(60)
        assert decisions(world)["dead", "failed"] == 0
        world.clock.us = ends + 60_000_000
        world.run(90)
        reasons = Counter(a.reason for a in world.attempts() if a.decision == "failed")
        waiting = Counter(a.decision for a in world.attempts())["retry"]
        assert reasons == {"expired": 100 - waiting}
        assert waiting < 30
        assert len(world.records("dead-letters")) == 100 - waiting


def trimmed() -> float:
    """Offsets behind cursors that were lost, as the metric says."""
    return REGISTRY.get_sample_value("hooklog_lanes_trimmed_records_total") or 0.0


def test_what_retention_takes_is_counted_and_the_drain_goes_on() -> None:
    """Under a running dispatcher: the rest is delivered, and what is gone is found nowhere."""
    receiver = Switch("dead")
    with a_world(receiver, waiting=50) as world:
        parked_backlog(world, 100)
        at = ("deliveries", partition_of("dead", PARTITIONS))
        lost = {record.headers["delivery"].decode() for record in world.log.records(at)[60:80]}
        first, before = snapshots(world)["dead"].cursor, trimmed()
        assert first < 60
        world.log.trim(at, 80)
        receiver.down.clear()
        world.run_until(lambda: len({key for key, seen in world.seen.items()}) >= 20, 60)
        world.run(10)
        assert 0 < trimmed() - before <= 80 - first
        for record in world.log.records(at):
            assert record.headers["delivery"].decode() in {a.delivery_id for a in world.attempts()}
        assert not lost & {a.delivery_id for a in world.attempts()}
        found = Finder(world.log.reader(), world.log, world.settings, 0).find(lost, 0)
        assert found.places == {}
        assert open_inputs(world) == 0
        world.run_until(lambda: snapshots(world) == {}, 20)
