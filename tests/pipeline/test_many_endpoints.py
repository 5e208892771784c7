"""A tenant has so many endpoints that what one message matches fits one record."""

from __future__ import annotations

from collections import deque

import pytest
from pydantic import ValidationError

from engine.core.change import CommandRejected, DeleteEndpoint, EndpointCreated
from engine.core.model import Answer, RoutedBatch, Routing, Skipped
from engine.runtime.owned import Input, Owned
from engine.runtime.routing.unrecorded import BATCH_BYTES_MAX, Unrecorded, acknowledged_run
from engine.runtime.settings import Settings
from engine.runtime.topics import MESSAGE_MAX
from tests.pipeline.world import CODEC, TENANT, World, a_world

MOST = 40_000
"""The highest that HOOKLOG_TENANT_ENDPOINTS_MAX can be."""
IDS = tuple(f"ep_{n:024x}" for n in range(MOST))


def test_the_setting_ends_where_a_record_does() -> None:
    """The default is far below."""
    assert Settings(tenant_endpoints_max=MOST).tenant_endpoints_max == MOST
    assert Settings().tenant_endpoints_max == 10_000
    with pytest.raises(ValidationError):
        Settings(tenant_endpoints_max=MOST + 1)


def test_what_the_largest_tenant_matches_fits_one_record() -> None:
    """However each endpoint is noted, behind as many other messages as share a record with it."""
    owned = Owned(("messages", 0), (), 0, ())
    view = (2**62,) * 256
    small = Routing(0, TENANT, "m" * 64, "room.ended", 2**60, bytes(16), "routed", IDS[:200], (), bytes=9)
    noted = [
        {"matched": IDS},
        {"skipped": tuple(Skipped(each, "too_large") for each in IDS)},
        {"skipped": tuple(Skipped(each, "disabled") for each in IDS)},
    ]
    for names in noted:
        large = Routing(0, TENANT, "m" * 64, "room.ended", 2**60, bytes(16), "routed", bytes=9, **names)  # type: ignore[arg-type]
        most = BATCH_BYTES_MAX // 200 // len(IDS[0])
        waiting = deque(
            Unrecorded(Input(owned, n, ()), n, small if n < most else large, view) for n in range(most + 1)
        )
        while waiting:
            routings = tuple(each.routing for each in acknowledged_run(waiting))
            batch = RoutedBatch(0, 0, len(routings), view, routings)
            assert len(CODEC.encode(batch)) < MESSAGE_MAX * 9 // 10


def decided(world: World) -> list[str]:
    """Endpoints created, and codes of rejections, in order."""
    facts = [CODEC.decode(record.value) for record in world.records("changes")]
    return [
        fact.endpoint_id if isinstance(fact, EndpointCreated) else fact.code
        for fact in facts
        if isinstance(fact, EndpointCreated | CommandRejected)
    ]


@pytest.mark.parametrize("restarts", [False, True])
def test_control_refuses_one_more_until_one_is_deleted(*, restarts: bool) -> None:
    """Other tenants have their own count, and a control that has just started knows it."""
    with a_world(lambda path, seen: Answer(200), tenant_endpoints_max=2) as world:

        def create(name: str, tenant: str = TENANT) -> None:
            world.create_endpoint(name, tenant=tenant)
            if restarts:
                world.kill("control")
            world.run(1)

        for name in ("a", "b", "c"):
            create(name)
        create("a2", "globex")
        assert sorted(decided(world)) == ["a", "a2", "b", "too_many"]
        world.append("commands", TENANT, DeleteEndpoint("delete-b", TENANT, "test", 0, "b"))
        create("d")
        assert sorted(decided(world)) == ["a", "a2", "b", "d", "too_many"]
