"""Profiles: the table of bodies, headers and policies, and the rules of a platform's own file."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core import profile as profile_module
from engine.core.model import DeliveryScheduled, MessagePublished, Policy
from engine.core.payload import InvalidPayloadError
from engine.core.profile import (
    USER_AGENT,
    VERSION,
    Profile,
    generate_secret,
    parse_profile,
    render,
    request_headers,
    rfc3339,
    signing_key,
)
from engine.runtime.configuration.profiles import load_profiles

ROOT = Path(__file__).parents[2]
PROFILES = load_profiles()
PUBLISHED = 1_768_730_400_000_000
"""2026-01-18T10:00:00Z"""
PAYLOAD = '{ "name": "José 😀", "n": 2.0, "n": 1e21, "7": "\\u00e9" }\n'.encode()
JAVASCRIPT = '{"7":"é","name":"José 😀","n":1e+21}'
SECOND = 1_000_000
HOUR = 3_600 * SECOND
SHORT = tuple(seconds * SECOND for seconds in (5, 30, 120, 600, 1_800))
LONG = (*SHORT, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR)

names = pytest.mark.parametrize("name", list(PROFILES))


def message(event_type: str, payload: bytes = PAYLOAD, published_at: int = PUBLISHED) -> MessagePublished:
    """A message with id `msg_1`."""
    return MessagePublished("acme", "msg_1", event_type, payload, published_at)


def delivery_of(body: bytes, event_type: str, published_at: int = PUBLISHED) -> DeliveryScheduled:
    """The delivery of a body that was rendered for `message`."""
    return DeliveryScheduled(
        delivery_id="dlv_1",
        tenant="acme",
        endpoint_id="ep_1",
        message_id="msg_1",
        event_type=event_type,
        attempt=1,
        trigger="scheduled",
        origin="",
        accepted_at=PUBLISHED + 5 * SECOND,
        published_at=published_at,
        profile="",
        endpoint_epoch=0,
        view_offset=0,
        source_partition=0,
        source_offset=0,
        body=body,
    )


def attempt(profile: Profile, body: bytes, event_type: str, now: int) -> dict[str, str]:
    """Headers of an attempt at `now`."""
    key = signing_key(profile, generate_secret(profile, bytes(range(32))))
    return request_headers(profile, delivery_of(body, event_type), [key], now)


def test_the_shipped_profiles() -> None:
    """Four of them, each under its own name."""
    assert sorted(PROFILES) == ["baxcloud", "bedrud", "meetingbaas", "standard"]
    assert all(profile.name == name for name, profile in PROFILES.items())


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("standard", Policy(LONG, 15 * SECOND, None, True, "webhook-delivery")),
        ("baxcloud", Policy(SHORT, 10 * SECOND, frozenset({200}), False)),
        ("bedrud", Policy(SHORT, 10 * SECOND, None, True)),
        ("meetingbaas", Policy(SHORT, 10 * SECOND, None, True)),
    ],
)
def test_policies(name: str, policy: Policy) -> None:
    """Retries, timeout, success codes, 410 and the answer header are the platform's."""
    assert PROFILES[name].policy == policy


@pytest.mark.parametrize(
    ("name", "https", "overlap", "ping"),
    [
        ("standard", "setting", 24 * HOUR, {}),
        ("baxcloud", "always", 0, {"object": {}}),
        ("bedrud", "setting", 0, {}),
        ("meetingbaas", "setting", 0, {"bot_id": "123e4567-e89b-12d3-a456-426614174000"}),
    ],
)
def test_https_rotation_and_ping(name: str, https: str, overlap: int, ping: object) -> None:
    """URLs, the overlap of a rotation, and what a receiver finds in a ping's `data`."""
    profile = PROFILES[name]
    assert (profile.https_only, profile.rotation_overlap_us) == (https, overlap)
    assert json.loads(render(profile, message("ping", profile.ping_data)))["data"] == ping


@pytest.mark.parametrize(
    ("name", "event_type", "body"),
    [
        (
            "standard",
            "room.ended",
            '{"type":"room.ended","timestamp":"2026-01-18T10:00:00Z","data":PAYLOAD}',
        ),
        (
            "baxcloud",
            "room.ended",
            '{"id":"evt_msg_1","type":"room.ended","created":1768730400,"data":{"object":PAYLOAD}}',
        ),
        (
            "bedrud",
            "room.ended",
            '{"event":"room.ended","timestamp":"2026-01-18T10:00:00Z","data":PAYLOAD}',
        ),
        ("meetingbaas", "meeting.started", '{"event":"meeting.started","data":JAVASCRIPT}'),
        ("meetingbaas", "meeting.failed", '{"event":"failed","data":JAVASCRIPT}'),
        ("meetingbaas", "transcription.available", '{"event":"transcription_complete","data":JAVASCRIPT}'),
        ("meetingbaas", "event.added", '{"event":"event.added","data":JAVASCRIPT}'),
    ],
)
def test_bodies(name: str, event_type: str, body: str) -> None:
    """The body of each profile, byte for byte: the payload as it is, or as JavaScript writes it."""
    expected = body.encode().replace(b"PAYLOAD", PAYLOAD).replace(b"JAVASCRIPT", JAVASCRIPT.encode())
    assert render(PROFILES[name], message(event_type)) == expected


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        ('{"bot_id":"b","mp4":"m"}', '{"bot_id":"b","mp4":"m","event":"complete"}'),
        ('{"event":{"x":1},"bot_id":"b"}', '{"event":"complete","bot_id":"b"}'),
        ('{"event":1,"a":2,"event":3}', '{"event":"complete","a":2}'),
        ('{"b":{"event":1},"3":0}', '{"3":0,"b":{"event":1},"event":"complete"}'),
        ("", '{"event":"complete"}'),
        ("[{}]", "[{}]"),
        ('"event"', '"event"'),
        ("null", "null"),
        ("2.0", "2"),
    ],
)
def test_the_wire_name_stands_inside_the_data_of_a_completed_meeting(payload: str, data: str) -> None:
    """Last, or in place of an `event` that is there; only objects have room for it."""
    body = render(PROFILES["meetingbaas"], message("meeting.completed", payload.encode()))
    assert body.decode() == f'{{"event":"complete","data":{data}}}'


