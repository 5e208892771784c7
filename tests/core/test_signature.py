"""Secrets, keys and signatures, checked with code that shares nothing with the engine."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from datetime import UTC, datetime

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from engine.core.model import DeliveryScheduled
from engine.core.profile import (
    Profile,
    check_secret,
    generate_secret,
    request_headers,
    signing_key,
    verify,
)
from engine.runtime.configuration.profiles import load_profiles

PROFILES = load_profiles()
STANDARD = PROFILES["standard"]
VECTOR_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
SECRETS = {name: generate_secret(profile, bytes(range(32))) for name, profile in PROFILES.items()}
SIGNATURE_HEADERS = {
    "standard": ["webhook-signature"],
    "baxcloud": ["x-baxcloud-signature"],
    "bedrud": ["X-Webhook-Signature", "X-Bedrud-Signature"],
    "meetingbaas": ["X-MeetingBaas-Signature"],
}

names = pytest.mark.parametrize("name", list(PROFILES))


def delivery(body: bytes, message_id: str = "msg_1", event_type: str = "room.ended") -> DeliveryScheduled:
    """A delivery of a body, published at 2026-01-18T10:00:00.25Z."""
    return DeliveryScheduled(
        delivery_id="dlv_1",
        tenant="acme",
        endpoint_id="ep_1",
        message_id=message_id,
        event_type=event_type,
        attempt=1,
        trigger="scheduled",
        origin="",
        accepted_at=0,
        published_at=1_768_730_400_250_000,
        profile="",
        endpoint_epoch=0,
        view_offset=0,
        source_partition=0,
        source_offset=0,
        body=body,
    )


def signed(profile: Profile, *secrets: str, body: bytes = b'{"a":1}', now: int = 0) -> dict[str, str]:
    """Headers of an attempt signed with secrets, newest first."""
    return request_headers(profile, delivery(body), [signing_key(profile, s) for s in secrets], now)


def test_standard_webhooks_vector() -> None:
    """The published vector of Standard Webhooks."""
    sent = delivery(b'{"test": 2432232314}', "msg_p5jXN8AQM9LWM0D4loKWxJek")
    headers = request_headers(STANDARD, sent, [signing_key(STANDARD, VECTOR_SECRET)], 1_614_265_330_999_999)
    assert headers["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-signature"] == VECTOR_SIGNATURE
    assert verify(STANDARD, VECTOR_SECRET, headers, sent.body)


@given(st.binary(min_size=24, max_size=64), st.text().map(str.encode), st.integers(0, 4_000_000_000))
def test_standardwebhooks_library_makes_the_same_signature(key: bytes, body: bytes, second: int) -> None:
    """Any secret, body and time: the reference library is of the same opinion."""
    secret = "whsec_" + base64.b64encode(key).decode()
    headers = signed(STANDARD, secret, body=body, now=second * 1_000_000)
    at = datetime.fromtimestamp(second, UTC)
    assert headers["webhook-signature"] == standardwebhooks.Webhook(secret).sign("msg_1", at, body.decode())


def test_standardwebhooks_library_verifies_a_rotation() -> None:
    """During an overlap receivers with the new or the old secret both verify; another one does not."""
    new, old, other = (generate_secret(STANDARD, bytes([n]) * 32) for n in range(3))
    headers = signed(STANDARD, new, old, now=time.time_ns() // 1_000)
    first, second = headers["webhook-signature"].split(" ")
    assert signed(STANDARD, new, now=time.time_ns() // 1_000)["webhook-signature"] == first != second
    for secret in (new, old):
        assert standardwebhooks.Webhook(secret).verify(b'{"a":1}', headers) == {"a": 1}
        assert verify(STANDARD, secret, headers, b'{"a":1}')
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(other).verify(b'{"a":1}', headers)
    assert not verify(STANDARD, other, headers, b'{"a":1}')


@pytest.mark.parametrize(("name", "prefix"), [("baxcloud", ""), ("bedrud", "sha256="), ("meetingbaas", "")])
def test_platforms_sign_the_body_in_hex(name: str, prefix: str) -> None:
    """HMAC-SHA256 of the body alone, keyed with the whole secret as text, `whsec_` included."""
    body, secret = '{"name":"José"}'.encode(), SECRETS[name]
    expected = prefix + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = signed(PROFILES[name], secret, body=body)
    assert [headers[header] for header in SIGNATURE_HEADERS[name]] == [expected] * len(
        SIGNATURE_HEADERS[name]
    )


@pytest.mark.parametrize("name", ["baxcloud", "bedrud", "meetingbaas"])
def test_headers_that_are_no_list_hold_the_newest_signature_only(name: str) -> None:
    """A second key changes nothing where receivers compare the whole header."""
    profile, older = PROFILES[name], generate_secret(PROFILES[name], bytes(32))
    assert signed(profile, SECRETS[name], older) == signed(profile, SECRETS[name])


@names
def test_nothing_goes_out_unsigned(name: str) -> None:
    """Without a key there is no request."""
    with pytest.raises(ValueError, match="no key"):
        request_headers(PROFILES[name], delivery(b"{}"), [], 0)


@names
def test_verify_accepts_what_was_sent_and_nothing_else(name: str) -> None:
    """A changed body, secret, signature or signed header fails; letter case of header names is free."""
    profile, secret, body = PROFILES[name], SECRETS[name], b'{"a":1}'
    headers = signed(profile, secret, body=body, now=1_700_000_000_000_000)
    assert verify(profile, secret, {key.upper(): value for key, value in headers.items()}, body)
    assert not verify(profile, secret, headers, body + b" ")
    assert not verify(profile, generate_secret(profile, bytes(32)), headers, body)
    assert not verify(profile, secret, {}, body)
    for header in SIGNATURE_HEADERS[name]:
        for wrong in ("", "v1,", "sha256=", headers[header][:-1], headers[header] + "0", "日本", "\udc80"):
            assert not verify(profile, secret, headers | {header: wrong}, body)


@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", ["1700000001", "", "\udc80", "é"])
def test_verify_needs_every_signed_header(header: str, value: str) -> None:
    """What the signature covers must be there, unchanged."""
    headers = signed(STANDARD, VECTOR_SECRET, now=1_700_000_000_000_000)
    assert not verify(STANDARD, VECTOR_SECRET, headers | {header: value}, b'{"a":1}')
    del headers[header]
    assert not verify(STANDARD, VECTOR_SECRET, headers, b'{"a":1}')


def test_verify_of_two_signature_headers_needs_both_to_be_right() -> None:
    """Bedrud shows its signature twice: one of them is enough, a wrong one is not ignored."""
    bedrud, secret = PROFILES["bedrud"], SECRETS["bedrud"]
    headers = signed(bedrud, secret)
    first, second = SIGNATURE_HEADERS["bedrud"]
    assert verify(bedrud, secret, {first: headers[first]}, b'{"a":1}')
    assert verify(bedrud, secret, {second: headers[second]}, b'{"a":1}')
    assert not verify(bedrud, secret, headers | {second: "sha256=" + "0" * 64}, b'{"a":1}')


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("standard", r"whsec_[A-Za-z0-9+/]{43}="),
        ("baxcloud", r"whsec_[A-Za-z0-9_-]{43}"),
        ("bedrud", r"[0-9a-f]{64}"),
        ("meetingbaas", r"[0-9a-f]{64}"),
    ],
)
@given(st.binary(min_size=32, max_size=32))
def test_generated_secrets(name: str, form: str, entropy: bytes) -> None:
    """They have the platform's form, hold all the entropy, and pass their own check."""
    secret = generate_secret(PROFILES[name], entropy)
    assert re.fullmatch(form, secret)
    check_secret(PROFILES[name], secret)
    text = secret.removeprefix("whsec_")
    decoded = (
        bytes.fromhex(text)
        if len(text) == 64
        else base64.urlsafe_b64decode(text.translate(str.maketrans("+/", "-_")).rstrip("=") + "=")
    )
    assert decoded == entropy


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_secret_takes_32_random_bytes(size: int) -> None:
    """Less would be weak, more would be dropped in silence."""
    with pytest.raises(ValueError, match="32 random bytes"):
        generate_secret(STANDARD, bytes(size))


