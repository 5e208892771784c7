"""The demo's receivers believe what a customer's own code would believe, and nothing else."""

from __future__ import annotations

import asyncio
import hmac
import json
import shutil
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request
from standardwebhooks import Webhook

from engine.dev.demo import javascript
from engine.dev.demo.books import digest
from engine.dev.demo.receivers import make_app
from engine.dev.demo.signatures import check, data_of, event_type_of

STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,bm90IHRoaXMgb25l v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    "content-type": "application/json",
}
BAXCLOUD = b'{"id":"evt_m1","type":"room.ended","created":1,"data":{"object":{"a": 2.0}}}'
BEDRUD = b'{"event":"room.ended","timestamp":"2026-01-18T10:00:00Z","data":{"a": 2.0}}'
MEETINGBAAS = b'{"event":"complete","data":{"a":2}}'


def mac(secret: str, body: bytes) -> str:
    """HMAC-SHA256 in hexadecimal, by the key's UTF-8 bytes."""
    return hmac.new(secret.encode(), body, "sha256").hexdigest()


def signed(profile: str, secret: str, body: bytes) -> dict[str, str]:
    """Headers as the profile's platform sends them, with message id m1."""
    common = {"webhook-id": "m1", "content-type": "application/json"}
    match profile:
        case "baxcloud":
            return common | {"x-baxcloud-signature": mac(secret, body)}
        case "meetingbaas":
            return common | {"x-meetingbaas-signature": mac(secret, body)}
    event = json.loads(body)
    names = {"signature": f"sha256={mac(secret, body)}", "event": event["event"]}
    both = {f"x-{who}-{k}": v for who in ("webhook", "bedrud") for k, v in names.items()}
    return common | both | {"x-bedrud-timestamp": event["timestamp"]}


@pytest.mark.parametrize(
    ("profile", "body"), [("baxcloud", BAXCLOUD), ("bedrud", BEDRUD), ("meetingbaas", MEETINGBAAS)]
)
def test_a_genuine_request_is_believed(profile: str, body: bytes) -> None:
    """Signed with the endpoint's secret it passes, with another or changed it does not."""
    headers = signed(profile, "s3cret-ключ", body)
    assert check(profile, "s3cret-ключ", headers, body, 0) == ""
    assert "does not match" in check(profile, "another", headers, body, 0)
    assert "does not match" in check(profile, "s3cret-ключ", headers, body.replace(b'"a"', b'"b"'), 0)


def test_standard_webhooks_published_vector_is_believed() -> None:
    """Any signature of the list counts; the timestamp must be of this attempt."""
    body = b'{"test": 2432232314}'
    with pytest.raises(KeyError, match="timestamp"):  # the vector's body is not one of ours
        check("standard", STANDARD_SECRET, STANDARD, body, 1614265330)
    assert "not of this attempt" in check("standard", STANDARD_SECRET, STANDARD, body, 1614265931)
    forged = STANDARD | {"webhook-signature": "v1,bm90IHRoaXMgb25l"}
    assert "does not match" in check("standard", STANDARD_SECRET, forged, body, 1614265330)


def test_what_the_reference_library_signs_is_believed() -> None:
    """The receiver's own code agrees with the Standard Webhooks library."""
    body = '{"type":"a","timestamp":"2026-01-18T10:00:00Z","data":{}}'
    signature = Webhook(STANDARD_SECRET).sign("m1", datetime.fromtimestamp(1614265330, UTC), body)
    headers = STANDARD | {"webhook-id": "m1", "webhook-signature": signature}
    assert check("standard", STANDARD_SECRET, headers, body.encode(), 1614265330) == ""


@pytest.mark.parametrize(
    ("profile", "missing"),
    [("bedrud", "x-bedrud-signature"), ("bedrud", "x-webhook-event"), ("bedrud", "x-bedrud-timestamp")],
)
def test_a_missing_header_is_noticed(profile: str, missing: str) -> None:
    """Both families of Bedrud's headers must be there."""
    headers = signed(profile, "secret12", BEDRUD)
    del headers[missing]
    assert missing in check(profile, "secret12", headers, BEDRUD, 0)


def test_a_body_that_javascript_would_print_otherwise_is_noticed() -> None:
    """A Node receiver verifies JSON.stringify(req.body): 2.0 becomes 2 and the signature fails."""
    body = b'{"event":"failed","data":{"a":2.0}}'
    wrong = check("meetingbaas", "secret12", signed("meetingbaas", "secret12", body), body, 0)
    assert "JSON.stringify" in wrong
    printed = b'{"event":"failed","data":{"a":2}}'
    assert "round trip" in check(
        "meetingbaas", "secret12", signed("meetingbaas", "secret12", printed), body, 0
    )


