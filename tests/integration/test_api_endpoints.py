"""Endpoints over the HTTP API, on a log in memory, with the real control group beside it."""

from __future__ import annotations

import pytest

from engine.core.endpoint import Endpoint
from tests.integration.api_fixtures import (
    PARTITIONS,
    Api,
    Ask,
    dev_context,
    fields,
    running,
)
from tests.integration.api_fixtures import shared_api as api

__all__ = ["api"]

URL = "https://hooks.example.com/in"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = {"tenant": "acme", "url": URL}


def test_an_endpoint_is_created_once_with_its_secret_and_shown_without(api: Api) -> None:
    """201 has the endpoint and its secret; no later answer has the secret."""
    settings = {
        "event_types": ["room.*", "meeting.completed"],
        "headers": {"X-Team": "a b"},
        "retry_policy": ["1s", "250ms", "2m"],
        "timeout_ms": 700,
        "rate_limit": 2.5,
        "description": "größer",
    }
    created = api.ask("POST", "/v1/endpoints", NEW | settings)
    assert created.status_code == 201
    shown = created.json()
    secret = shown.pop("secret")
    assert secret.startswith("whsec_")
    assert {name: shown[name] for name in settings} == settings | {"headers": {"X-Team": "********"}}
    got = api.ask("GET", created.headers["location"])
    assert got.json() == shown
    listed = api.ask("GET", "/v1/endpoints?tenant=acme&limit=500")
    assert shown in listed.json()["data"]
    assert secret not in listed.text + got.text


def test_the_secret_on_the_log_is_sealed_and_opens_to_what_was_given(api: Api) -> None:
    """The clear secret is in no record; the view's keyring opens the sealed one."""
    created = api.ask("POST", "/v1/endpoints", {"tenant": "sealed", "url": URL, "secret": SECRET}).json()
    assert created["secret"] == SECRET
    configuration = api.services.configuration
    endpoint = configuration.endpoints[created["id"]]
    assert configuration.keyring.open("sealed", endpoint.id, endpoint.secrets[0]) == SECRET
    log = api.services.context.log
    reader = log.reader()
    topics = ("commands", "changes", "endpoints", "directory")
    records = list(reader.read({(topic, n): 0 for topic in topics for n in range(PARTITIONS)}))
    assert records
    assert not any(SECRET.encode() in (record.value or b"") for record in records)


def test_a_repeat_under_an_idempotency_key_answers_the_same_endpoint_without_its_secret(api: Api) -> None:
    """The same body again: same endpoint, no secret. Another body: 422 that names the header."""
    first = api.ask("POST", "/v1/endpoints", NEW | {"description": "once"}, idempotency_key="k1")
    again = api.ask("POST", "/v1/endpoints", {"description": "once"} | NEW, idempotency_key="k1")
    other = api.ask("POST", "/v1/endpoints", NEW | {"description": "twice"}, idempotency_key="k1")
    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 422)
    assert again.json() == {name: value for name, value in first.json().items() if name != "secret"}
    assert fields(other) == ["Idempotency-Key"]


def test_of_two_requests_at_once_under_one_key_one_endpoint_comes_and_one_secret(api: Api) -> None:
    """Both answers name one endpoint; only the secret that it really has is shown."""
    ask = Ask("POST", "/v1/endpoints", {"tenant": "twins", "url": URL}, headers={"Idempotency-Key": "k2"})
    answers = [answer.json() for answer in api.together(ask, ask)]
    assert answers[0]["id"] == answers[1]["id"]
    endpoint: Endpoint = api.services.configuration.endpoints[answers[0]["id"]]
    real = api.services.configuration.keyring.open("twins", endpoint.id, endpoint.secrets[0])
    assert {answer["secret"] for answer in answers if "secret" in answer} == {real}


def test_changes_are_read_by_the_one_who_made_them(api: Api) -> None:
    """PATCH, disable, enable and delete show at once in the next GET."""
    path = api.ask("POST", "/v1/endpoints", NEW).headers["location"]
    patched = api.ask("PATCH", path, {"url": URL + "/2", "retry_policy": [], "enabled": False})
    assert patched.json()["url"] == api.ask("GET", path).json()["url"] == URL + "/2"
    assert (patched.json()["retry_policy"], patched.json()["enabled"]) == ([], False)
    assert api.ask("POST", f"{path}/enable").json()["enabled"] is True
    assert api.ask("POST", f"{path}/enable").json()["enabled"] is True
    assert api.ask("POST", f"{path}/disable").json()["disabled_reason"]
    assert api.ask("DELETE", path).status_code == 204
    assert api.ask("GET", path).status_code == api.ask("DELETE", path).status_code == 404
    assert api.ask("POST", f"{path}/enable").status_code == 404


