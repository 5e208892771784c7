"""What is left of deleted endpoints: a snapshot for 30 days, then nothing, wherever it was kept."""

from __future__ import annotations

from collections import Counter

import pytest

import consumers.control
from consumers.control import Control
from engine.core.change import DeleteEndpoint, DisableEndpoint
from engine.core.endpoint import DELETED_US, Endpoint
from engine.core.model import Answer
from engine.runtime.configuration.views import Configuration
from tests.pipeline.health_scene import Scene
from tests.pipeline.test_lanes import REFUSED, Switch, snapshots
from tests.pipeline.world import CODEC, TENANT, World, a_world

OTHER = "hooli"
"""A tenant of the other partition."""
DAY_US = 86_400_000_000


def ok(path: str, seen: int) -> Answer:
    """A receiver that takes everything."""
    return Answer(200)


def delete(world: World, name: str, tenant: str = TENANT) -> None:
    """Ask for its deletion."""
    world.append("commands", tenant, DeleteEndpoint(f"delete-{name}", tenant, "test", 0, name))


def on_the_log(world: World) -> dict[str, Endpoint | None]:
    """The last record of each endpoint."""
    last = {(record.key or b"").decode(): record.value for record in world.records("endpoints")}
    return {id: CODEC.decode_as(Endpoint, value) if value else None for id, value in last.items()}


def views(world: World) -> list[Configuration]:
    """What each group knows."""
    return [
        world.control.configuration,
        world.router._configuration,
        world.intake.configuration,
        world.health._configuration,
        world.replayer._configuration,
    ]


def with_deleted_ones(world: World, count: int = 1) -> None:
    """Deleted endpoints of two tenants, one that is disabled, and one that is as it was."""
    world.create_endpoint("off")
    world.create_endpoint("on", tenant=OTHER)
    for tenant in (TENANT, OTHER):
        for n in range(count):
            world.create_endpoint(f"{tenant}{n}", tenant=tenant)
    world.run(1)
    world.append("commands", TENANT, DisableEndpoint("off", TENANT, "test", 0, "off", "by hand"))
    for tenant in (TENANT, OTHER):
        for n in range(count):
            delete(world, f"{tenant}{n}", tenant)
    world.run(1)


# -- control ---------------------------------------------------------------------------


def test_a_tombstone_follows_after_30_days_and_everybody_forgets() -> None:
    """Not before, after a restart of control too; what is disabled stays."""
    with a_world(ok) as world:
        with_deleted_ones(world)
        world.kill("control")
        world.clock.us += DELETED_US - DAY_US
        world.run(1)
        assert None not in on_the_log(world).values()
        world.kill("control")
        world.clock.us += DAY_US
        world.run(1)
        left = {id for id, endpoint in on_the_log(world).items() if endpoint is not None}
        assert left == {"off", "on"}
        assert all(configuration.endpoints.keys() == left for configuration in views(world))
        count = len(world.records("endpoints"))
        world.clock.us += DAY_US
        world.run(1)
        assert len(world.records("endpoints")) == count


def test_each_member_sees_to_its_own_partitions() -> None:
    """Two members of control write one tombstone each, however often partitions move."""
    with a_world(ok) as world:
        with_deleted_ones(world)
        other = Control(world.context())
        for _ in range(3):
            world.step("control")
            other.step(0)
        world.control._transactions = world.log.transactions("control-another")
        world.clock.us += DELETED_US
        other.step(0)
        assert list(on_the_log(world).values()).count(None) == 1
        world.step("control")
        other.step(0)
        assert list(on_the_log(world).values()).count(None) == 2
        other.close()
        world.run(1)
        world.clock.us += DAY_US
        world.run(1)
        tombstones = [record.key for record in world.records("endpoints") if record.value is None]
        assert Counter(tombstones) == {f"{TENANT}0".encode(): 1, f"{OTHER}0".encode(): 1}


