"""Why an attempt has probably failed, in words for whoever runs the receiver."""

from __future__ import annotations

from collections.abc import Mapping

EXPRESS_LIMIT = 102_400
"""Bytes that Express's body parsers take unless they are told otherwise."""

_BY_STATUS: Mapping[int, str] = {
    401: "the secret differs at the two ends",
    403: "the secret differs at the two ends",
    404: "nothing is served at this path: compare the URL with the receiver's routes",
    405: "the receiver does not take POST at this path",
    413: "the receiver limits the size of bodies below this one's",
    500: (
        "the receiver's code failed: the published Node handlers throw on a missing or malformed signature, "
        "the published Python handlers on a missing field"
    ),
}
_BY_CLASS: Mapping[str, str] = {
    "dns": "the host's name is not known: is the URL right, and does the name still exist?",
    "connect": "nobody answers at that address and port: is the receiver running, does a firewall let us in?",
    "tls": "no secure connection: is the certificate valid for this name, and is its chain complete?",
    "timeout": "the receiver is slower than its time limit: answer first, work afterwards",
    "reset": "the receiver closed the connection without an answer: has it crashed or been restarted?",
    "protocol": "what came back is not HTTP: does the URL lead to a web server?",
    "blocked": "the URL leads to an address that requests may not go to",
    "http_2xx": "only 200 counts as received here",
    "http_3xx": "redirects are not followed: use the URL that this one leads to",
    "http_4xx": "the receiver refuses the request",
    "http_5xx": "the receiver, or a proxy before it, has a fault",
    "gone": "the receiver says that it is gone for good",
    "throttled": "the receiver asks for fewer requests: give the endpoint a rate limit",
    "circuit_open": "the endpoint failed for so long that nothing was sent any more",
    "expired": "it waited longer than all its retries would have taken",
}
_OLD_SECRET = "the receiver still holds the old secret"  # noqa: S105  words
_EXPRESS = (
    "Express's express.raw and express.json refuse bodies over 102,400 bytes before the handler sees them: "
    "give them a limit, such as express.raw({type: 'application/json', limit: '1mb'})"
)


def likely_cause(
    error_class: str, status_code: int = 0, body_bytes: int = 0, *, rotated: bool = False
) -> str:
    """One sentence without its period; empty if nothing failed. `rotated`: its secret changed lately."""
    if status_code == 413 and body_bytes > EXPRESS_LIMIT:
        return _EXPRESS
    if status_code in (401, 403) and rotated:
        return _OLD_SECRET
    return _BY_STATUS.get(status_code) or _BY_CLASS.get(error_class, "")