@names
def test_an_empty_payload_is_an_empty_object(name: str) -> None:
    """No payload at all is `{}` on the wire."""
    profile = PROFILES[name]
    assert render(profile, message("room.ended", b"")) == render(profile, message("room.ended", b"{}"))


@names
@given(st.text(min_size=1), st.text(min_size=1))
def test_ids_and_types_cannot_break_out_of_the_body(name: str, message_id: str, event_type: str) -> None:
    """Whatever they hold, braces and quotes included, they stay texts and reach the receiver unchanged."""
    published = MessagePublished("t", message_id, event_type, b'{"a":"{id}"}', PUBLISHED)
    body = json.loads(render(PROFILES[name], published))
    data = body["data"]
    assert (data["object"] if name == "baxcloud" else data) == {"a": "{id}"}
    assert body.get("type", body.get("event")) == event_type
    assert body.get("id", f"evt_{message_id}") == f"evt_{message_id}"


@pytest.mark.parametrize(
    ("us", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (PUBLISHED, "2026-01-18T10:00:00Z"),
        (PUBLISHED + 1, "2026-01-18T10:00:00.000001Z"),
        (PUBLISHED + 250_000, "2026-01-18T10:00:00.250000Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
        (-62_135_596_800_000_000, "0001-01-01T00:00:00Z"),
    ],
)
def test_timestamps(us: int, text: str) -> None:
    """RFC 3339 in UTC with Z: no fraction, or all six digits of it."""
    assert rfc3339(us) == text


@pytest.mark.parametrize("us", [253_402_300_800_000_000, -62_135_596_800_000_001, 2**63 - 1, -(2**63)])
@names
def test_a_time_beyond_the_calendar_is_the_producers_mistake(name: str, us: int) -> None:
    """Nanoseconds taken for microseconds are refused with the rule, not with a crash."""
    with pytest.raises(InvalidPayloadError, match="microseconds since 1970"):
        render(PROFILES[name], message("room.ended", published_at=us))


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("standard", {"webhook-timestamp": "1768730405", "webhook-signature": ""}),
        ("baxcloud", {"x-baxcloud-signature": ""}),
        (
            "bedrud",
            {
                "X-Webhook-Event": "room.ended",
                "X-Bedrud-Event": "room.ended",
                "X-Bedrud-Timestamp": "2026-01-18T10:00:00Z",
                "X-Webhook-Signature": "",
                "X-Bedrud-Signature": "",
            },
        ),
        ("meetingbaas", {"X-MeetingBaas-Signature": ""}),
    ],
)
def test_headers(name: str, others: dict[str, str]) -> None:
    """Exactly these headers, in these letters; signatures are checked elsewhere."""
    headers = attempt(PROFILES[name], b"{}", "room.ended", PUBLISHED + 5_999_999)
    shown = {key: "" if key.lower().endswith("-signature") else value for key, value in headers.items()}
    common = {"Content-Type": "application/json", "User-Agent": USER_AGENT, "webhook-id": "msg_1"}
    assert shown == common | others


@names
def test_a_later_try_differs_only_in_what_is_of_this_attempt(name: str) -> None:
    """An hour later only standard's timestamp, and so its signature, is another one."""
    profile = PROFILES[name]
    first, later = (attempt(profile, b"{}", "room.ended", PUBLISHED + hours * HOUR) for hours in (0, 1))
    changed = {key for key in first if first[key] != later[key]}
    assert changed == ({"webhook-timestamp", "webhook-signature"} if name == "standard" else set())


@given(st.integers(0, 4_000_000_000_000_000))
def test_bedruds_header_is_the_timestamp_of_its_body(published_at: int) -> None:
    """Whatever the fraction, the header and the body say the same."""
    bedrud = PROFILES["bedrud"]
    body = render(bedrud, message("room.ended", published_at=published_at))
    headers = request_headers(bedrud, delivery_of(body, "room.ended", published_at), [b"key"], 0)
    assert headers["X-Bedrud-Timestamp"] == json.loads(body)["timestamp"]


def test_the_user_agent_names_this_version() -> None:
    """The version is the package's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    assert f"hooklog/{VERSION}" == USER_AGENT


def test_no_code_knows_a_profile_by_name() -> None:
    """Profiles are data: core does not mention any."""
    for file in Path(profile_module.__file__).parent.glob("*.py"):
        if file.name in {"profile.py", "signature.py", "template.py", "profile_table.py", "ecmascript.py"}:
            code = file.read_text().lower().replace("profiles/standard.toml", "")
            assert not [name for name in PROFILES if f'"{name}"' in code], file.name
            assert not [name for name in ("baxcloud", "bedrud", "meetingbaas") if name in code], file.name


def test_a_profile_of_an_own_name_acts_like_the_shipped_one() -> None:
    """The name decides nothing."""
    for name, shipped in PROFILES.items():
        table = tomllib.loads((ROOT / "engine" / "profiles" / f"{name}.toml").read_text())
        copy = parse_profile("copy", table)
        assert copy == replace(shipped, name="copy")
        for event_type in ("meeting.completed", "ping"):
            body = render(copy, message(event_type))
            assert body == render(shipped, message(event_type))
            assert attempt(copy, body, event_type, 0) == attempt(shipped, body, event_type, 0)