@pytest.mark.parametrize(
    ("profile", "body", "event_type", "data"),
    [
        ("baxcloud", BAXCLOUD, "room.ended", b'{"a": 2.0}'),
        ("bedrud", BEDRUD, "room.ended", b'{"a": 2.0}'),
        ("meetingbaas", MEETINGBAAS, "complete", b'{"a":2}'),
        ("standard", b'{"type":"x","data":{"data":1}}', "x", b'{"data":1}'),
    ],
)
def test_the_payload_is_found_inside_the_body(
    profile: str, body: bytes, event_type: str, data: bytes
) -> None:
    """Byte for byte, so a changed space would show."""
    assert (event_type_of(profile, body), data_of(profile, body)) == (event_type, data)


PRINTED = {
    "2.0": "2",
    "1e21": "1e+21",
    "123456789012345680000": "123456789012345680000",
    "0.000001": "0.000001",
    "1e-7": "1e-7",
    "-1.25e-9": "-1.25e-9",
    "9007199254740993": "9007199254740992",
    "1e400": "null",
    "-0": "0",
    "[true,null,false]": "[true,null,false]",
    '{"b":1,"10":2,"2":3,"01":4,"b":5}': '{"2":3,"10":2,"b":5,"01":4}',
    '{"4294967295":1,"4294967294":2}': '{"4294967294":2,"4294967295":1}',
    '"\\u00e9\\ud800\\u0007\\/\\u2028"': '"é\\ud800\\u0007/\u2028"',
}


def test_javascript_is_printed_as_ecmascript_says() -> None:
    """Numbers, key order and escapes; Node itself is asked where it is at hand."""
    assert {text: javascript.stringify(javascript.parse(text.encode())) for text in PRINTED} == PRINTED
    if node := shutil.which("node"):
        code = (
            "console.log(JSON.stringify(JSON.parse(process.argv[1]).map(t=>JSON.stringify(JSON.parse(t)))))"
        )
        told = subprocess.run([node, "-e", code, json.dumps(list(PRINTED))], capture_output=True, check=True)
        assert json.loads(told.stdout) == list(PRINTED.values())


Book = list[dict[str, object]]


async def post_twice(
    name: str, secret: str, headers: Mapping[str, str], body: bytes
) -> tuple[list[int], Book]:
    """Tell a receiver its secret and post to it twice; what it answered, and its book."""
    client: TestClient[Request, Application] = TestClient(TestServer(make_app()))
    async with client:
        await client.put(f"/secrets/{name}", data=secret)
        statuses = [(await client.post(f"/{name}", data=body, headers=headers)).status for _ in range(2)]
        return statuses, (await (await client.get("/books")).json())[name]


def test_a_receiver_keeps_its_book() -> None:
    """Every request is there with its ordinal, what it answered and the payload's digest."""
    headers = signed("baxcloud", "secret12", BAXCLOUD)
    statuses, book = asyncio.run(post_twice("baxcloud", "secret12", headers, BAXCLOUD))
    assert statuses == [200, 200]
    one = {"message_id": "m1", "event_type": "room.ended", "status": 200, "fault": ""}
    expected = [one | {"ordinal": n, "digest": digest(b'{"a": 2.0}')} for n in (1, 2)]
    assert [{k: v for k, v in line.items() if k != "at_ns"} for line in book] == expected


def test_flaky_refuses_the_first_request_of_a_message() -> None:
    """503 first, then its usual answer."""
    body = b'{"type":"room.ended","timestamp":"2026-01-18T10:00:00Z","data":{}}'
    now = int(time.time())
    signature = Webhook(STANDARD_SECRET).sign("m1", datetime.fromtimestamp(now, UTC), body.decode())
    headers = STANDARD | {"webhook-id": "m1", "webhook-timestamp": str(now), "webhook-signature": signature}
    statuses, book = asyncio.run(post_twice("flaky", STANDARD_SECRET, headers, body))
    assert statuses == [503, 200]
    assert [line["fault"] for line in book] == ["", ""]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"event":1}', b"\xff", b'{"data":'])
def test_a_malformed_request_is_a_fault_in_the_book(body: bytes) -> None:
    """Refused with 401 and written down, whatever the bytes are."""
    headers = {"webhook-id": "m1", "content-type": "application/json"}
    statuses, book = asyncio.run(post_twice("bedrud", "secret12", headers, body))
    assert statuses == [401, 401]
    assert all(line["fault"] for line in book)
