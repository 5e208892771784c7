"""What we send, believed by receivers that follow each platform's documentation, on the real frameworks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.diagnosis import EXPRESS_LIMIT, likely_cause
from engine.core.model import AttemptFinished, MessagePublished
from engine.core.profile import render
from engine.runtime.configuration.catalogues import shipped
from tests.pipeline.world import PROFILES, TENANT
from tests.receivers.pipeline import LateSecret, Tampering, a_pipeline

Ports = Mapping[str, int]
PAYLOADS = [
    "{}",
    "[]",
    "null",
    '"text"',
    "2.0",
    ' { "spaces" : [ 1 , 2 ] } ',
    '{"name":"José Núñez 😀 田中さくら محمد","\\u00e9":"\\ud83d\\ude00"}',
    '{"u":"\\u2028\\u2029\\u0000\\u001f\\u007f/\\/\\"\\\\"}',
    '{"lone":"\\ud800","\\udfff":1}',
    '{"n":[2.0,1e21,1.5e300,0.000001,1e-7,9007199254740993,1e400,-0,-0.0,5e-324,123456789012345680000]}',
    '{"b":1,"10":2,"2":3,"01":4,"-1":5,"4294967294":6,"4294967295":7,"a":{"1":1,"0":0}}',
    '{"a":1,"b":2,"a":3}',
    '{"__proto__":{"x":1},"constructor":2,"toJSON":3}',
    '{"deep":' + "[" * 90 + "]" * 90 + "}",
    '{"long":"' + "é" * 40_000 + '"}',
]
COMPLETED = next(each.example for each in shipped("meetingbaas") if each.name == "meeting.completed")


def failed(attempts: list[AttemptFinished]) -> list[tuple[str, str, int, bytes]]:
    """What went wrong: endpoint, message, status, answer."""
    wrong = [each for each in attempts if each.outcome != "success"]
    return [(each.endpoint_id, each.message_id, each.status_code, each.response_body) for each in wrong]


def causes(attempts: list[AttemptFinished]) -> dict[str, str]:
    """Endpoint -> the likely cause of its failure."""
    return {
        each.endpoint_id: likely_cause(each.error_class, each.status_code, each.request_bytes)
        for each in attempts
    }


def test_everything_sent_is_believed(receivers: Ports) -> None:
    """Unicode, numbers, key orders, long and odd payloads: at every receiver, at the first try."""
    with a_pipeline(receivers) as pipeline:
        for n, payload in enumerate(PAYLOADS):
            pipeline.publish(f"m{n}", payload=payload.encode())
        pipeline.publish("completed", "meeting.completed", COMPLETED.encode())
        attempts = pipeline.attempted(len(receivers) * (len(PAYLOADS) + 1))
    assert failed(attempts) == []
    assert len(attempts) == len(receivers) * (len(PAYLOADS) + 1)


def test_receivers_see_what_was_published(receivers: Ports) -> None:
    """They answer with what they read out of the body."""
    with a_pipeline(receivers) as pipeline:
        pipeline.publish("m1", "meeting.completed", COMPLETED.encode())
        answers = {
            each.endpoint_id: json.loads(each.response_body) for each in pipeline.attempted(len(receivers))
        }
    bot = {"bot": "123e4567-e89b-12d3-a456-426614174000", "words": 1}
    assert bot.items() <= answers["meetingbaas-express5"].items() & answers["meetingbaas-express4"].items()
    assert bot.items() <= answers["meetingbaas-flask"].items() & answers["meetingbaas-fastapi"].items()
    assert answers["baxcloud-express4"]["object"] == json.loads(COMPLETED)
    assert answers["baxcloud-express5"]["type"] == "meeting.completed"
    assert answers["bedrud-node"]["data"] == json.loads(COMPLETED)
    assert answers["standard-express5"]["type"] == answers["standard-fastapi"]["type"] == "meeting.completed"


def test_a_retry_is_the_same_bytes_and_is_believed(receivers: Ports) -> None:
    """The first try meets another secret and gets a 401; the second is byte for byte the same, and right."""
    with a_pipeline(receivers, LateSecret) as pipeline:
        pipeline.publish("m1", payload=PAYLOADS[6].encode())
        attempts = pipeline.attempted(2 * len(receivers))
        tries = list(pipeline.spy.sent.values())
    by_number = {n: [each for each in attempts if each.attempt == n] for n in (1, 2)}
    assert {each.status_code for each in by_number[1]} == {401}
    assert set(causes(by_number[1]).values()) == {"the secret differs at the two ends"}
    assert failed(by_number[2]) == []
    assert [len(each) for each in tries] == [2] * len(receivers)
    assert all(first.body == second.body for first, second in tries)
    assert all(first.headers["webhook-id"] == second.headers["webhook-id"] for first, second in tries)


def test_resends_and_pings_are_believed(receivers: Ports) -> None:
    """A resend carries the first body again, a ping the profile's own; the receiver dedups by the id."""
    with a_pipeline(receivers) as pipeline:
        pipeline.publish("again", "meeting.completed", COMPLETED.encode())
        pipeline.attempted(len(receivers))
        for delivery in pipeline.deliveries():
            pipeline.deliver(delivery, "resend")
            profile = PROFILES[delivery.profile]
            ping = MessagePublished(TENANT, "ping", "ping", profile.ping_data, delivery.published_at)
            body = render(profile, ping)
            pipeline.deliver(replace(delivery, message_id="ping", event_type="ping", body=body), "test")
        attempts = pipeline.attempted(3 * len(receivers))
    assert failed(attempts) == []
    bedrud = {each.trigger: each for each in attempts if each.endpoint_id == "bedrud-node"}
    assert json.loads(bedrud["test"].response_body) == {"received": True, "event": "ping", "data": {}}
    baxcloud = {each.trigger: each for each in attempts if each.endpoint_id == "baxcloud-express5"}
    firsts = {name: json.loads(each.response_body)["first"] for name, each in baxcloud.items()}
    assert (firsts["scheduled"], firsts["resend"]) == (True, False)


