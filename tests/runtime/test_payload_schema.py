"""Payloads against the schemas of the catalogue: which are right, where the others are wrong."""

from __future__ import annotations

import json
import socket
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.directory import EventType
from engine.core.model import MessagePublished
from engine.core.payload import InvalidPayloadError, check_payload
from engine.core.profile import Profile, render
from engine.runtime.configuration.catalogues import names, shipped
from engine.runtime.configuration.payload_schema import Broken, PayloadSchema, broken, check_event_type
from engine.runtime.configuration.profiles import load_profiles

PROFILES = load_profiles()
SHIPPED = [event_type for name in names() for event_type in shipped(name)]
MEETINGBAAS = {event_type.name: event_type for event_type in shipped("meetingbaas")}
ROOM = EventType(
    "room.ended",
    schema=json.dumps(
        {
            "type": "object",
            "required": ["id"],
            "properties": {
                "id": {"type": "string", "pattern": "^r", "maxLength": 9},
                "n": {"type": "integer", "maximum": 10**30},
                "people": {"type": "array", "items": {"properties": {"full name": {"type": "string"}}}},
                "deep": {"$ref": "#/$defs/nested"},
            },
            "$defs": {"nested": {"type": ["array", "integer"], "items": {"$ref": "#/$defs/nested"}}},
        }
    ),
)


def message(event_type: str, payload: bytes) -> MessagePublished:
    """A message of a type."""
    return MessagePublished("acme", "msg_1", event_type, payload, 0)


@pytest.mark.parametrize(
    "payload",
    [
        '{"id":"r1"}',
        '{"id":"r1","n":1.0,"other":[null]}',
        '{"id":"r1234567\\ud800","\\udfff":"\\udfff"}',
        '{"id":"r1","n":' + "1" * 30 + "}",
        '{"id":"r1","people":[{},{"full name":"José"},7]}',
        '{"id":"r1","deep":' + "[" * 490 + "1" + "]" * 490 + "}",
        '{"id":7,"id":"r1"}',
    ],
)
def test_right_payloads(payload: str) -> None:
    """Whatever the schema does not speak of is allowed; a number is whole however it is written."""
    check_payload(payload.encode())
    assert broken({ROOM.name: ROOM}, "refuse", message(ROOM.name, payload.encode())) is None


@pytest.mark.parametrize(
    ("payload", "path", "rule"),
    [
        ("", "payload.id", "is required"),
        ("{}", "payload.id", "is required"),
        ("[]", "payload", 'type "object"'),
        ("null", "payload", 'type "object"'),
        ('{"id":7}', "payload.id", 'type "string"'),
        ('{"id":"s1"}', "payload.id", 'does not match "^r"'),
        ('{"id":"r123456789"}', "payload.id", "longer than 9"),
        ('{"id":"r1","n":1.5}', "payload.n", 'type "integer"'),
        ('{"id":"r1","n":1e400}', "payload.n", 'type "integer"'),
        ('{"id":"r1","n":' + "1" * 32 + "}", "payload.n", "maximum"),
        ('{"id":"r1","n":' + "1" * 5_000 + "}", "payload", "4,300 digits"),
        ('{"id":"s\\ud800","\\ud800":1}', "payload.id", 'does not match "^r"'),
        ('{"id":"r1","people":[{},{"full name":1}]}', 'payload.people[1]["full name"]', 'type "string"'),
        ('{"id":"r1","deep":[[],[[true]]]}', "payload.deep[1][0][0]", "types"),
        ('{"id":"r1","id":7}', "payload.id", 'type "string"'),
    ],
)
def test_wrong_payloads(payload: str, path: str, rule: str) -> None:
    """The path and the rule are named."""
    check_payload(payload.encode())
    found = broken({ROOM.name: ROOM}, "allow", message(ROOM.name, payload.encode()))
    assert found is not None
    assert (found.reason, found.path) == ("schema", path)
    assert rule in found.rule


def test_the_value_itself_is_not_repeated() -> None:
    """A payload is a customer's own: it is not in errors, which end up in logs and answers."""
    payload = b'{"id":"canary-0123456789","n":"canary-2"}'
    for text in (payload, b'{"id":["canary"]}', b'{"id":"r1","people":"canary"}'):
        found = broken({ROOM.name: ROOM}, "allow", message(ROOM.name, text))
        assert found is not None
        assert "canary" not in f"{found}"


def test_unknown_types() -> None:
    """Allowed or refused, as the setting says; a known one without a schema takes anything."""
    known = {"a": EventType("a")}
    assert broken(known, "allow", message("b", b"1")) is None
    assert broken(known, "refuse", message("a", b"1")) is None
    assert broken(known, "refuse", message("b", b"1")) == Broken(
        "event_type", "event_type", "b is not in the catalogue"
    )


def test_a_new_version_is_used_at_once() -> None:
    """What is compiled belongs to a schema's text, not to a type's name."""
    strict = replace(ROOM, schema='{"maxProperties":0}')
    payload = b'{"id":"r1"}'
    assert broken({ROOM.name: ROOM}, "allow", message(ROOM.name, payload)) is None
    assert broken({ROOM.name: strict}, "allow", message(ROOM.name, payload)) is not None
    assert broken({ROOM.name: ROOM}, "allow", message(ROOM.name, payload)) is None


