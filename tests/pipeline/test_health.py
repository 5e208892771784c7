"""health: what follows from attempts, asked for once, and never past what it cannot read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from engine.core.change import (
    CommandRejected,
    DisableEndpoint,
    EnableEndpoint,
    EndpointSettings,
    UpdateEndpoint,
)
from engine.core.endpoint import Endpoint
from engine.core.model import Answer, AttemptFinished, Decision
from engine.ports import Output
from schemas import headers
from tests.pipeline.world import CODEC, TENANT, World, a_world

NEWER = b"\xc3\x01" + bytes(8)
"""A record of a schema that nobody knows."""


@pytest.fixture
def world() -> Iterator[World]:
    """A world without endpoints."""
    with a_world(lambda path, seen: Answer(200)) as made:
        yield made


def answered(endpoint_id: str, version: int = 1, decision: Decision = "failed") -> AttemptFinished:
    """An attempt at this version of the endpoint, whose answer disables it."""
    delivered = decision == "delivered"
    return AttemptFinished(
        delivery_id=f"d_{endpoint_id}_{version}",
        tenant=TENANT,
        endpoint_id=endpoint_id,
        message_id="m_1",
        event_type="x",
        attempt=1,
        trigger="scheduled",
        origin="",
        accepted_at=1,
        source_partition=0,
        source_offset=0,
        attempted_at=1,
        duration_us=1,
        outcome="success" if delivered else "failure",
        status_code=200 if delivered else 410,
        error_class="" if delivered else "gone",
        error="",
        decision=decision,
        reason="" if delivered else "gone",
        retry_at=0,
        request_bytes=0,
        response_body=b"",
        worker="test",
        endpoint_version=version,
        disables=True,
        delivery=b"" if delivered else b"the delivery",
    )


def append(world: World, partition: int, attempt: AttemptFinished) -> None:
    """Put an attempt on `attempts`, as the dispatcher does."""
    found = headers.of_attempt(attempt, headers.cause("deliveries", partition, 0))
    world.log.append(Output("attempts", partition, b"ep", CODEC.encode(attempt), found))


def append_bytes(world: World, value: bytes, **found: bytes) -> None:
    """Put anything on partition 0 of `attempts`."""
    world.log.append(Output("attempts", 0, b"ep", value, found))


def work(world: World) -> None:
    """Let health handle and commit what is there."""
    for _ in range(4):
        world.step("health")
        world.clock.us += 1_000_000


def asked(world: World) -> list[str]:
    """Endpoints that health wants disabled."""
    commands = [CODEC.decode_as(DisableEndpoint, record.value) for record in world.records("commands")]
    return [command.endpoint_id for command in commands]


def committed(world: World, partition: int) -> int:
    """Where the group would go on."""
    at = ("attempts", partition)
    position = world.health.member.consumer.committed([at])[at]
    return position.offset if position else 0


def held() -> float:
    """The metric."""
    return REGISTRY.get_sample_value("hooklog_unknown_schema_records_total", {"group": "health"}) or 0.0


@pytest.mark.parametrize("decision", ["failed", "delivered"])
def test_gone_asks_for_a_disable(world: World, decision: Decision) -> None:
    """Of the version that the request used, whatever became of the delivery; a burst is one command."""
    append(world, 0, answered("ep_1", 3, decision))
    append(world, 0, replace(answered("ep_1", 3, decision), delivery_id="d_2"))
    work(world)
    records = world.records("commands")
    commands = [CODEC.decode_as(DisableEndpoint, record.value) for record in records]
    assert {(c.command_id, c.tenant, c.reason, c.expected_version, c.actor) for c in commands} == {
        ("gone:ep_1:v3", TENANT, "gone", 3, "health")
    }
    assert [r.headers[headers.CAUSE] for r in records] == [headers.cause("attempts", 0, 0)]
    assert committed(world, 0) == 2


def test_other_attempts_ask_for_nothing(world: World) -> None:
    """They are passed by, unread: a 410 too, in a profile where that disables nothing."""
    append_bytes(world, b"not even read", error_class=b"http_5xx")
    append_bytes(world, b"not even read", error_class=b"http_4xx")
    append(world, 0, replace(answered("ep_1"), disables=False, error_class="http_4xx"))
    work(world)
    assert asked(world) == []
    assert committed(world, 0) == 3


def test_what_nobody_can_decode_is_passed_by(world: World) -> None:
    """The projector puts it on `invalid`; what comes after it is handled."""
    append_bytes(world, b"no record at all", disables=b"1")
    append(world, 0, answered("ep_1"))
    work(world)
    assert asked(world) == ["ep_1"]
    assert committed(world, 0) == 2


def test_what_a_newer_hooklog_wrote_is_waited_before(world: World) -> None:
    """Its partition stops there, uncommitted, counted once; the other partition goes on."""
    before = held()
    append(world, 0, answered("ep_1"))
    append_bytes(world, NEWER, disables=b"1")
    append(world, 0, answered("ep_2"))
    work(world)
    append(world, 0, answered("ep_3"))
    append(world, 1, answered("ep_4"))
    work(world)
    assert asked(world) == ["ep_1", "ep_4"]
    assert (committed(world, 0), committed(world, 1)) == (1, 1)
    assert held() == before + 1


def test_leaving_commits_nothing_of_what_was_held(world: World) -> None:
    """A clean stop keeps the place, and the next process meets the record again."""
    append(world, 0, answered("ep_1"))
    append_bytes(world, NEWER, disables=b"1")
    work(world)
    before = held()
    world.health.close()
    world.start("health")
    work(world)
    assert committed(world, 0) == 1
    assert held() == before + 1


# -- with control -----------------------------------------------------------------------


def decided(world: World) -> Endpoint:
    """The endpoint `ep` when health and control have handled what is there."""
    work(world)
    world.step("control")
    return world.control.configuration.endpoints["ep"]


def change(world: World, number: int, field: str) -> None:
    """A person changes the URL or the description of the endpoint `ep`."""
    settings = EndpointSettings("http://127.0.0.1/new", description=f"number {number}")
    command = UpdateEndpoint(f"update-{number}", TENANT, "a person", 0, "ep", (field,), settings)
    world.append("commands", TENANT, command)
    world.step("control")


def test_an_old_urls_answer_does_not_disable_the_new_one(world: World) -> None:
    """The request was under way while the URL was changed: the command is refused, nothing changes."""
    world.create_endpoint("ep")
    world.step("control")
    change(world, 1, "url")
    append(world, 0, answered("ep", 1))
    endpoint = decided(world)
    assert (endpoint.enabled, endpoint.version, endpoint.epoch) == (True, 2, 0)
    rejected = [CODEC.decode(record.value) for record in world.records("changes")][-1]
    assert isinstance(rejected, CommandRejected)
    assert (rejected.actor, rejected.command) == ("health", "DisableEndpoint")


def test_a_change_does_not_save_a_dead_endpoint(world: World) -> None:
    """Each change makes it be tried again; the next answer, to the version of then, disables it."""
    world.create_endpoint("ep")
    world.step("control")
    for version in (1, 2, 3):
        change(world, version, "description")
        append(world, 0, answered("ep", version))
        assert decided(world).enabled
    append(world, 0, answered("ep", 4))
    endpoint = decided(world)
    assert (endpoint.enabled, endpoint.disabled_reason, endpoint.version, endpoint.epoch) == (
        False,
        "gone",
        5,
        1,
    )


def test_a_late_answer_does_not_disable_what_a_person_enabled(world: World) -> None:
    """A copy of the command, or an answer from before: the version is another one."""
    world.create_endpoint("ep")
    world.step("control")
    append(world, 0, answered("ep", 1))
    assert not decided(world).enabled
    world.append("commands", TENANT, EnableEndpoint("enable", TENANT, "a person", 0, "ep"))
    world.step("control")
    append(world, 1, answered("ep", 1))
    endpoint = decided(world)
    assert (endpoint.enabled, endpoint.version) == (True, 3)


# -- with the whole pipeline --------------------------------------------------------------


def ended(world: World) -> list[tuple[str, str]]:
    """Decision and reason of each attempt, sorted."""
    return sorted((attempt.decision, attempt.reason) for attempt in world.attempts())


def test_an_endpoint_may_take_a_message_and_want_no_more() -> None:
    """`disable` along with a 200: that one is delivered, the endpoint is disabled, later ones are skipped."""
    with a_world(lambda path, seen: Answer(200, {"webhook-delivery": "disable"})) as world:
        world.create_endpoint("ep")
        world.run(1)
        world.publish("m_1")
        world.run(3)
        world.publish("m_2")
        world.run(3)
        endpoint = world.control.configuration.endpoints["ep"]
        assert (endpoint.enabled, endpoint.disabled_reason) == (False, "gone")
        assert ended(world) == [("delivered", "")]
        skipped = [s for batch in world.batches() for r in batch.routings for s in r.skipped]
        assert [s.endpoint_id for s in skipped] == ["ep"]


def test_a_receiver_may_abort_a_message() -> None:
    """`abort-message` along with a 500: one request, no dead letter, and the endpoint goes on."""
    answers = [Answer(500, {"webhook-delivery": "abort-message"}), Answer(200)]
    with a_world(lambda path, seen: answers.pop(0)) as world:
        world.create_endpoint("ep")
        world.run(1)
        world.publish("m_1")
        world.run(6)
        world.publish("m_2")
        world.run(6)
        assert ended(world) == [("delivered", ""), ("skipped", "aborted")]
        assert world.records("dead-letters") == []


def test_a_url_changed_during_a_request() -> None:
    """The old one's 410 ends that delivery; what comes then goes to the new one, in the same epoch."""
    with a_world(lambda path, seen: Answer(200 if path == "new" else 410)) as world:
        world.create_endpoint("ep")
        world.run(1)
        world.publish("m_1")
        for group in ("router", "dispatcher") * 10:
            world.step(group)
        assert world.sender.in_flight == 1
        change(world, 1, "url")
        world.run(3)
        world.publish("m_2")
        world.run(3)
        endpoint = world.control.configuration.endpoints["ep"]
        assert (endpoint.enabled, endpoint.version, endpoint.epoch) == (True, 2, 0)
        assert ended(world) == [("delivered", ""), ("failed", "gone")]
