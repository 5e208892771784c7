"""Window fill: every group says how full it is."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from consumers import control, health
from consumers.projector import Projector
from engine.core.change import DisableEndpoint
from engine.core.model import Answer
from engine.runtime.history.clickhouse import UnavailableError
from engine.runtime.history.projection import BATCH_BYTES
from engine.runtime.replaying.running import OUTSTANDING_MAX
from tests.pipeline.health_scene import Scene
from tests.pipeline.replays import have, several, start
from tests.pipeline.world import TENANT, a_world


def fill(group: str) -> float | None:
    """What the metric says of a group; None if it says nothing."""
    return REGISTRY.get_sample_value("hooklog_window_fill_ratio", {"group": group})


def inserted_at() -> float | None:
    """When the projector last wrote to ClickHouse."""
    return REGISTRY.get_sample_value("hooklog_projector_last_insert_timestamp_seconds")


class Away:
    """A store that is away until it is back."""

    is_back = False

    def insert(self, table: str, columns: object, token: str) -> None:
        """Take no rows."""
        if not self.is_back:
            raise UnavailableError("away")

    def roll_up(self, units: object) -> None:
        """Make no rollups."""
        if not self.is_back:
            raise UnavailableError("away")


def test_healths_is_the_share_of_a_step_that_its_records_take() -> None:
    """At 1 it falls behind."""
    scene = Scene()
    scene.endpoint("ep_1")
    scene.settle()
    assert fill("health") == 0
    for _ in range(20):
        scene.attempt("ep_1", "delivered")
    scene.step("0")
    assert fill("health") == 20 / health.BATCH_MAX


def test_controls_is_the_share_of_a_transaction_that_its_commands_take() -> None:
    """Likewise."""
    with a_world(lambda path, seen: Answer(200)) as world:
        for n in range(5):
            command = DisableEndpoint(f"c_{n}", TENANT, "test", 0, "ep_1", "by hand")
            world.append("commands", TENANT, command)
        world.step("control")
        assert fill("control") == 5 / control.BATCH_MAX
        world.step("control")
        assert fill("control") == 0


def test_the_projectors_is_its_batch() -> None:
    """It stays while ClickHouse is away, and is empty when it is back; only writes that succeed count."""
    scene, store = Scene(), Away()
    projector = Projector(scene.context(), store)
    scene.attempt("ep_1", "retry")
    size = sum(len(record.value or b"") for record in scene.records("attempts"))
    before = inserted_at()
    for _ in range(4):
        projector.step(0)
        scene.clock.us += 1_000_000
    assert fill("projector") == pytest.approx(max(size / BATCH_BYTES, 1 / 20_000))
    assert inserted_at() == before
    store.is_back = True
    scene.clock.us += 10_000_000
    projector.step(0)
    assert fill("projector") == 0
    assert inserted_at() != before


def test_the_replayers_is_what_its_fullest_endpoint_has_not_attempted() -> None:
    """At 1 the replay waits for that endpoint."""
    with a_world(lambda path, seen: Answer(200)) as world:
        have(world, *several(40))
        start(world)
        seen = []
        for _ in range(100):
            world.step("replayer")
            seen.append(fill("replayer"))
            world.clock.us += 10_000
        assert max(filter(None, seen)) == 40 / OUTSTANDING_MAX
        assert fill("replayer") == 0  # it is over: what it made is the dispatcher's
