"""The HTTP API over a log in memory: keys, messages, errors; and as a process on a real broker."""

from __future__ import annotations

import base64
import os
import subprocess
import sys

import httpx
import pytest

from engine.core.routing import partition_of
from engine.dev.process import free_port, wait_until
from engine.dev.supervisor import http_ready
from tests.integration.api_fixtures import (
    KEY,
    LIMIT_S,
    PARTITIONS,
    Api,
    Ask,
    make_context,
    published,
)
from tests.integration.api_fixtures import shared_api as api

__all__ = ["api"]

URL = "https://hooks.example.com/in"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = {"tenant": "acme", "url": URL}


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
    assert [error["field"] for error in answer.json()["data"][1]["errors"]] == ["id"]
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