def test_many_tombstones_take_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is bounded, and commands come between."""
    with a_world(ok) as world:
        with_deleted_ones(world, 5)
        monkeypatch.setattr(consumers.control, "BATCH_MAX", 4)
        world.clock.us += DELETED_US
        world.create_endpoint("new")
        counts = []
        for _ in range(4):
            world.step("control")
            counts.append(list(on_the_log(world).values()).count(None))
        assert counts == [4, 8, 10, 10]
        assert on_the_log(world)["new"] is not None


def test_an_id_may_be_used_again_afterwards() -> None:
    """What comes after the tombstone is a new endpoint to everybody."""
    with a_world(ok) as world:
        with_deleted_ones(world)
        world.clock.us += DELETED_US
        world.run(1)
        world.kill("control")  # it remembers the id of the command, which the world makes of the endpoint's
        world.create_endpoint(f"{TENANT}0")
        world.run(1)
        world.publish("m")
        world.run(1)
        assert [request.url.rpartition("/")[2] for _, request in world.requests] == [f"{TENANT}0"]


def test_the_router_keeps_no_place_for_a_tenant_without_endpoints() -> None:
    """Tenants come and go, too."""
    with a_world(ok) as world:
        world.create_endpoint("only", tenant=OTHER)
        world.run(1)
        assert world.router.roster._by_tenant.keys() == {OTHER}
        delete(world, "only", OTHER)
        world.run(1)
        assert not world.router.roster._by_tenant


# -- lanes -----------------------------------------------------------------------------


def gone(path: str, seen: int) -> Answer:
    """410, but for `ok`."""
    return Answer(200 if path == "ok" else 410)


def test_a_lane_with_a_limit_or_a_410_goes_with_its_endpoint() -> None:
    """It is kept while the endpoint is there, and not a moment longer."""
    with a_world(gone) as world:
        world.create_endpoint("gone")
        world.create_endpoint("ok", rate_limit=100.0)
        world.run(1)
        world.publish("m")
        world.run(2)
        assert world.lanes._lanes.keys() == {"gone", "ok"}
        delete(world, "gone")
        delete(world, "ok")
        world.run(1)
        assert not world.lanes._lanes


@pytest.mark.parametrize("is_away", [False, True])
def test_the_circuit_of_a_deleted_endpoint_is_forgotten(*, is_away: bool) -> None:
    """With what waits behind it, on the log as well; also if no dispatcher ran when it was deleted."""
    with a_world(Switch("dead"), waiting=50) as world:
        world.create_endpoint("dead", retry_policy=(3_600_000,))
        world.run(1)
        for n in range(100):
            world.publish(f"m{n}")
        world.run(8)
        assert snapshots(world)["dead"].circuit == "open"
        delete(world, "dead")
        if is_away:
            world.step("control")
            world.kill("dispatcher")
        world.run(40)
        assert snapshots(world) == {}
        assert not world.lanes._lanes
        assert world.lanes._circuits["open"] == world.lanes._circuits["half_open"] == 0
        asked = len(world.requests)
        world.run(10)
        assert len(world.requests) == asked


def test_a_circuit_that_opens_while_it_is_deleted_is_forgotten_too() -> None:
    """The requests that were under way end after the deletion."""
    with a_world(lambda path, seen: REFUSED) as world:
        world.create_endpoint("dead", retry_policy=(3_600_000,))
        world.run(1)
        world.answer_us = lambda message: 5_000_000
        for n in range(60):
            world.publish(f"m{n}")
        world.run(1)
        delete(world, "dead")
        world.run(20)
        assert snapshots(world) == {}
        assert not world.lanes._lanes


def test_a_lane_ends_with_what_was_skipped() -> None:
    """Deliveries that end without a request leave no lane behind."""
    with a_world(Switch("dead")) as world:
        world.create_endpoint("dead", retry_policy=(1_000,))
        world.run(1)
        world.publish("m")
        world.run(1)
        delete(world, "dead")
        world.run(10)
        assert [a.decision for a in world.attempts()] == ["retry", "skipped"]
        assert not world.lanes._lanes


# -- health ----------------------------------------------------------------------------


def test_health_forgets_what_was_deleted_while_it_was_away() -> None:
    """The tombstone may have come and gone before it runs again; a new endpoint's health stays."""
    scene = Scene()
    for _ in range(3):
        scene.attempt("old", "retry")
    scene.settle()
    assert scene.snapshots().keys() == {"old"}
    scene.clock.us += DELETED_US
    scene.attempt("new", "retry")
    scene.kill("0")
    scene.settle()
    assert scene.snapshots().keys() == {"new"}
