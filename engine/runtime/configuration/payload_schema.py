"""Whether a message is what the catalogue of event types says (jsonschema-rs).

Nothing is ever fetched; patterns run on an engine whose time is linear in the
text; limits of `engine.core.catalogue` bound the rest. A version of a schema
is compiled once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, NamedTuple

import jsonschema_rs

from engine.core.catalogue import Violation, read_schema, violation
from engine.core.directory import EventType
from engine.core.model import MessagePublished
from engine.runtime import telemetry

Unknown = Literal["allow", "refuse"]
REGEX_SIZE_MAX = 256 << 10
"""Bytes of one compiled pattern."""
_COMPILED_MAX = 1_000
_LOG = telemetry.logger("catalogue")


class Broken(NamedTuple):
    """What is wrong with a message: `reason` is `schema` or `event_type`."""

    reason: str
    path: str
    rule: str


class PayloadSchema:
    """A compiled schema."""

    def __init__(self, text: str) -> None:
        """ValueError in words: not JSON, over a limit, no schema, or one that leads elsewhere."""
        schema = read_schema(text)
        try:
            self._validator = jsonschema_rs.validator_for(
                schema,
                offline=True,
                validate_formats=False,
                mask="the value",
                pattern_options=jsonschema_rs.RegexOptions(REGEX_SIZE_MAX, REGEX_SIZE_MAX),
            )
        except jsonschema_rs.ValidationError as error:
            where = violation(error.instance_path, "").path.replace("payload", "schema", 1)
            raise ValueError(f"is no JSON Schema: {where}: {_first_line(error)}") from None
        except ValueError as error:
            raise ValueError(f"is no JSON Schema: {_first_line(error)}") from None

    def check(self, payload: bytes) -> Violation | None:
        """Where a payload that has passed `check_payload` breaks which rule; None: nowhere."""
        try:
            self._validate(json.loads(payload or b"{}"))
        except jsonschema_rs.ValidationError as error:
            return _violation(error)
        except ValueError:
            return violation([], "a number has over 4,300 digits, which no schema can be checked against")
        return None

    def _validate(self, value: object) -> None:
        try:
            self._validator.validate(value)
        except UnicodeEncodeError:  # a lone surrogate: it counts as one character
            text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
            self._validator.validate(json.loads(text))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _violation(error: jsonschema_rs.ValidationError) -> Violation:
    steps = list(error.instance_path)
    match error.kind:
        case jsonschema_rs.ValidationErrorKind.Required(property=name) if isinstance(name, str):
            return violation([*steps, name], "is required")
        case _:
            return violation(steps, error.message)


def check_event_type(event_type: EventType) -> None:
    """ValueError in words about the schema, or an example that does not follow it, before it is kept."""
    if event_type.schema:
        try:
            schema = PayloadSchema(event_type.schema)
        except ValueError as error:
            raise ValueError(f"schema: {error}") from None
        wrong = schema.check(event_type.example.encode()) if event_type.example else None
        if wrong is not None:
            where = "example" + wrong.path.removeprefix("payload")
            raise ValueError(f"{where}: {wrong.rule}, as its schema says")


@lru_cache(_COMPILED_MAX)
def _compiled(name: str, text: str) -> PayloadSchema | None:
    """None about a schema that cannot be used: then the type has none, and whoever reads the log is told."""
    try:
        return PayloadSchema(text)
    except ValueError as error:
        _LOG.error("event_type.schema_unusable", event_type=name, error=str(error))
        return None


def broken(
    event_types: Mapping[str, EventType], unknown: Unknown, message: MessagePublished
) -> Broken | None:
    """What the catalogue has against a message; without a schema this is one look into a dict."""
    known = event_types.get(message.event_type)
    if known is None:
        if unknown == "allow":
            return None
        return Broken("event_type", "event_type", f"{message.event_type} is not in the catalogue")
    schema = _compiled(known.name, known.schema) if known.schema else None
    wrong = schema.check(message.payload) if schema is not None else None
    return None if wrong is None else Broken("schema", wrong.path, wrong.rule)
