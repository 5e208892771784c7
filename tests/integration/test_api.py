"""The HTTP API over a log in memory, with the real control group beside it."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from engine.core.endpoint import Endpoint
from engine.core.routing import partition_of
from engine.dev.process import free_port, wait_until
from engine.dev.supervisor import http_ready
from tests.integration.api_fixtures import (
    KEY,
    LIMIT_S,
    PARTITIONS,
    Api,
    Ask,
    dev_context,
    make_context,
    published,
    running,
)

URL = "https://hooks.example.com/in"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = {"tenant": "acme", "url": URL}


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """One API for all tests here; each uses a tenant or endpoint of its own."""
    with running(make_context()) as running_api:
        yield running_api


def fields(answer: object) -> list[str]:
    """Names of the fields that a problem is about."""
    assert isinstance(answer, dict)
    return [error["field"] for error in answer["errors"]]


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
    assert fields(other.json()) == ["Idempotency-Key"]


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
    assert fields(answer.json()) == ["secret"]
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
    assert fields(answer.json()) == [field]
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


@pytest.mark.parametrize("key", ["", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer é"])
def test_without_a_valid_key_nothing_is_told(api: Api, key: str) -> None:
    """401 problem details on every route under /v1."""
    requests = [
        Ask(method, path, {}, headers={"Authorization": key})
        for method, path in (("POST", "/v1/messages"), ("GET", "/v1/endpoints"), ("GET", "/v1/accounting"))
    ]
    for answer in api.together(*requests):
        assert answer.status_code == 401
        assert answer.json()["status"] == 401
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_message_is_on_its_partition_byte_for_byte_when_202_comes(api: Api) -> None:
    """The payload's text, the key and the partition are what a producer would have written."""
    payload = b'{ "a":1.0, "n":123456789012345678901234567890,\n "s":"\\u00e9" }'
    body = b'{"payload":%s,"tenant":"t","event_type":"a.b","id":"byte-for-byte"}' % payload
    (answer,) = api.together(Ask("POST", "/v1/messages", content=body))
    assert (answer.status_code, answer.json()) == (202, {"id": "byte-for-byte"})
    record, message = next(found for found in published(api) if found[1].id == "byte-for-byte")
    assert message.payload == payload
    assert record.key == b"byte-for-byte"
    assert record.partition == partition_of("byte-for-byte", PARTITIONS)


