"""What the dispatcher holds of endpoints in the clear: as long as it needs it, and not without bound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.core.change import DeleteEndpoint, EndpointSettings, UpdateEndpoint
from engine.core.directory import DeleteTenant
from engine.core.model import Answer
from engine.runtime.delivering.attempt import PREPARED_MAX, Attempts
from tests.pipeline.world import TENANT, World, a_world

BEFORE, AFTER = {"X-Before": "canary-before"}, {"X-Before": "canary-after"}


def ok(path: str, seen: int) -> Answer:
    """A receiver that takes everything."""
    return Answer(200)


def attempts_of(world: World) -> Attempts:
    """The dispatcher's."""
    return world.lanes._attempts


def delivered(world: World) -> None:
    """An endpoint with headers of its own has got a message."""
    world.create_endpoint("ep", headers=BEFORE)
    world.create_endpoint("other", tenant="other")
    world.run(1)
    world.publish("m")
    world.run(2)
    assert [request.headers["X-Before"] for _, request in world.requests] == ["canary-before"]
    assert "canary-before" in attempts_of(world)._prepared["ep"].headers.values()


@pytest.mark.parametrize(
    "change",
    [
        DeleteEndpoint("d", TENANT, "test", 0, "ep"),
        DeleteTenant("d", TENANT, "test", 0),
        UpdateEndpoint("u", TENANT, "test", 0, "ep", ("headers",), EndpointSettings("", headers=AFTER)),
    ],
)
def test_nothing_is_held_of_what_was_deleted_or_changed(
    change: DeleteEndpoint | DeleteTenant | UpdateEndpoint,
) -> None:
    """Neither keys nor header values, without waiting for a delivery; the next one is sent with the new."""
    with a_world(ok) as world:
        delivered(world)
        world.append("commands", TENANT, change)
        world.run(1)
        assert attempts_of(world)._prepared == {}
        world.publish("n")
        world.run(2)
        later = [request.headers["X-Before"] for _, request in world.requests[1:]]
        assert later == (["canary-after"] if isinstance(change, UpdateEndpoint) else [])


def test_a_change_of_others_forgets_nothing() -> None:
    """Secrets are not opened again for it."""
    with a_world(ok) as world:
        delivered(world)
        held = attempts_of(world)._prepared["ep"]
        world.append("commands", "other", DeleteEndpoint("d", "other", "test", 0, "other"))
        world.run(1)
        assert world.intake.configuration.endpoints["other"].deleted
        assert attempts_of(world)._prepared["ep"] is held


def test_what_is_held_is_bounded() -> None:
    """The oldest goes first, and one that is needed again is opened again."""
    with a_world(ok) as world:
        delivered(world)
        attempts, endpoint = attempts_of(world), world.intake.configuration.endpoints["ep"]
        plain = replace(endpoint, secrets=(), settings=EndpointSettings("http://127.0.0.1/ep"))
        for n in range(PREPARED_MAX):
            attempts.prepare(replace(plain, id=f"ep{n}"), "standard")
        assert len(attempts._prepared) == PREPARED_MAX
        assert "ep" not in attempts._prepared
        assert attempts.prepare(endpoint, "standard").headers == BEFORE
        assert len(attempts._prepared) == PREPARED_MAX
        assert "ep0" not in attempts._prepared
