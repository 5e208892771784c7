"""Payloads and answers as text that is safe to show and not too long for a page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.core.endpoint import Endpoint
from engine.core.model import DeliveryScheduled, MessagePublished
from engine.core.profile import Profile, render, request_headers

SHOWN_MAX = 16_000
"""Characters of a payload on a page; the rest is a link away."""
ANSWER_MAX = 1_000
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+|"', re.DOTALL)
_DEPTH_MAX = 40
_ARGUMENT_MAX = 100_000
"""Bytes of one argument that every shell takes."""
_ESCAPES = {ord("\n"): "\n", ord("%"): "%%", ord("\\"): "\\\\"}
_NO_KEY = bytes(32)
"""Signs in place of the endpoint's keys: signatures are masked anyway."""
MASKED = "(not shown)"
View = Literal["pretty", "raw"]


@dataclass(frozen=True, slots=True)
class Shown:
    """A text, or its beginning."""

    text: str
    is_whole: bool


def shown(payload: bytes, view: View) -> Shown:
    """The beginning of a payload; bytes that are no UTF-8 are replaced."""
    text = payload.decode(errors="replace")
    if view == "pretty":
        return pretty(text, SHOWN_MAX)
    return Shown(text[:SHOWN_MAX], len(text) <= SHOWN_MAX)


def pretty(text: str, limit: int) -> Shown:
    """JSON with line breaks and indents between its lexemes, each as it was written; what is no JSON, too."""
    parts: list[str] = []
    depth = length = 0
    before = ""
    for found in _TOKENS.finditer(text):
        lexeme = found[0]
        depth -= lexeme in "}]"
        piece = _spaced(before, lexeme, depth)
        depth += lexeme in "{["
        parts.append(piece)
        length += len(piece)
        before = lexeme
        if length > limit:
            return Shown("".join(parts)[:limit], is_whole=False)
    return Shown("".join(parts), is_whole=True)


def _spaced(before: str, lexeme: str, depth: int) -> str:
    """A lexeme with the space that goes before it."""
    if lexeme in "}]":
        return lexeme if before in ("{", "[") else _line(depth) + lexeme
    if before and before in "{[,":
        return _line(depth) + lexeme
    return f" {lexeme}" if before == ":" else lexeme


def _line(depth: int) -> str:
    return "\n" + "  " * max(0, min(depth, _DEPTH_MAX))


def headers_of(
    profile: Profile, endpoint: Endpoint, message: MessagePublished, attempt: int, at_us: int
) -> dict[str, str]:
    """The headers of an attempt, by the endpoint's settings of now; own values and signatures are masked."""
    delivery = _as_delivered(endpoint, message, attempt)
    sent = request_headers(profile, delivery, [_NO_KEY], at_us)
    masked = {name.lower() for name in profile.signature.headers}
    own = dict.fromkeys(endpoint.settings.headers, MASKED)
    return {**own, **{name: MASKED if name.lower() in masked else value for name, value in sent.items()}}


def _as_delivered(endpoint: Endpoint, message: MessagePublished, attempt: int) -> DeliveryScheduled:
    return DeliveryScheduled(
        delivery_id="",
        tenant=message.tenant,
        endpoint_id=endpoint.id,
        message_id=message.id,
        event_type=message.event_type,
        attempt=attempt,
        trigger="scheduled",
        origin="",
        accepted_at=0,
        published_at=message.published_at,
        profile=endpoint.settings.profile,
        endpoint_epoch=0,
        view_offset=0,
        source_partition=0,
        source_offset=0,
        body=b"",
    )


def curl(profile: Profile, endpoint: Endpoint, message: MessagePublished, now_us: int) -> str:
    """A command for a shell that makes the same request, unsigned: the secret stays here. ValueError."""
    sent = headers_of(profile, endpoint, message, 1, now_us)
    named = [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in sent.items() if value != MASKED]
    where = f"--globoff -X POST {shlex.quote(endpoint.settings.url)}"
    return _command([where, *named], render(profile, message))


def _command(arguments: Sequence[str], body: bytes) -> str:
    text = body.decode(errors="replace")
    is_plain = text.encode() == body and all(each.isprintable() or each == "\n" for each in text)
    if is_plain and len(body) <= _ARGUMENT_MAX:
        return " \\\n  ".join(("curl", *arguments, f"--data-raw {shlex.quote(text)}")) + "\n"
    piped = " \\\n  ".join(("curl", *arguments, "--data-binary @-"))
    said = f"%s {shlex.quote(text)}" if is_plain else f"-- {shlex.quote(_escaped(body))}"
    return f"printf {said} | {piped}\n"


def _escaped(body: bytes) -> str:
    """As printf's format: a terminal that this is pasted into would obey what is not printable."""
    return "".join(
        _ESCAPES.get(each) or (chr(each) if 0x20 <= each < 0x7F else f"\\{each:03o}") for each in body
    )


def head_of(attempt: Mapping[str, object]) -> Shown:
    """The beginning of what a receiver answered."""
    text = str(attempt["response_body"])
    return Shown(text[:ANSWER_MAX], len(text) <= ANSWER_MAX)
