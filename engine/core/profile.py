"""Wire profiles: how a request to an endpoint looks, and what counts as success.

A profile is data, a TOML table: `engine/profiles/standard.toml` explains each field.
Nothing here knows a profile by its name, so a platform can add its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.core import ecmascript, signature, template
from engine.core.model import DeliveryScheduled, MessagePublished, Policy
from engine.core.payload import InvalidPayloadError, check_payload
from engine.core.profile_table import ProfileError, Table
from engine.core.signature import SecretRule, SignatureRule
from engine.core.template import HEADER_FIELDS, rfc3339

__all__ = [
    "USER_AGENT",
    "VERSION",
    "InvalidPayloadError",
    "Profile",
    "ProfileError",
    "check_payload",
    "check_secret",
    "generate_secret",
    "header_names",
    "key_of_any",
    "parse_profile",
    "render",
    "request_headers",
    "rfc3339",
    "signing_key",
    "verify",
]

VERSION = "0.1.0"
USER_AGENT = f"hooklog/{VERSION}"

Https = Literal["always", "setting"]

TIMEOUT_MAX_US = 60_000_000
RETRIES_MAX = 50
_HEADERS_MAX = 20
_PING_MAX = 64 << 10
_NAME = re.compile("[a-z][a-z0-9_-]{0,63}")
_FIXED_HEADERS = {"Content-Type": "application/json", "User-Agent": USER_AGENT}


@dataclass(frozen=True, slots=True)
class Profile:
    """A wire dialect. Templates are format strings over the fields of `engine.core.template`."""

    name: str
    policy: Policy
    https_only: Https
    """`always`, or unless the setting allows http."""
    rotation_overlap_us: int
    ping_data: bytes
    """Payload of a `ping`; like any payload it goes through `render`."""
    body: tuple[str, str]
    """Templates of what stands before and after the payload."""
    headers: tuple[tuple[str, str], ...]
    signature: SignatureRule
    secret: SecretRule
    ecmascript: bool
    """Whether the payload is written as JavaScript would write it, instead of unchanged."""
    wire_types: Mapping[str, str]
    """Event type -> its name on the wire, where they differ."""
    key_in_data: str
    """Key under which the wire name stands inside an object payload of `types_in_data`."""
    types_in_data: frozenset[str]


def parse_profile(name: str, table: Mapping[str, object]) -> Profile:
    """Check a profile's table; ProfileError names the field and the rule."""
    if not _NAME.fullmatch(name):
        raise ProfileError(f"name: {name!r} must be lower-case letters, digits, '-' and '_'")
    top = Table(table)
    top.only(
        *("success", "timeout", "retries", "gone_disables", "rotation_overlap", "https", "data", "ping"),
        *("answer_header", "body", "headers", "wire_types", "wire_type_in_data", "signature", "secret"),
    )
    key_in_data, types_in_data = template.wire_type_in_data(top)
    profile = Profile(
        name=name,
        policy=_policy(top),
        https_only=top.choice("https", ("always", "setting")),
        rotation_overlap_us=top.duration("rotation_overlap"),
        ping_data=top.text("ping").encode(),
        body=template.layout(top.table("body").values, "body"),
        headers=template.header_values(top.optional_table("headers")),
        signature=signature.read_signature(top.table("signature")),
        secret=signature.read_secret(top.table("secret")),
        ecmascript=top.choice("data", ("unchanged", "ecmascript")) == "ecmascript",
        wire_types=template.wire_types(top.optional_table("wire_types")),
        key_in_data=key_in_data,
        types_in_data=types_in_data,
    )
    _check_whole(profile)
    return profile


def _policy(top: Table) -> Policy:
    timeout_us = top.duration("timeout")
    if not 0 < timeout_us <= TIMEOUT_MAX_US:
        raise top.wrong("timeout", "must be longer than 0, and at most 60s")
    delays_us = top.durations("retries")
    if len(delays_us) > RETRIES_MAX:
        raise top.wrong("retries", f"must be at most {RETRIES_MAX}")
    return Policy(
        delays_us=delays_us,
        timeout_us=timeout_us,
        success_codes=top.status_codes("success"),
        gone_disables=top.flag("gone_disables"),
        answer_header=template.header_name(top, "answer_header"),
    )


def _check_whole(profile: Profile) -> None:
    """The rules that hold between fields."""
    if len(profile.headers) > _HEADERS_MAX:
        raise ProfileError(f"headers: must be at most {_HEADERS_MAX}")
    template.check_header_names([*(name for name, _ in profile.headers), *profile.signature.headers])
    signed = profile.signature.before + profile.signature.after
    for field in HEADER_FIELDS:
        if f"{{{field}}}" in signed and field not in _sources(profile):
            raise ProfileError(f"signature.signs: a receiver needs {{{field}}}: send it alone in a header")
    if profile.rotation_overlap_us and not profile.signature.is_list:
        raise ProfileError("rotation_overlap: must be 0s where signature.list is false")
    if profile.types_in_data and not profile.ecmascript:
        raise ProfileError('wire_type_in_data: changes the payload, which needs data = "ecmascript"')
    try:
        check_secret(profile, generate_secret(profile, b"\xff" * 32))
    except ValueError as error:
        raise ProfileError(f"secret: a generated one would be refused ({error})") from None
    _check_samples(profile)