def test_a_profile_is_changed_only_if_the_secret_fits_the_new_one(api: Api) -> None:
    """A URL-safe secret is none for `standard`; the problem does not show it."""
    created = api.ask("POST", "/v1/endpoints", NEW | {"profile": "baxcloud"})
    answer = api.ask("PATCH", created.headers["location"], {"profile": "standard"})
    assert answer.status_code == 422
    assert fields(answer) == ["secret"]
    assert created.json()["secret"] not in answer.text
    assert api.ask("PATCH", created.headers["location"], {"profile": "bedrud"}).status_code == 200


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tenant": ""}, "tenant"),
        ({"tenant": "a\nb"}, "tenant"),
        ({"url": "http://hooks.example.com"}, "url"),
        ({"url": "https://127.0.0.1/x"}, "url"),
        ({"url": 5}, "url"),
        ({"event_types": []}, "event_types"),
        ({"event_types": ["room*"]}, "event_types.0"),
        ({"event_types": ["a", "b c"]}, "event_types.1"),
        ({"profile": "nope"}, "profile"),
        ({"secret": "short"}, "secret"),
        ({"headers": {"Host": "x"}}, "headers"),
        ({"headers": {"Webhook-Id": "x"}}, "headers"),
        ({"headers": {"webhook-signature": "x"}}, "headers"),
        ({"headers": {"X A": "x"}}, "headers"),
        ({"headers": {"X-A": "x\r\nY: z"}}, "headers"),
        ({"headers": {"X-A": "é"}}, "headers"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "headers"),
        ({"headers": {f"X-{n}": "x" for n in range(21)}}, "headers"),
        ({"profile": "bedrud", "headers": {"x-bedrud-event": "x"}}, "headers"),
        ({"description": "\0"}, "description"),
        ({"retry_policy": ["5 s"]}, "retry_policy.0"),
        ({"retry_policy": ["0s"]}, "retry_policy.0"),
        ({"retry_policy": ["31d"]}, "retry_policy.0"),
        ({"timeout_ms": 99}, "timeout_ms"),
        ({"timeout_ms": 60_001}, "timeout_ms"),
        ({"timeout_ms": "500"}, "timeout_ms"),
        ({"rate_limit": 0}, "rate_limit"),
        ({"rate_limit": 5e-324}, "rate_limit"),
        ({"enabled": "yes"}, "enabled"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_field_of_an_endpoint_is_named(api: Api, change: dict[str, object], field: str) -> None:
    """422 problem details name the field, and nothing is created."""
    before = len(api.services.configuration.endpoints)
    answer = api.ask("POST", "/v1/endpoints", NEW | change)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert fields(answer) == [field]
    assert len(api.services.configuration.endpoints) == before


def test_a_secret_that_is_refused_is_not_repeated_in_the_answer(api: Api) -> None:
    """A canary in the field `secret` shows in no problem, of whatever kind."""
    for change in ({"secret": "CANARY"}, {"secret": "CANARY", "url": "x"}, {"secret": ["CANARY"]}):
        answer = api.ask("POST", "/v1/endpoints", NEW | change)
        assert answer.status_code == 422
        assert "CANARY" not in answer.text


def test_http_and_loopback_are_allowed_where_the_settings_say_so() -> None:
    """As in `hooklog dev`: for every profile, `https_only = always` included."""
    with running(dev_context()) as api:
        for profile in ("standard", "baxcloud"):
            answer = api.ask(
                "POST", "/v1/endpoints", NEW | {"url": "http://127.0.0.1:9/", "profile": profile}
            )
            assert answer.status_code == 201


def test_endpoints_are_listed_in_pages(api: Api) -> None:
    """Following `next` shows each endpoint of the tenant once, oldest first."""
    made = [api.ask("POST", "/v1/endpoints", {"tenant": "pages", "url": URL}).json()["id"] for _ in range(3)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        after = f"&cursor={cursor}" if cursor else ""
        page = api.ask("GET", f"/v1/endpoints?tenant=pages&limit=2{after}").json()
        seen += [endpoint["id"] for endpoint in page["data"]]
        cursor = page["next"]
    assert seen == made
    assert api.ask("GET", "/v1/endpoints?cursor=x").status_code == 422
