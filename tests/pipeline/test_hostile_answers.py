"""No answer, whatever is in it, ends a dispatcher or is sent for again without a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import REGISTRY

from engine.core.model import Answer
from tests.pipeline.world import Receiver, World, a_world


class Unreadable(dict[str, str]):
    """Headers that break whoever looks for one: they stand for a defect of ours that an answer finds."""

    def get(self, name: str, default: Any = None) -> Any:
        """Break."""
        raise RuntimeError("a defect")


def answering(headers: Mapping[str, str]) -> Receiver:
    """`/evil` answers 503 with these headers, everybody else 200."""

    def receiver(path: str, seen: int) -> Answer:
        return Answer(503, headers) if path == "evil" else Answer(200)

    return receiver


def unjudged() -> float:
    """What is counted."""
    return REGISTRY.get_sample_value("hooklog_answers_unjudged_total") or 0


def publish(world: World) -> None:
    """One message to both endpoints, and time for the first attempts only."""
    for name in ("good", "evil"):
        world.create_endpoint(name)
    world.run(1)
    world.publish("m")
    world.run(1)


@pytest.mark.parametrize(
    "wait",
    [
        "Mon, 01 Jan 99999999999 00:00:00 GMT",
        "Mon, 01 Jan 2030 99999999999:00:00 GMT",
        "Mon, 01 Jan 2030 00:00:00 +99999999999999999999",
    ],
)
def test_a_date_that_no_clock_holds_asks_for_nothing(wait: str) -> None:
    """The attempt is a failure like any other, retried by the endpoint's schedule."""
    before = unjudged()
    with a_world(answering({"retry-after": wait})) as world:
        publish(world)
        first = {each.endpoint_id: each for each in world.attempts() if each.attempt == 1}
    assert (first["good"].decision, first["evil"].decision) == ("delivered", "retry")
    assert (first["evil"].status_code, first["evil"].error_class) == (503, "http_5xx")
    assert unjudged() == before


def test_an_answer_that_breaks_our_judging_is_recorded_and_counted() -> None:
    """Its attempt failed (`protocol`) and is retried; the defect shows in the log and in a metric."""
    before = unjudged()
    with a_world(answering(Unreadable())) as world:
        publish(world)
        first = {each.endpoint_id: each for each in world.attempts() if each.attempt == 1}
        requests = len([request for _, request in world.requests if request.url.endswith("evil")])
        attempts = len([each for each in world.attempts() if each.endpoint_id == "evil"])
    evil = first["evil"]
    assert (evil.outcome, evil.error_class, evil.status_code, evil.decision) == (
        *("failure", "protocol", 503),
        "retry",
    )
    assert evil.error == "the answer could not be judged (RuntimeError)"
    assert first["good"].decision == "delivered"
    assert (requests, unjudged() - before) == (attempts, attempts)
