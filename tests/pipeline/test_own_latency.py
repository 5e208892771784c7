"""What the SLO counts: how late first attempts are by hooklog's own doing, never by an endpoint's."""

from __future__ import annotations

from collections import Counter

import pytest
from prometheus_client import REGISTRY

from engine.core.delivery import Verdict, finished
from engine.core.model import Answer, DeliveryScheduled, Outcome, Trigger
from engine.runtime.delivering.attempt import observe
from tests.pipeline.test_lanes import Switch
from tests.pipeline.test_pipeline import decisions
from tests.pipeline.world import GROUPS, World, a_world

OWN = "hooklog_first_attempt_own_latency_seconds"
ALL = "hooklog_first_attempt_latency_seconds"


def late(name: str) -> float:
    """First attempts over the SLO so far, in this process."""
    count, soon = (
        REGISTRY.get_sample_value(f"{name}_{part}", labels)
        for part, labels in (("count", {}), ("bucket", {"le": "30.0"}))
    )
    assert count is not None
    assert soon is not None
    return count - soon


class Late:
    """How many first attempts were late since this was made."""

    def __init__(self) -> None:
        self._before = Counter({name: late(name) for name in (OWN, ALL)})

    @property
    def own(self) -> float:
        """By hooklog's own doing."""
        return late(OWN) - self._before[OWN]

    @property
    def all(self) -> float:
        """For whatever reason."""
        return late(ALL) - self._before[ALL]


def delivered(world: World, endpoint: str, count: int, within_s: float) -> None:
    """Run until so many are delivered."""
    world.run_until(lambda: decisions(world)[endpoint, "delivered"] == count, within_s)


def test_what_a_dead_endpoint_makes_wait_is_not_ours() -> None:
    """Minutes late when it is back, backlog drained from the log and all: nothing of it counts."""
    receiver = Switch("dead")
    with a_world(receiver, waiting=50) as world:
        world.create_endpoint("dead", retry_policy=(3_600_000,))
        world.run(1)
        counted = Late()
        for n in range(200):
            world.publish(f"m{n}")
        world.run(60)
        receiver.down.clear()
        world.run_until(lambda: decisions(world)["dead", "delivered"] > 150, 120)
        assert counted.all > 100
        assert counted.own == 0


@pytest.mark.parametrize(
    ("rate_limit", "settings", "answer_s"),
    [
        (1.0, {}, 1),
        (None, {"endpoint_in_flight": 8}, 8),
        (1.0, {"waiting": 20}, 1),
        (None, {"endpoint_in_flight": 8, "waiting": 20}, 8),
    ],
)
def test_what_a_slow_or_limited_endpoint_makes_wait_is_not_ours(
    rate_limit: float | None, settings: dict[str, object], answer_s: int
) -> None:
    """Whether it waits in the lane or, parked, on the log."""
    with a_world(lambda path, seen: Answer(200), **settings) as world:
        world.create_endpoint("slow", rate_limit=rate_limit)
        world.answer_us = lambda message: answer_s * 1_000_000
        world.run(1)
        counted = Late()
        for n in range(60):
            world.publish(f"m{n}")
        delivered(world, "slow", 60, 120)
        assert counted.all > 10
        assert counted.own == 0


def test_what_waits_for_a_dispatcher_is_ours() -> None:
    """Nobody took it in for a minute: every delivery counts."""
    with a_world(lambda path, seen: Answer(200)) as world:
        world.create_endpoint("ok")
        world.run(1)
        counted = Late()
        for n in range(5):
            world.publish(f"m{n}")
        for _ in range(240):
            for group in GROUPS:
                if group != "dispatcher":
                    world.step(group)
            world.clock.us += 250_000
        delivered(world, "ok", 5, 10)
        assert counted.own == 5


def test_what_waits_for_want_of_places_is_ours() -> None:
    """Lanes that are parked only because the process has no room are not to blame for it."""
    with a_world(lambda path, seen: Answer(200), waiting=20, in_flight=4) as world:
        for name in ("one", "two"):
            world.create_endpoint(name)
        world.run(1)
        counted = Late()
        for n in range(600):
            world.publish(f"m{n}")
        world.run_until(lambda: sum(decisions(world).values()) == 1200, 400)
        assert counted.all > 600
        assert counted.own == counted.all


def test_what_was_made_again_or_tried_again_does_not_count() -> None:
    """A replay's message is old, and so is a retry's: neither says how fast we are."""
    counted = Late()
    made: list[tuple[Trigger, int]] = [("replay", 1), ("resend", 1), ("test", 1), ("scheduled", 2)]
    for trigger, attempt in made:
        answered = Outcome("success", 200, started_at=10**9)
        of = DeliveryScheduled(
            delivery_id="d",
            tenant="t",
            endpoint_id="e",
            message_id="m",
            event_type="x",
            attempt=attempt,
            trigger=trigger,
            origin="",
            accepted_at=1,
            published_at=1,
            profile="standard",
            endpoint_epoch=0,
            view_offset=0,
            source_partition=0,
            source_offset=0,
            body=b"",
        )
        observe(finished(of, answered, Verdict("delivered"), b"", "test"))
    assert (counted.all, counted.own) == (0, 0)