def test_a_message_without_an_id_gets_one_and_a_repeat_under_a_key_the_same(api: Api) -> None:
    """Ids are unguessable and fresh, unless an Idempotency-Key says that it is the same message."""
    body = {"tenant": "t", "event_type": "a.b", "payload": {}, "ordering_key": "o"}
    ids = [api.ask("POST", "/v1/messages", body).json()["id"] for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(len(new) >= 26 and new.startswith("msg_") and "." not in new for new in ids)
    again = {api.ask("POST", "/v1/messages", body, idempotency_key="m").json()["id"] for _ in range(2)}
    assert len(again) == 1
    assert {record.key for record, message in published(api) if message.id in ids} == {b"t:o"}


def test_a_batch_has_a_result_for_each_item(api: Api) -> None:
    """Good items are accepted, bad ones named, in order."""
    good = {"tenant": "t", "event_type": "a.b", "payload": {}, "id": "in-batch"}
    answer = api.ask(
        "POST",
        "/v1/messages/batch",
        {"messages": [good, good | {"id": "a b"}, 7, good | {"payload": "x" * 2_000}]},
    )
    assert answer.status_code == 207
    assert [result["status"] for result in answer.json()["data"]] == [202, 422, 422, 413]
    assert answer.json()["data"][0]["id"] == "in-batch"
    assert fields(answer.json()["data"][1]) == ["id"]
    assert api.ask("POST", "/v1/messages/batch", {"messages": [good]}).status_code == 202
    bodies: tuple[dict[str, object], ...] = (
        {"messages": []},
        {"messages": [good] * 1_001},
        {"messages": 1},
        {},
        {"other": []},
    )
    for wrong in bodies:
        assert api.ask("POST", "/v1/messages/batch", wrong).status_code == 422


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/messages", b"", 400),
        ("/v1/messages", b"{", 400),
        ("/v1/messages", b"[]", 400),
        ("/v1/messages", b"\xff", 400),
        ("/v1/messages", b'{"tenant":"t","event_type":"a","payload":NaN}', 400),
        ("/v1/messages", b'{"tenant":"t","event_type":"a","payload":' + b"[" * 600 + b"]" * 600 + b"}", 400),
        ("/v1/messages", b'{"tenant":"t","event_type":"a","payload":"' + b"x" * 2_001 + b'"}', 413),
        ("/v1/messages", b" " * 100_000, 413),
        ("/v1/messages/batch", b" " * 1_000_000, 413),
        ("/v1/endpoints", b"{", 400),
        ("/v1/endpoints", b"[" * 5_000, 400),
        ("/v1/endpoints", b'{"n":' + b"9" * 5_000 + b"}", 400),
        ("/v1/endpoints", b"", 400),
        ("/v1/endpoints", b"[]", 400),
    ],
)
def test_a_body_that_cannot_be_read_is_a_problem(api: Api, path: str, body: bytes, status: int) -> None:
    """Malformed, too deep, too large: 400 or 413, never 500, and always problem details."""
    (answer,) = api.together(Ask("POST", path, content=body))
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nope", 404),
        ("PUT", "/v1/endpoints", 405),
        ("GET", "/v1/messages/m", 503),
        ("GET", "/v1/accounting", 503),
    ],
)
def test_every_error_is_a_problem(api: Api, method: str, path: str, status: int) -> None:
    """Unknown routes and methods too, and a history that cannot be asked (there is no ClickHouse here)."""
    answer = api.ask(method, path)
    assert (answer.status_code, answer.json()["status"]) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_open_routes_answer_without_a_key(api: Api) -> None:
    """Probes, metrics and the OpenAPI document; every route of /v1 is described with its schemas."""
    answers = api.together(
        *(
            Ask("GET", path, headers={"Authorization": ""})
            for path in ("/healthz", "/readyz", "/metrics", "/openapi.json")
        )
    )
    assert [answer.status_code for answer in answers] == [200] * 4
    assert "hooklog_commands_total" in answers[2].text
    document = answers[3].json()
    assert {"/v1/endpoints", "/v1/messages", "/v1/messages/batch", "/v1/accounting"} <= set(document["paths"])
    assert {"MessageInput", "MessageBatch", "EndpointInput", "ProblemAnswer"} <= set(
        document["components"]["schemas"]
    )


def test_without_a_control_group_a_command_is_not_said_to_be_done() -> None:
    """503 once the wait is over; the command stays on the log."""
    api = Api(make_context(), limit_s=0.05)
    try:
        answer = api.ask("POST", "/v1/endpoints", NEW)
        assert (answer.status_code, "control group" in answer.json()["detail"]) == (503, True)
    finally:
        api.close()


@pytest.mark.integration
def test_the_process_serves_over_a_real_broker_and_ends_cleanly(kafka: str, prefix: str) -> None:
    """`hooklog run api`: ready, a message acknowledged by Kafka, SIGTERM, exit status 0."""
    port = free_port()
    env = {
        "HOOKLOG_KAFKA": kafka,
        "HOOKLOG_PREFIX": prefix,
        "HOOKLOG_PARTITIONS": str(PARTITIONS),
        "HOOKLOG_ADMIN_KEY": KEY,
        "HOOKLOG_MASTER_KEY": base64.b64encode(bytes(32)).decode(),
        "HOOKLOG_API_PORT": str(port),
    }
    command = [sys.executable, "-m", "engine.cli.main"]
    subprocess.run(
        [*command, "topics", "create"], env=os.environ | env, check=True, stdout=subprocess.DEVNULL
    )
    url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {KEY}"}
    with subprocess.Popen([*command, "run", "api"], env=os.environ | env, stderr=subprocess.PIPE) as process:
        try:
            assert wait_until(lambda: http_ready(f"{url}/readyz"), LIMIT_S)
            body = {"tenant": "t", "event_type": "a", "payload": {}, "id": "one"}
            answer = httpx.post(f"{url}/v1/messages", json=body, headers=headers, timeout=LIMIT_S)
            assert (answer.status_code, answer.json()) == (202, {"id": "one"})
        finally:
            process.terminate()
            errors = process.communicate(timeout=LIMIT_S)[1]
    assert process.returncode == 0, errors.decode()
    assert b"api.stopped" in errors
    assert KEY.encode() not in errors
