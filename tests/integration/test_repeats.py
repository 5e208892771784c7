"""An Idempotency-Key that comes again with another request: 422, and nothing is done a second time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import httpx
import pytest

from tests.integration.api_fixtures import Api, Ask, fields, published
from tests.integration.api_fixtures import shared_api as api

__all__ = ["api"]

URL = "https://hooks.example.com/in"
MESSAGE: Mapping[str, object] = {"tenant": "acme", "event_type": "a.b", "payload": {"n": 1}}
FIRST = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECOND = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


@pytest.fixture
def other(api: Api) -> Iterator[Api]:
    """Another process of the API over the same log: what the first has only in memory it does not know."""
    made = Api(api.context)
    yield made
    made.close()


def refused(answer: httpx.Response) -> None:
    """It is 422, and the header is what is wrong."""
    assert fields(answer) == ["Idempotency-Key"]
    assert "another request" in answer.json()["detail"]


def endpoint(api: Api) -> str:
    """Create an endpoint; its path."""
    made = api.ask("POST", "/v1/endpoints", {"tenant": "acme", "url": URL})
    assert made.status_code == 201, made.text
    return made.headers["location"]


@pytest.mark.parametrize(
    "changed",
    [{"payload": {"n": 2}}, {"event_type": "a.c"}, {"tenant": "other"}, {"id": "m-1"}, {"ordering_key": "o"}],
)
def test_another_message_under_a_key_is_refused_and_not_published(
    api: Api, changed: Mapping[str, object]
) -> None:
    """The same message again is answered as before."""
    key = f"message {changed}"
    first = api.ask("POST", "/v1/messages", MESSAGE, idempotency_key=key)
    assert api.ask("POST", "/v1/messages", MESSAGE, idempotency_key=key).json() == first.json()
    before = len(published(api))
    refused(api.ask("POST", "/v1/messages", {**MESSAGE, **changed}, idempotency_key=key))
    assert len(published(api)) == before


def test_of_two_messages_at_once_under_a_key_one_is_refused(api: Api) -> None:
    """Whichever comes second."""
    asks = [
        Ask("POST", "/v1/messages", {**MESSAGE, "payload": n}, headers={"Idempotency-Key": "at once"})
        for n in range(2)
    ]
    assert sorted(answer.status_code for answer in api.together(*asks)) == [202, 422]


def test_a_request_that_was_refused_uses_no_key(api: Api) -> None:
    """What was wrong with it is mended under the same key."""
    wrong = api.ask("POST", "/v1/messages", {**MESSAGE, "event_type": "a b"}, idempotency_key="mended")
    assert fields(wrong) == ["event_type"]
    assert api.ask("POST", "/v1/messages", MESSAGE, idempotency_key="mended").status_code == 202


def test_a_batch_under_a_key_is_the_same_or_refused(api: Api) -> None:
    """One of which an item was refused may come again with that item mended."""
    path, other = "/v1/messages/batch", {**MESSAGE, "payload": 2}
    assert api.ask("POST", path, {"messages": [MESSAGE]}, idempotency_key="b").status_code == 202
    assert api.ask("POST", path, {"messages": [MESSAGE]}, idempotency_key="b").status_code == 202
    refused(api.ask("POST", path, {"messages": [MESSAGE, other]}, idempotency_key="b"))
    refused(api.ask("POST", path, {"messages": [other]}, idempotency_key="b"))
    partly = {"messages": [MESSAGE, {**other, "event_type": "a b"}]}
    accepted = api.ask("POST", path, partly, idempotency_key="p")
    mended = api.ask("POST", path, {"messages": [MESSAGE, other]}, idempotency_key="p")
    assert (accepted.status_code, mended.status_code) == (207, 202)
    assert accepted.json()["data"][0] == mended.json()["data"][0]


def test_a_key_on_another_route_is_refused(api: Api) -> None:
    """Whatever the two routes are; another caller's key of the same words is another key."""
    path = endpoint(api)
    assert api.ask("POST", "/v1/messages", MESSAGE, idempotency_key="route").status_code == 202
    routes: Mapping[str, object] = {
        "/v1/messages/batch": {"messages": [MESSAGE]},
        "/v1/endpoints": {"tenant": "acme", "url": URL},
        "/v1/tenants": {"id": "on-another-route"},
        "/v1/keys": {"scopes": ["read"]},
        f"{path}/disable": None,
        f"{path}/rotate-secret": {},
        f"{path}/test": {"event_type": "ping"},
    }
    for route, body in routes.items():
        refused(api.ask("POST", route, body, idempotency_key="route"))
    assert api.ask("GET", path).json()["enabled"] is True
    headers = {"Authorization": f"Bearer {api.new_key('publish')}", "Idempotency-Key": "route"}
    (answer,) = api.together(Ask("POST", "/v1/messages", {**MESSAGE, "payload": 3}, headers=headers))
    assert answer.status_code == 202


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"secret": FIRST}, {"secret": SECOND}),
        ({}, {"secret": SECOND}),
        ({"overlap_seconds": 60}, {"overlap_seconds": 61}),
        ({"overlap_seconds": 60}, {}),
    ],
)
def test_another_rotation_under_a_key_is_refused(
    api: Api, other: Api, first: Mapping[str, object], second: Mapping[str, object]
) -> None:
    """By the process that made the first one, and by one that finds it on the log."""
    path = f"{endpoint(api)}/rotate-secret"
    made = api.ask("POST", path, first, idempotency_key=path)
    assert made.status_code == 200, made.text
    for process in (api, other):
        refused(process.ask("POST", path, second, idempotency_key=path))
        again = process.ask("POST", path, first, idempotency_key=path)
        assert again.json() == {"effective_at": made.json()["effective_at"]}, again.text
    assert len(api.services.configuration.endpoints[path.split("/")[3]].secrets) == 2


def test_a_rotation_that_leaves_the_chosen_secret_out_is_another(api: Api) -> None:
    """As far as this process knows what was chosen."""
    path = f"{endpoint(api)}/rotate-secret"
    assert api.ask("POST", path, {"secret": FIRST}, idempotency_key="left out").status_code == 200
    refused(api.ask("POST", path, {}, idempotency_key="left out"))


def test_another_process_finds_tenants_and_keys_on_the_log(api: Api, other: Api) -> None:
    """And makes nothing of the second request."""
    first, second = {"id": "found", "name": "F"}, {"id": "found", "name": "G"}
    assert api.ask("POST", "/v1/tenants", first, idempotency_key="found").status_code == 201
    refused(other.ask("POST", "/v1/tenants", second, idempotency_key="found"))
    assert api.ask("POST", "/v1/keys", {"scopes": ["read"]}, idempotency_key="key").status_code == 201
    refused(other.ask("POST", "/v1/keys", {"scopes": ["admin"]}, idempotency_key="key"))


def test_an_endpoint_under_a_used_key_makes_no_tenant(api: Api) -> None:
    """The refusal comes before anything is written."""
    body = {"tenant": "acme", "url": URL}
    assert api.ask("POST", "/v1/endpoints", body, idempotency_key="tenant").status_code == 201
    refused(api.ask("POST", "/v1/endpoints", {**body, "tenant": "nevermade"}, idempotency_key="tenant"))
    assert "nevermade" not in api.services.configuration.tenants
