"""A test send whose endpoint, or whole tenant, is deleted before its request is made."""

from __future__ import annotations

import pytest

from engine.core.change import DeleteEndpoint
from engine.core.directory import DeleteTenant
from engine.core.model import Answer
from tests.pipeline.test_lanes import open_inputs
from tests.pipeline.test_test_send import send_test, sent_tests
from tests.pipeline.world import TENANT, World, a_world


def deleted_meanwhile(world: World, deletion: DeleteEndpoint | DeleteTenant) -> None:
    """Let the test send be on the log, and the endpoint be gone before the dispatcher looks."""
    world.create_endpoint("ep")
    world.run(1)
    send_test(world, "ep")
    world.append("commands", TENANT, deletion)
    world.run(2)


@pytest.mark.parametrize(
    "deletion", [DeleteEndpoint("d", TENANT, "test", 0, "ep"), DeleteTenant("d", TENANT, "test", 0)]
)
def test_it_ends_and_holds_up_no_partition(deletion: DeleteEndpoint | DeleteTenant) -> None:
    """It has no secret any more and never will: waiting for one would keep its offset open for ever."""
    with a_world(lambda path, seen: Answer(200)) as world:
        deleted_meanwhile(world, deletion)
        assert [(a.outcome, a.decision, a.reason) for a in sent_tests(world)] == [
            ("none", "skipped", "deleted")
        ]
        assert open_inputs(world) == 0
        assert world.requests == []
