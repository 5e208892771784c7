"""The window of duplicates ends by the broker's times: on a quiet partition too, and whoever restarts."""

from __future__ import annotations

import pytest

from engine.core.model import Answer
from tests.pipeline.world import World, a_world

SECOND = 1_000_000
WINDOW_S = 3_600
QUIET = pytest.mark.parametrize("restarts", [False, True])


def accept(path: str, seen: int) -> Answer:
    """200."""
    return Answer(200)


def verdicts(world: World) -> list[str]:
    """What became of each message, in order, as recorded."""
    return [routing.verdict for batch in world.batches() for routing in batch.routings]


def publish_again(world: World, after_s: float, payload: bytes = b"{}", *, restarts: bool) -> None:
    """Publish the same id so much later; nothing else is published meanwhile."""
    world.clock.us += int(after_s * SECOND)
    world.publish("daily", payload=payload)
    if restarts:
        world.kill("router")
    world.run(2)


@QUIET
@pytest.mark.parametrize("payload", [b"{}", b'{"a": 1}'])
def test_an_id_is_new_when_its_window_is_over(payload: bytes, *, restarts: bool) -> None:
    """The same id an hour and days later is another message, whatever its payload."""
    with a_world(accept) as world:
        world.create_endpoint("ep")
        world.run(1)
        for after_s in (0, WINDOW_S + 1, 3 * 86_400):
            publish_again(world, after_s, payload if after_s else b"{}", restarts=restarts)
        assert verdicts(world) == ["routed"] * 3
        assert world.records("invalid") == []
        assert len({each.delivery_id for each in world.deliveries()}) == 3


@QUIET
def test_an_id_is_remembered_until_then(*, restarts: bool) -> None:
    """To the last second of the window; with another payload it is refused."""
    with a_world(accept) as world:
        world.create_endpoint("ep")
        world.run(1)
        publish_again(world, 0, restarts=restarts)
        publish_again(world, WINDOW_S - 10, restarts=restarts)
        publish_again(world, 1, b'{"a": 1}', restarts=restarts)
        assert verdicts(world) == ["routed", "duplicate", "invalid"]


def test_a_router_that_was_away_decides_as_if_it_had_not_been() -> None:
    """A backlog is older than the window at the restart; what counts is when its messages came."""
    with a_world(accept) as world:
        world.create_endpoint("ep")
        world.run(1)
        publish_again(world, 0, restarts=False)
        world.clock.us += 60 * SECOND
        world.publish("daily")
        world.clock.us += 3 * WINDOW_S * SECOND
        world.publish("daily")
        world.kill("router")
        world.run(2)
        assert verdicts(world) == ["routed", "duplicate", "routed"]