@pytest.mark.parametrize(
    "schema",
    ["{", '{"type":"objct"}', '{"pattern":"("}', '{"$ref":"https://example.com/"}', "true", "\ud800"],
)
def test_an_unusable_schema_on_the_log_is_no_schema(schema: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Messages go on; that one line of the log says which type and why is for people."""
    type_name = f"broken.{len(schema)}"
    known = {type_name: EventType(type_name, schema=schema)}
    assert broken(known, "refuse", message(type_name, b"[]")) is None
    assert broken(known, "refuse", message(type_name, b"{}")) is None
    assert capfd.readouterr().err.count("event_type.schema_unusable") <= 1


@pytest.mark.parametrize(
    ("schema", "example", "said"),
    [
        ('{"type":"objct"}', "", "schema: is no JSON Schema: schema.type: the value is not valid"),
        ('{"properties":{"a":{"minLength":-1}}}', "", "schema.properties.a.minLength"),
        ('{"pattern":"("}', "", 'schema.pattern: the value is not a "regex"'),
        ('{"pattern":"(?=a)a"}', "", 'not a "regex"'),
        ('{"pattern":"(a)\\\\1"}', "", 'not a "regex"'),
        ('{"pattern":"((a{1,100}){1,100}){1,100}"}', "", 'not a "regex"'),
        ('{"$schema":"https://example.com/mine"}', "", "meta-schema"),
        ('{"title":"\\ud800"}', "", "UTF-8"),
        ('{"required":["id"]}', '{"ID":1}', "example.id: is required"),
        ('{"items":{"type":"null"}}', "[1]", "example[0]: the value is not of type"),
        ("[]", "", "schema: must be a JSON Schema"),
    ],
)
def test_what_cannot_be_put_into_the_catalogue(schema: str, example: str, said: str) -> None:
    """The API says what is wrong before anything is kept."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011  what it says is checked
        check_event_type(EventType("a", schema=schema, example=example))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "pattern", ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "^([a-z]+)*$", "(.*a){20}", "^(.*)*$"]
)
def test_no_pattern_takes_exponential_time(pattern: str) -> None:
    """A backtracking engine would be at it for years; this test ends."""
    schema = PayloadSchema(json.dumps({"pattern": pattern}))
    schema.check(json.dumps("a" * 50_000 + "!").encode())


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.text(max_size=4) | st.sampled_from("\ud800\udfff"), inner, max_size=4)
        ),
    )
)
def test_any_payload_is_judged(value: object) -> None:
    """Yes, or a path and a rule: nothing else comes out."""
    payload = json.dumps(value).encode()
    for event_type in MEETINGBAAS.values():
        found = broken(MEETINGBAAS, "allow", message(event_type.name, payload))
        assert found is None or found.path.startswith("payload")


@pytest.mark.parametrize("event_type", SHIPPED, ids=lambda each: each.name)
def test_shipped_types(event_type: EventType) -> None:
    """Each has a description, and an example that follows its schema."""
    assert event_type.description.endswith(".")
    assert event_type.schema
    assert event_type.example
    check_event_type(event_type)


def test_the_types_that_the_platforms_document() -> None:
    """All of them, and no other."""
    room = ["room.created", "room.started", "room.ended", "room.deleted"]
    people = ["participant.joined", "participant.left", "participant.updated"]
    recording = ["recording.started", "recording.stopped", "recording.available"]
    assert [t.name for t in shipped("baxcloud")] == [
        *room, *people, *recording, "stream.started", "stream.ended"
    ]  # fmt: skip
    assert [t.name for t in shipped("bedrud")] == [
        "room.ended", "participant.joined", "participant.left", "recording.completed"
    ]  # fmt: skip
    assert [t.name for t in shipped("meetingbaas")] == [
        "meeting.started", "meeting.completed", "meeting.failed", "transcription.available",
        "transcription.updated", "calendar.synced", "event.added", "event.updated", "event.deleted"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="there are baxcloud, bedrud, meetingbaas"):
        shipped("../profiles/standard")


@pytest.mark.parametrize(
    ("event_type", "field"),
    [
        ("meeting.completed", "bot_id"),
        ("meeting.completed", "transcript"),
        ("meeting.completed", "mp4"),
        ("meeting.failed", "bot_id"),
        ("meeting.failed", "error"),
        ("meeting.failed", "message"),
        ("transcription.available", "bot_id"),
    ],
)
def test_meetingbaas_needs_what_its_python_handlers_read(event_type: str, field: str) -> None:
    """Without that field they would answer 500: the message is refused instead."""
    example = json.loads(MEETINGBAAS[event_type].example)
    whole = message(event_type, json.dumps(example).encode())
    assert broken(MEETINGBAAS, "refuse", whole) is None
    del example[field]
    assert broken(MEETINGBAAS, "refuse", message(event_type, json.dumps(example).encode())) == Broken(
        "schema", f"payload.{field}", "is required"
    )


def test_bedrud_and_baxcloud_can_be_run_together() -> None:
    """They have types of the same names: whichever was loaded last takes the other's payloads too."""
    ours = [shipped("baxcloud"), shipped("bedrud")]
    for first, second in (ours, reversed(ours)):
        known = {event_type.name: event_type for event_type in (*first, *second)}
        for event_type in (*first, *second):
            assert broken(known, "refuse", message(event_type.name, event_type.example.encode())) is None


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda each: each.name)
def test_every_example_can_be_rendered(profile: Profile) -> None:
    """A test send of a type carries its example."""
    for event_type in SHIPPED:
        body = render(profile, message(event_type.name, event_type.example.encode()))
        try:
            check_payload(body)
        except InvalidPayloadError as error:
            pytest.fail(f"{event_type.name}: {error}")


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that a schema names is not asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        at = f"http://127.0.0.1:{server.getsockname()[1]}/schema.json"
        for schema in (
            {"$ref": at},
            {"$schema": at},
            {"$id": at, "$ref": "x.json"},
            {"allOf": [{"$ref": at}]},
        ):
            with pytest.raises(ValueError, match="schema"):
                check_event_type(EventType("a", schema=json.dumps(schema)))
        with pytest.raises(BlockingIOError):
            server.accept()