def _check_samples(profile: Profile) -> None:
    if len(profile.ping_data) > _PING_MAX:
        raise ProfileError(f"ping: must be at most {_PING_MAX} bytes")
    try:
        check_payload(profile.ping_data)
        body = render(profile, MessagePublished("", "id", "ping", profile.ping_data, 0))
        check_payload(body)
    except InvalidPayloadError as error:
        raise ProfileError(f"ping: {error}") from None
    if profile.ecmascript and ecmascript.canonical(body) != body:
        raise ProfileError("body: JavaScript would write it in another way (key order, numbers, escapes)")


def render(profile: Profile, message: MessagePublished) -> bytes:
    """The request's body, the same on each try; the payload must have passed `check_payload`.

    InvalidPayloadError when `published_at` lies outside the years 1 to 9999.
    """
    fields = _fields(profile, message.id, message.event_type, message.published_at)
    escaped = {name: ecmascript.stringify(value)[1:-1].decode() for name, value in fields.items()}
    before, after = profile.body
    payload = message.payload or b"{}"
    if profile.ecmascript:
        payload = _as_javascript(profile, message.event_type, payload)
    return before.format_map(escaped).encode() + payload + after.format_map(escaped).encode()


def _as_javascript(profile: Profile, event_type: str, payload: bytes) -> bytes:
    data = ecmascript.parse(payload)
    if event_type in profile.types_in_data and isinstance(data, dict):
        data[profile.key_in_data] = profile.wire_types.get(event_type, event_type)
    return ecmascript.stringify(data)


def _fields(profile: Profile, message_id: str, event_type: str, published_at: int) -> dict[str, str]:
    return {
        "id": message_id,
        "type": event_type,
        "wire_type": profile.wire_types.get(event_type, event_type),
        "published": rfc3339(published_at),
        "published_s": str(published_at // 1_000_000),
    }


def request_headers(
    profile: Profile, delivery: DeliveryScheduled, keys: Sequence[bytes], now: int
) -> dict[str, str]:
    """All headers of one attempt; `keys` newest first (all sign only where the header is a list)."""
    fields = _fields(profile, delivery.message_id, delivery.event_type, delivery.published_at)
    fields["attempted_s"] = str(now // 1_000_000)
    headers = {**_FIXED_HEADERS, "webhook-id": delivery.message_id}
    for name, value in profile.headers:
        headers[name] = value.format_map(fields)
    rule = profile.signature
    signed = signature.signatures(rule, keys, signature.signed_bytes(rule, fields, delivery.body))
    for name in rule.headers:
        headers[name] = signed
    return headers


def signing_key(profile: Profile, secret: str) -> bytes:
    """The HMAC key of a secret; ValueError as `check_secret` raises it."""
    return signature.key_of(profile.secret, secret)


def key_of_any(profile: Profile, secret: str) -> bytes:
    """The HMAC key, also of a secret that only another profile accepts: then the bytes of its text."""
    try:
        return signing_key(profile, secret)
    except ValueError:
        return secret.encode()


def header_names(profile: Profile) -> frozenset[str]:
    """Names of the headers that are the profile's own, in lower case."""
    return frozenset(name.lower() for name in (*dict(profile.headers), *profile.signature.headers))


def generate_secret(profile: Profile, entropy: bytes) -> str:
    """A new secret out of 32 random bytes."""
    return signature.generate(profile.secret, entropy)


def check_secret(profile: Profile, secret: str) -> None:
    """ValueError saying what to do about a secret that cannot be used; the secret is not in it."""
    signature.check(profile.secret, secret)


def verify(profile: Profile, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether there is a signature, and all of them sign this body; its age is not judged."""
    key = signing_key(profile, secret)
    found = {name.lower(): value for name, value in headers.items()}
    fields = {field: found.get(header, "") for field, header in _sources(profile).items()}
    rule = profile.signature
    signed = rule.before + rule.after
    if any(f"{{{field}}}" in signed and not template.is_printable(value) for field, value in fields.items()):
        return False
    expected = signature.sign(rule, key, signature.signed_bytes(rule, fields, body))
    shown = [found[name.lower()] for name in rule.headers if name.lower() in found]
    correct = [signature.matches(rule, expected, value) for value in shown]
    return bool(correct) and all(correct)


def _sources(profile: Profile) -> dict[str, str]:
    """Field -> the header (lower case) that is nothing but this field."""
    sources = {value[1:-1]: name.lower() for name, value in profile.headers if value[1:-1] in HEADER_FIELDS}
    return sources | {"id": "webhook-id"}
