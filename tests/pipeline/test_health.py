"""health: what follows from attempts, asked for once, and never past what it cannot read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY

from engine.core.change import DisableEndpoint
from engine.core.model import Answer, AttemptFinished, DeliveryScheduled
from engine.ports import Output
from schemas import headers
from tests.pipeline.world import CODEC, World, a_world

NEWER = b"\xc3\x01" + bytes(8)
"""A record of a schema that nobody knows."""


@pytest.fixture
def world() -> Iterator[World]:
    """A world without endpoints."""
    with a_world(lambda path, seen: Answer(200)) as made:
        yield made


def attempted(endpoint_id: str, epoch: int = 0) -> bytes:
    """An attempt that was answered with 410."""
    delivery = DeliveryScheduled(
        "d_1", "acme", endpoint_id, "m_1", "x", 1, "scheduled", "", 1, 1, "standard", epoch, 0, 0, 0, b"{}"
    )
    attempt = AttemptFinished(
        delivery_id="d_1",
        tenant="acme",
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
        outcome="failure",
        status_code=410,
        error_class="gone",
        error="",
        decision="failed",
        reason="gone",
        retry_at=0,
        request_bytes=0,
        response_body=b"",
        worker="test",
        delivery=CODEC.encode(delivery),
    )
    return CODEC.encode(attempt)


def append(world: World, partition: int, value: bytes, error_class: bytes = b"gone") -> None:
    """Put a record on `attempts`."""
    world.log.append(Output("attempts", partition, b"ep", value, {headers.ERROR_CLASS: error_class}))


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
    position = world.health._inputs.consumer.committed([at])[at]
    return position.offset if position else 0


def held() -> float:
    """The metric."""
    return REGISTRY.get_sample_value("hooklog_unknown_schema_records_total", {"group": "health"}) or 0.0


def test_gone_asks_for_a_disable(world: World) -> None:
    """With the epoch of the delivery and its cause; a burst has one command id."""
    append(world, 0, attempted("ep_1", 3))
    append(world, 0, attempted("ep_1", 3))
    work(world)
    records = world.records("commands")
    commands = [CODEC.decode_as(DisableEndpoint, record.value) for record in records]
    assert {(c.command_id, c.reason, c.expected_epoch, c.actor) for c in commands} == {
        ("gone:ep_1:3", "gone", 3, "health")
    }
    assert [r.headers[headers.CAUSE] for r in records] == [
        headers.cause("attempts", 0, offset) for offset in (0, 1)
    ]
    assert committed(world, 0) == 2


def test_other_attempts_ask_for_nothing(world: World) -> None:
    """They are passed by, unread."""
    append(world, 0, b"not even read", error_class=b"http_5xx")
    work(world)
    assert asked(world) == []
    assert committed(world, 0) == 1


def test_what_a_newer_hooklog_wrote_is_waited_before(world: World) -> None:
    """Its partition stops there, uncommitted, counted once; the other partition goes on."""
    before = held()
    for value in (attempted("ep_1"), NEWER, attempted("ep_2")):
        append(world, 0, value)
    work(world)
    append(world, 0, attempted("ep_3"))
    append(world, 1, attempted("ep_4"))
    work(world)
    assert asked(world) == ["ep_1", "ep_4"]
    assert (committed(world, 0), committed(world, 1)) == (1, 1)
    assert held() == before + 1


def test_a_delivery_of_a_newer_hooklog_is_waited_for_too(world: World) -> None:
    """The attempt can be read, what is inside cannot."""
    attempt = CODEC.decode_as(AttemptFinished, attempted("ep_1"))
    inside = CODEC.encode(attempt).replace(attempt.delivery[:10], NEWER)
    append(world, 0, inside)
    work(world)
    assert asked(world) == []
    assert committed(world, 0) == 0


def test_leaving_commits_nothing_of_what_was_held(world: World) -> None:
    """A clean stop keeps the place, and the next process meets the record again."""
    append(world, 0, attempted("ep_1"))
    append(world, 0, NEWER)
    work(world)
    before = held()
    world.health.close()
    world.start("health")
    work(world)
    assert committed(world, 0) == 1
    assert held() == before + 1
