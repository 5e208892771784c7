"""A message as people write it in JSON: the body of `POST /v1/messages`, or a line of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from engine.core.model import MessagePublished
from engine.core.rawjson import Part
from engine.core.routing import refusal

FIELDS = ("tenant", "event_type", "payload", "id", "ordering_key")
TEXT_MAX = 256


class RefusedError(ValueError):
    """A message that cannot be accepted: which field breaks which rule."""

    def __init__(self, field: str, rule: str, *, too_large: bool = False) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule
        self.too_large = too_large


def read_message(
    found: Mapping[str, Part], otherwise: MessagePublished, payload_max: int
) -> MessagePublished:
    """Build the message; RefusedError. Its payload stays as written; `otherwise` fills in the rest."""
    check_fields(found, FIELDS)
    if "payload" not in found:
        raise RefusedError("payload", "is missing")
    message = replace(
        otherwise,
        tenant=_text(found, "tenant") or otherwise.tenant,
        id=_text(found, "id") or otherwise.id,
        event_type=_text(found, "event_type") or otherwise.event_type,
        payload=found["payload"].text.encode(),
        ordering_key=_text(found, "ordering_key") or otherwise.ordering_key,
    )
    check_message(message, payload_max)
    return message


def check_message(message: MessagePublished, payload_max: int) -> None:
    """RefusedError if the router would refuse the message's envelope or size."""
    if (refused := refusal(message, payload_max)) is not None:
        reason, rule = refused
        too_large = reason == "too_large"
        field = "payload" if too_large else reason
        raise RefusedError(field, rule.removeprefix(f"{field} "), too_large=too_large)


def check_fields(found: Mapping[str, Part], known: Sequence[str]) -> None:
    """RefusedError about the first field that is none of `known`."""
    for name in found:
        if name not in known:
            raise RefusedError(name[:TEXT_MAX], f"is no field here; there are {', '.join(known)}")


def _text(found: Mapping[str, Part], field: str) -> str | None:
    """A short printable text, which also keeps lone surrogates out of Avro; None if it is left out."""
    if field not in found or found[field].value is None:
        return None
    value = found[field].value
    if not isinstance(value, str):
        raise RefusedError(field, "must be a string")
    if not 1 <= len(value) <= TEXT_MAX or not value.isprintable():
        raise RefusedError(field, f"must be 1 to {TEXT_MAX} printable characters")
    return value
