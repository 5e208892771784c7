"""What a customer's receiver checks before it believes a request: one function a profile.

Written from the platforms' published contracts with the standard library alone;
each returns what is wrong, or nothing.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable, Mapping

from engine.dev.demo import javascript

_TOLERANCE_S = 300
Headers = Mapping[str, str]
"""Names in lower case."""


def check(profile: str, secret: str, headers: Headers, body: bytes, now: float) -> str:
    """Return what is wrong with a request; `now` in Unix seconds."""
    if headers.get("content-type") != "application/json":
        return f"content type {headers.get('content-type')!r}"
    if not headers.get("webhook-id"):
        return "no webhook-id"
    if abs(float(headers.get("webhook-timestamp", now)) - now) > _TOLERANCE_S:
        return "webhook-timestamp is not of this attempt"
    return _CHECKS[profile](secret, headers, body)


def event_type_of(profile: str, body: bytes) -> str:
    """What the body says happened."""
    return str(json.loads(body)["type" if profile in ("standard", "baxcloud") else "event"])


def data_of(profile: str, body: bytes) -> bytes:
    """The payload's bytes inside the body, untouched."""
    opening, closing = (b'"data":{"object":', b"}}") if profile == "baxcloud" else (b'"data":', b"}")
    _, found, rest = body.partition(opening)
    return rest.removesuffix(closing) if found and rest.endswith(closing) else b""


def _mac(key: bytes, signed: bytes) -> hmac.HMAC:
    return hmac.new(key, signed, "sha256")


def _standard(secret: str, headers: Headers, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    signed = f"{headers['webhook-id']}.{headers.get('webhook-timestamp')}.".encode() + body
    wanted = base64.b64encode(_mac(key, signed).digest()).decode()
    given = [part.partition(",") for part in headers.get("webhook-signature", "").split(" ")]
    if not any(version == "v1" and hmac.compare_digest(mac, wanted) for version, _, mac in given):
        return "webhook-signature does not match"
    return "" if str(json.loads(body)["timestamp"]).endswith("Z") else "timestamp is not UTC"


def _baxcloud(secret: str, headers: Headers, body: bytes) -> str:
    wanted = _mac(secret.encode(), body).hexdigest()
    if not hmac.compare_digest(headers.get("x-baxcloud-signature", ""), wanted):
        return "x-baxcloud-signature does not match"
    event = json.loads(body)
    if event["id"] != f"evt_{headers['webhook-id']}":
        return "id is not evt_ and the message id"
    return "" if isinstance(event["created"], int) else "created is no integer"


def _bedrud(secret: str, headers: Headers, body: bytes) -> str:
    wanted = "sha256=" + _mac(secret.encode(), body).hexdigest()
    event = json.loads(body)
    expected = {
        "x-webhook-signature": wanted,
        "x-bedrud-signature": wanted,
        "x-webhook-event": event["event"],
        "x-bedrud-event": event["event"],
        "x-bedrud-timestamp": event["timestamp"],
    }
    wrong = [
        name for name, value in expected.items() if not hmac.compare_digest(headers.get(name, ""), value)
    ]
    return f"{', '.join(wrong)} does not match" if wrong else ""


def _meetingbaas(secret: str, headers: Headers, body: bytes) -> str:
    """As the published Node handlers do: verify what JSON.stringify makes of the parsed body."""
    printed = javascript.stringify(javascript.parse(body)).encode()
    wanted = _mac(secret.encode(), printed).hexdigest()
    if not hmac.compare_digest(headers.get("x-meetingbaas-signature", ""), wanted):
        return "X-MeetingBaas-Signature does not match JSON.stringify(req.body)"
    return "" if printed == body else "the body does not survive a round trip through JavaScript"


_CHECKS: Mapping[str, Callable[[str, Headers, bytes], str]] = {
    "standard": _standard,
    "baxcloud": _baxcloud,
    "bedrud": _bedrud,
    "meetingbaas": _meetingbaas,
}
