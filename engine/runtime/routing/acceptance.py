"""Whether a record on `messages` is a message we can send."""

from __future__ import annotations

from engine.core.model import MessagePublished
from engine.core.profile import InvalidPayloadError, check_payload
from engine.core.routing import refusal
from engine.ports import Record
from schemas.codec import Codec, UndecodableError, UnknownSchemaError

PUBLISHED_MAX = 253_402_300_800_000_000
"""Midnight of 1 January 10000 UTC, microseconds: timestamps have four digits for the year (RFC 3339)."""
BODY_MAX = 1 << 20
"""Largest rendered body, bytes: a record with it and an answer stays below the broker's 2 MiB."""


class Refused(Exception):  # noqa: N818  a decision, not an error
    """A message that must go to `invalid`, and why."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def accept(codec: Codec, record: Record, payload_max: int) -> MessagePublished:
    """Decode a message and check all of it; raises Refused."""
    message = _decode(codec, record)
    if (wrong := refusal(message, payload_max)) is not None:
        raise Refused(*wrong)
    try:
        check_payload(message.payload)
    except InvalidPayloadError as error:
        raise Refused("payload", str(error)) from None
    if not 0 <= message.published_at < PUBLISHED_MAX:
        raise Refused(
            "published_at", "published_at must be microseconds since 1970 UTC, before the year 10000"
        )
    return message


def message_of(codec: Codec, record: Record) -> MessagePublished | None:
    """Decode a record on `messages` once more; None for what the router could not decode either."""
    try:
        return codec.decode_as(MessagePublished, record.value)
    except (UnknownSchemaError, UndecodableError):  # anybody may write anything there
        return None


def _decode(codec: Codec, record: Record) -> MessagePublished:
    try:
        return codec.decode_as(MessagePublished, record.value)
    except UnknownSchemaError as error:
        raise Refused("unknown_schema", str(error)) from None
    except UndecodableError as error:
        raise Refused("undecodable", str(error)) from None
