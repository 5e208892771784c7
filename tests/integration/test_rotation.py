"""Rotating a secret, changing an endpoint from several sides at once, and the catalogue's routes."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from engine.api.models import HEADER_MASK
from engine.core.change import EndpointUpdated
from engine.core.endpoint import active_secrets
from engine.runtime.memory import MemoryLog
from tests.integration.api_fixtures import PARTITIONS, Api, Ask, fields, make_context, running
from tests.integration.api_fixtures import shared_api as api

__all__ = ["api"]

URL = "https://hooks.example.com/in"
FIRST = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECOND = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def endpoint(api: Api, **settings: object) -> str:
    """Create an endpoint; its path."""
    made = api.ask("POST", "/v1/endpoints", {"tenant": "acme", "url": URL, **settings})
    assert made.status_code == 201, made.text
    return made.headers["location"]


def signing(api: Api, path: str, at: int) -> list[str]:
    """Secrets that sign at a time, newest first."""
    known = api.services.configuration.endpoints[path.rpartition("/")[2]]
    keyring = api.services.configuration.keyring
    return [keyring.open(known.tenant, known.id, secret) for secret in active_secrets(known, at)]


def micros(time_text: str) -> int:
    """RFC 3339 -> microseconds; the API shows milliseconds."""
    return int(datetime.fromisoformat(time_text).timestamp() * 1_000_000)


def test_a_rotated_secret_signs_from_effective_at_on_and_is_shown_once(api: Api) -> None:
    """Within 200 ms of the answer, not before; without an overlap the old one ends there."""
    path = endpoint(api, secret=FIRST)
    answer = api.ask("POST", f"{path}/rotate-secret", {"secret": SECOND, "overlap_seconds": 0})
    assert answer.status_code == 200, answer.text
    assert answer.json()["secret"] == SECOND
    effective_at = micros(answer.json()["effective_at"])
    assert 0 <= effective_at - time.time_ns() // 1_000 + 1_000_000 <= 1_300_000
    assert signing(api, path, effective_at - 2_000) == [FIRST]
    assert signing(api, path, effective_at + 2_000) == [SECOND]
    assert SECOND not in api.ask("GET", path).text


def test_an_overlap_lets_both_sign_for_so_long(api: Api) -> None:
    """Newest first; afterwards the new one alone."""
    path = endpoint(api, secret=FIRST)
    answer = api.ask("POST", f"{path}/rotate-secret", {"overlap_seconds": 60}).json()
    effective_at = micros(answer["effective_at"])
    assert answer["secret"].startswith("whsec_")
    assert signing(api, path, effective_at + 59_000_000) == [answer["secret"], FIRST]
    assert signing(api, path, effective_at + 61_000_000) == [answer["secret"]]


@pytest.mark.parametrize("profile", ["baxcloud", "bedrud"])
def test_where_one_signature_is_sent_an_overlap_is_refused_in_clear_words(api: Api, profile: str) -> None:
    """422 that says why; without one, or with 0, it rotates, to a secret the profile generates."""
    path = endpoint(api, profile=profile)
    refused = api.ask("POST", f"{path}/rotate-secret", {"overlap_seconds": 1})
    assert fields(refused) == ["overlap_seconds"]
    assert profile in refused.json()["detail"]
    assert api.ask("POST", f"{path}/rotate-secret").status_code == 200
    assert api.ask("POST", f"{path}/rotate-secret", {"overlap_seconds": 0}).status_code == 200


def test_a_repeated_rotation_rotates_once_and_shows_no_secret(api: Api) -> None:
    """The same Idempotency-Key: the same time, no secret, no third secret."""
    path = endpoint(api)
    first = api.ask("POST", f"{path}/rotate-secret", {}, idempotency_key="r").json()
    again = api.ask("POST", f"{path}/rotate-secret", {}, idempotency_key="r").json()
    assert again == {"effective_at": first["effective_at"]}
    assert len(api.services.configuration.endpoints[path.rpartition("/")[2]].secrets) == 2


def test_rotations_at_once_all_happen_and_each_answer_shows_its_own(api: Api) -> None:
    """Different secrets; the endpoint has all of them while they overlap."""
    path = endpoint(api)
    ask = Ask("POST", f"{path}/rotate-secret", {"overlap_seconds": 60})
    shown = [answer.json()["secret"] for answer in api.together(ask, ask, ask)]
    assert len(set(shown)) == 3
    now = time.time_ns() // 1_000 + 2_000_000
    assert set(shown) <= set(signing(api, path, now))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"secret": "CANARY"}, "secret"),
        ({"secret": None, "overlap_seconds": -1}, "overlap_seconds"),
        ({"overlap_seconds": 10**9}, "overlap_seconds"),
        ({"overlap_seconds": 1.5}, "overlap_seconds"),
        ({"effective_at": "now"}, "effective_at"),
    ],
)
def test_a_wrong_field_of_a_rotation_is_named(api: Api, body: object, field: str) -> None:
    """422 without the secret; the endpoint keeps the one it has."""
    path = endpoint(api)
    answer = api.ask("POST", f"{path}/rotate-secret", body)
    assert fields(answer) == [field]
    assert "CANARY" not in answer.text
    assert len(api.services.configuration.endpoints[path.rpartition("/")[2]].secrets) == 1


def test_a_patch_does_not_take_a_secret_and_says_what_does(api: Api) -> None:
    """422 that names the route, without the secret."""
    path = endpoint(api)
    answer = api.ask("PATCH", path, {"secret": SECOND, "description": "x"})
    assert fields(answer) == ["secret"]
    assert f"{path}/rotate-secret" in answer.json()["detail"]
    assert SECOND not in answer.text
    assert api.ask("GET", path).json()["description"] == ""


def test_of_patches_at_once_none_is_lost(api: Api) -> None:
    """Fields that nobody else names are all as asked; of one that several name, the last decided stays."""
    path = endpoint(api)
    described_by: list[dict[str, object]] = [{"description": f"by {n}"} for n in range(8)]
    changes: list[dict[str, object]] = [
        *described_by,
        {"timeout_ms": 700},
        {"rate_limit": 2.5},
        {"event_types": ["a.*"]},
        {"headers": {"X-A": "1"}},
        {"retry_policy": ["1s"]},
        {"enabled": False},
    ]
    answers = api.together(*(Ask("PATCH", path, change) for change in changes))
    assert [answer.status_code for answer in answers] == [200] * len(changes)
    now = api.ask("GET", path).json()
    assert now.pop("headers") == {"X-A": HEADER_MASK}
    now["headers"] = {"X-A": "1"}
    for change in changes[8:]:
        assert {name: now[name] for name in change} == change
    log = api.context.log
    assert isinstance(log, MemoryLog)
    records = [record for n in range(PARTITIONS) for record in log.records(("changes", n))]
    facts = [api.context.codec.decode(record.value) for record in records]
    id = path.rpartition("/")[2]
    updates = [fact for fact in facts if isinstance(fact, EndpointUpdated) and fact.endpoint_id == id]
    described = [fact.settings.description for fact in updates if fact.fields == ("description",)]
    assert sorted(described) == [f"by {n}" for n in range(8)]
    assert now["description"] == described[-1]
    assert sorted(fact.version for fact in updates) == [fact.version for fact in updates]


TYPE = {
    "description": "A room has ended.",
    "schema": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
    "example": {"id": "r", "n": 1.0},
}


def test_an_event_type_is_put_replaced_listed_and_deleted(api: Api) -> None:
    """As it was given; in order of the names, page by page; a second deletion finds none."""
    for name in ("room.ended", "a/b", "room.began"):
        put = api.ask("PUT", f"/v1/event-types/{name}", TYPE)
        assert put.status_code == 200, put.text
        assert put.json() == {"name": name, **TYPE, "updated_at": put.json()["updated_at"]}
    bare = api.ask("PUT", "/v1/event-types/room.began", {}).json()
    assert (bare["schema"], bare["description"], "example" in bare) == (None, "", False)
    first = api.ask("GET", "/v1/event-types?limit=2").json()
    second = api.ask("GET", f"/v1/event-types?limit=2&cursor={first['next']}").json()
    names = [each["name"] for each in first["data"] + second["data"]]
    assert (names, second["next"]) == (["a/b", "room.began", "room.ended"], None)
    assert '"n":1.0' in api.ask("GET", "/v1/event-types").text
    assert api.ask("DELETE", "/v1/event-types/a/b").status_code == 204
    assert api.ask("DELETE", "/v1/event-types/a/b").status_code == 404
    assert [each["name"] for each in api.ask("GET", "/v1/event-types").json()["data"]] == names[1:]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"schema": {"type": "objekt"}}, "schema"),
        ({"schema": []}, "schema"),
        ({"schema": {"$ref": "http://127.0.0.1:9/schema"}}, "schema"),
        ({"schema": {"$ref": "file:///etc/passwd"}}, "schema"),
        ({"schema": TYPE["schema"], "example": {"id": 1}}, "example.id"),
        ({"schema": TYPE["schema"], "example": {}}, "example.id"),
        ({"description": "\0"}, "description"),
        ({"name": "other"}, "name"),
    ],
)
def test_what_is_wrong_with_an_event_type_is_named(api: Api, body: object, field: str) -> None:
    """422, nothing fetched, and the catalogue stays as it was."""
    before = dict(api.services.configuration.event_types)
    answer = api.ask("PUT", "/v1/event-types/wrong", body)
    assert fields(answer) == [field]
    assert api.services.configuration.event_types == before


def test_an_example_that_is_too_long_is_named() -> None:
    """By the catalogue's own limit, where the body is below that of bodies."""
    settings = make_context().settings.model_copy(update={"payload_max": 256 << 10})
    with running(make_context(settings)) as api:
        assert fields(api.ask("PUT", "/v1/event-types/long", {"example": "x" * 70_000})) == ["example"]
        assert api.services.configuration.event_types == {}


@pytest.mark.parametrize("name", ["a%20b", "a*", "%C3%A9", "x" * 257])
def test_a_name_that_no_message_can_have_is_refused(api: Api, name: str) -> None:
    """422 that names it."""
    assert fields(api.ask("PUT", f"/v1/event-types/{name}", {})) == ["name"]