def test_keys() -> None:
    """standard decodes what follows `whsec_`, the others take the secret's UTF-8 as it is."""
    raw = bytes(range(24))
    assert signing_key(STANDARD, "whsec_" + base64.b64encode(raw).decode()) == raw
    assert signing_key(STANDARD, base64.b64encode(raw).decode()) == raw
    for name in ("baxcloud", "bedrud", "meetingbaas"):
        assert signing_key(PROFILES[name], "whsec_pässwörd") == "whsec_pässwörd".encode()


@pytest.mark.parametrize("size", [24, 25, 26, 32, 63, 64])
def test_own_standard_secrets(size: int) -> None:
    """24 to 64 bytes in padded base64, with or without `whsec_`, as libraries take them."""
    secret = base64.b64encode(b"\xfb" * size).decode()
    check_secret(STANDARD, "whsec_" + secret)
    check_secret(STANDARD, secret)


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_" + base64.b64encode(b"x" * 23).decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
        "whsec_" + base64.urlsafe_b64encode(b"\xfb\xff" * 16).decode(),
        "whsec_" + base64.b64encode(b"x" * 32).decode().rstrip("="),
        "whsec_" + base64.b64encode(b"x" * 32).decode() + "=",
        "whsec_" + base64.b64encode(b"x" * 32).decode()[:-2] + "9=",  # stray padding bits
        "whsec_" + base64.b64encode(b"x" * 32).decode() + "\n",
        " whsec_" + base64.b64encode(b"x" * 32).decode(),
        "whsec_whsec_" + base64.b64encode(b"x" * 32).decode(),
        "whsk_" + base64.b64encode(b"x" * 32).decode(),
        "whsec_" + "é" * 44,
        "whsec_" + "\udc80" * 44,
        "correct horse battery staple",
    ],
)
def test_standard_secrets_that_libraries_would_misread_are_refused(secret: str) -> None:
    """The message says what to do and does not repeat the secret."""
    for use in (check_secret, signing_key):
        with pytest.raises(ValueError, match="24 to 64 random bytes in base64") as refused:
            use(STANDARD, secret)
        assert len(secret) < 8 or secret.removeprefix("whsec_") not in str(refused.value)
        assert refused.value.__cause__ is None


@pytest.mark.parametrize("name", ["baxcloud", "bedrud", "meetingbaas"])
def test_own_secrets_of_the_platforms(name: str) -> None:
    """8 to 255 printable characters, whatever they are."""
    for secret in ("x" * 8, "x" * 255, "a b c d e f", "パスワード安全です", "whsec_no-base64!"):
        check_secret(PROFILES[name], secret)
    for secret in ("", "canary7", "x" * 256, "canary12\n", "canary\x0012", "canary12\x7f", "canary\udc8012"):
        with pytest.raises(ValueError, match="8 to 255 printable characters") as refused:
            check_secret(PROFILES[name], secret)
        assert "canary" not in str(refused.value)