def test_a_changed_body_is_not_believed(receivers: Ports) -> None:
    """One digit, changed on the way."""
    with a_pipeline(receivers, Tampering) as pipeline:
        pipeline.publish("m1", payload=b'{"amount":4242}')
        attempts = pipeline.attempted(len(receivers))
    assert {each.endpoint_id: each.status_code for each in attempts} == dict.fromkeys(receivers, 401)


def test_another_secret_is_not_believed(receivers: Ports) -> None:
    """Each receiver holds one that is not the endpoint's, and the cause says so."""
    with a_pipeline(receivers, path="/1") as pipeline:
        pipeline.publish("m1", payload=b"{}")
        attempts = pipeline.attempted(len(receivers))
    assert causes(attempts) == dict.fromkeys(receivers, "the secret differs at the two ends")


def test_expresss_limit_is_named(receivers: Ports) -> None:
    """Bodies over 102,400 bytes: Express refuses them before it verifies, the others take them."""
    payload = json.dumps({"text": "x" * 110_000}).encode()
    with a_pipeline(receivers) as pipeline:
        pipeline.publish("m1", payload=payload)
        attempts = pipeline.attempted(len(receivers))
    express = {name for name in receivers if "express" in name}
    refused = [each for each in attempts if each.outcome != "success"]
    assert {each.endpoint_id for each in refused} == express
    assert {each.status_code for each in refused} == {413}
    assert all("102,400" in cause for cause in causes(refused).values())


@pytest.mark.parametrize("name", ["baxcloud-express4", "meetingbaas-express5", "standard-express5"])
def test_expresss_limit_to_the_byte(receivers: Ports, name: str) -> None:
    """102,400 bytes are taken, one more is refused: what we name is the limit that there is."""
    profile = PROFILES[name.partition("-")[0]]
    with a_pipeline({name: receivers[name]}) as pipeline:
        around = render(profile, MessagePublished(TENANT, "m0", "room.ended", b'""', pipeline.clock.now()))
        for n in (0, 1):
            text = "x" * (EXPRESS_LIMIT - len(around) + n)
            pipeline.publish(f"m{n}", payload=f'"{text}"'.encode())
        attempts = {each.message_id: each for each in pipeline.attempted(2)}
    assert {each: (a.request_bytes, a.status_code) for each, a in attempts.items()} == {
        "m0": (EXPRESS_LIMIT, 200),
        "m1": (EXPRESS_LIMIT + 1, 413),
    }
    assert "102,400" in causes([attempts["m1"]])[name]


def test_what_pythons_handlers_read_and_do_not_find(receivers: Ports) -> None:
    """500, and the cause says what the published handlers fail on; the catalogue refuses such payloads."""
    python = {name: port for name, port in receivers.items() if name.startswith("meetingbaas-f")}
    with a_pipeline(python) as pipeline:
        pipeline.publish("m1", "meeting.failed", b'{"bot_id":"b"}')
        attempts = pipeline.attempted(len(python))
    assert {each.status_code for each in attempts} == {500}
    assert all("a missing field" in cause for cause in causes(attempts).values())


KEYS = st.text(max_size=6) | st.sampled_from(
    ["0", "01", "7", "4294967294", "4294967295", "event", "__proto__"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(JSON, min_size=10, max_size=20))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_json_there_is_survives_javascript(receivers: Ports, payloads: list[object]) -> None:
    """Express parses and prints it again, and the signature still fits; a batch of payloads an example."""
    express = {name: port for name, port in receivers.items() if name.startswith("meetingbaas-e")}
    with a_pipeline(express) as pipeline:
        for n, payload in enumerate(payloads):
            written = json.dumps(payload, ensure_ascii=bool(n % 2)).encode("utf-8", "backslashreplace")
            pipeline.publish(f"m{n}", payload=written)
        attempts = pipeline.attempted(len(payloads) * len(express))
    assert failed(attempts) == []
