"""POST /v1/messages and the catalogue: 422 names the path that failed and the rule."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.core.routing import partition_of
from engine.ports import Output
from engine.runtime.configuration.catalogues import shipped
from engine.runtime.memory import MemoryLog
from tests.integration.api_fixtures import PARTITIONS, Api, make_context, published, running

BOT = {"bot_id": "b", "transcript": [], "mp4": "https://example.com/v.mp4"}


def a_catalogue(unknown: str) -> Iterator[Api]:
    """An API that knows Meeting BaaS's event types."""
    settings = make_context().settings.model_copy(update={"unknown_event_types": unknown})
    context = make_context(settings)
    log = context.log
    assert isinstance(log, MemoryLog)
    for event_type in shipped("meetingbaas"):
        key = f"event_type:{event_type.name}"
        output = Output(
            "directory", partition_of(key, PARTITIONS), key.encode(), context.codec.encode(event_type)
        )
        log.append(output)
    with running(context) as api:
        yield api


@pytest.fixture(scope="module")
def allowing() -> Iterator[Api]:
    """Unknown event types are allowed."""
    yield from a_catalogue("allow")


@pytest.fixture(scope="module")
def refusing() -> Iterator[Api]:
    """Unknown event types are refused."""
    yield from a_catalogue("refuse")


def message(event_type: str, payload: object) -> dict[str, object]:
    """A message to publish."""
    return {"tenant": "acme", "event_type": event_type, "payload": payload}


@pytest.mark.parametrize(
    ("payload", "field", "rule"),
    [
        ({"bot_id": "b", "transcript": []}, "payload.mp4", "is required"),
        ([], "payload", 'the value is not of type "object"'),
        (BOT | {"mp4": 1}, "payload.mp4", 'the value is not of type "string"'),
        (BOT | {"transcript": [{}, "x"]}, "payload.transcript[1]", 'the value is not of type "object"'),
        (BOT | {"speakers": [None]}, "payload.speakers[0]", 'the value is not of type "string"'),
    ],
)
def test_a_payload_that_fails_its_schema(allowing: Api, payload: object, field: str, rule: str) -> None:
    """422 with the path and the rule, and nothing on the log."""
    before = len(published(allowing))
    answer = allowing.ask("POST", "/v1/messages", message("meeting.completed", payload))
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": field, "message": rule}]
    assert answer.json()["detail"] == f"{field}: {rule}"
    assert len(published(allowing)) == before


def test_what_follows_its_schema_is_accepted(allowing: Api) -> None:
    """So is a type that has none, and one that nobody has heard of."""
    for event_type, payload in (("meeting.completed", BOT), ("calendar.synced", {}), ("room.exploded", 1)):
        assert allowing.ask("POST", "/v1/messages", message(event_type, payload)).status_code == 202


def test_unknown_types_can_be_refused(refusing: Api) -> None:
    """By setting: then only the catalogue's are accepted."""
    answer = refusing.ask("POST", "/v1/messages", message("meeting.exploded", {}))
    assert answer.status_code == 422
    assert answer.json()["detail"] == "event_type: meeting.exploded is not in the catalogue"
    assert refusing.ask("POST", "/v1/messages", message("meeting.started", {})).status_code == 202


def test_each_message_of_a_batch_is_judged_by_itself(refusing: Api) -> None:
    """The right ones are accepted; each wrong one has its own path."""
    batch = [message("meeting.completed", BOT), message("meeting.failed", {"bot_id": "b"}), message("x", {})]
    answer = refusing.ask("POST", "/v1/messages/batch", {"messages": batch})
    assert answer.status_code == 207
    first, second, third = answer.json()["data"]
    assert first["status"] == 202
    assert (second["status"], second["errors"][0]["field"]) == (422, "payload.error")
    assert (third["status"], third["errors"][0]["field"]) == (422, "event_type")
