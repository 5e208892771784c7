"""The router and the catalogue: what fails a schema goes to `invalid`, and is never delivered."""

from __future__ import annotations

import json

import pytest

from engine.core.directory import EventType
from engine.core.model import Answer, InvalidRecord
from engine.core.routing import partition_of
from engine.ports import Output
from tests.pipeline.world import CODEC, PARTITIONS, World, a_world

NEEDS_ID = json.dumps({"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}})


def put(world: World, name: str, schema: str = "") -> None:
    """Write an event type as the control group does."""
    key = f"event_type:{name}"
    value = CODEC.encode(EventType(name, "", schema))
    world.log.append(Output("directory", partition_of(key, PARTITIONS), key.encode(), value))


def delete(world: World, name: str) -> None:
    """Take it out again."""
    key = f"event_type:{name}"
    world.log.append(Output("directory", partition_of(key, PARTITIONS), key.encode(), None))


def refused(world: World) -> dict[int, tuple[str, str]]:
    """Payload's length -> reason and detail, of what is on `invalid`."""
    records = [CODEC.decode_as(InvalidRecord, record.value) for record in world.records("invalid")]
    return {each.offset: (each.reason, each.detail) for each in records}


def verdicts(world: World) -> dict[str, str]:
    """Message id (empty if invalid) -> verdict."""
    routings = [routing for batch in world.batches() for routing in batch.routings]
    return {routing.message_id: routing.verdict for routing in routings}


def test_what_fails_its_schema_is_never_delivered() -> None:
    """It is on `invalid` with reason `schema` and the path; a right one of the same type is delivered."""
    with a_world(lambda path, seen: Answer(200)) as world:
        world.create_endpoint("ok")
        put(world, "room.ended", NEEDS_ID)
        world.run(2)
        wrong = world.publish("wrong", payload=b'{"id":7}')
        world.publish("right", payload=b'{"id":"r1"}')
        world.publish("other", "room.started", b"[]")
        world.run(3)
        assert refused(world) == {wrong: ("schema", 'payload.id: the value is not of type "string"')}
        assert verdicts(world) == {"": "invalid", "right": "routed", "other": "routed"}
        assert {delivery.message_id for delivery in world.deliveries()} == {"right", "other"}


def test_unknown_types_are_refused_where_the_setting_says_so() -> None:
    """Reason `event_type`; one in the catalogue goes through, without a schema too."""
    with a_world(lambda path, seen: Answer(200), unknown_event_types="refuse") as world:
        world.create_endpoint("ok")
        put(world, "room.ended")
        world.run(2)
        wrong = world.publish("wrong", "room.exploded")
        world.publish("right", "room.ended")
        world.run(3)
        assert refused(world) == {wrong: ("event_type", "event_type: room.exploded is not in the catalogue")}
        assert {delivery.message_id for delivery in world.deliveries()} == {"right"}


@pytest.mark.parametrize("setting", ["allow", "refuse"])
def test_a_change_of_the_catalogue_holds_for_what_is_published_after_it(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A router whose view is behind asks the log before it refuses what the API has accepted."""
    with a_world(lambda path, seen: Answer(200), unknown_event_types=setting) as world:
        world.create_endpoint("ok")
        put(world, "room.ended", '{"type":"null"}')
        world.run(2)
        poll = world.router.processor.poll

        def late(timeout: float, limit: int) -> object:
            """The view has been followed; the messages have not been read."""
            put(world, "room.ended", NEEDS_ID)
            put(world, "room.new")
            world.publish("late", payload=b'{"id":"r1"}')
            world.publish("new", "room.new")
            monkeypatch.undo()
            return poll(timeout, limit)

        monkeypatch.setattr(world.router.processor, "poll", late)
        world.run(3)
        assert refused(world) == {}
        assert {delivery.message_id for delivery in world.deliveries()} == {"late", "new"}


def test_a_broken_schema_on_the_log_stops_nothing() -> None:
    """The type counts as one without a schema, and can be replaced or deleted."""
    with a_world(lambda path, seen: Answer(200)) as world:
        world.create_endpoint("ok")
        put(world, "room.ended", '{"type":"objct","$ref":"https://example.com/x"}')
        world.run(2)
        world.publish("a", payload=b"[]")
        world.run(2)
        put(world, "room.ended", NEEDS_ID)
        world.run(1)
        wrong = world.publish("b", payload=b"[]")
        world.run(2)
        delete(world, "room.ended")
        world.run(1)
        world.publish("c", payload=b"[]")
        world.run(2)
        assert list(refused(world)) == [wrong]
        assert {delivery.message_id for delivery in world.deliveries()} == {"a", "c"}


def test_what_was_routed_before_a_kill_stays_routed() -> None:
    """A schema that came meanwhile does not make a message invalid that has deliveries on the log."""
    with a_world(lambda path, seen: Answer(200)) as world:
        world.create_endpoint("ok")
        world.run(2)
        world.publish("a", payload=b"[]")
        while not world.records("deliveries"):
            world.router.step()
        assert not world.records("routings")
        put(world, "room.ended", NEEDS_ID)
        world.kill("router")
        world.run(3)
        assert refused(world) == {}
        assert verdicts(world) == {"a": "routed"}
        assert [delivery.message_id for delivery in world.deliveries()] == ["a"]
