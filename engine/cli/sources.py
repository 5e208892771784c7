"""Messages out of files: Avro containers and lines of JSON."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import fastavro

import schemas
from engine.cli.errors import CommandError
from engine.core import rawjson
from engine.core.model import MessagePublished
from engine.core.payload import InvalidPayloadError, check_payload
from engine.core.submission import RefusedError, check_message, read_message
from schemas.codec import load

_AVRO_MAGIC = b"Obj\x01"
_SCHEMA = Path(schemas.__file__).with_name("message_published.avsc")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WRAPPED = 1


@dataclass(frozen=True, slots=True)
class RefusedItem:
    """Why a record or line is left out."""

    reason: str


Item = tuple[str, MessagePublished | RefusedItem]
"""Where it stands (`line 7`), and what it is."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What fills in the fields that a line leaves out, and what is too large."""

    tenant: str
    event_type: str
    payload_max: int
    now: Callable[[], int]


def read_items(stream: BufferedReader, rules: Rules) -> Iterator[Item]:
    """Messages of an Avro container or of NDJSON, told apart by the first bytes."""
    if stream.peek(len(_AVRO_MAGIC)).startswith(_AVRO_MAGIC):
        return _avro_items(stream, rules)
    return _json_items(stream, rules)


def _json_items(stream: BufferedReader, rules: Rules) -> Iterator[Item]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            yield f"line {number}", _json_item(line.strip(), rules)


def _json_item(line: bytes, rules: Rules) -> MessagePublished | RefusedItem:
    blank = MessagePublished(
        rules.tenant, f"msg_{secrets.token_urlsafe(18)}", rules.event_type, b"", rules.now()
    )
    try:
        return read_message(rawjson.parse(line, _WRAPPED), blank, rules.payload_max)
    except RefusedError as error:
        return RefusedItem(str(error))
    except ValueError as error:
        return RefusedItem(f"is not a JSON object: {error}")


def _avro_items(stream: BufferedReader, rules: Rules) -> Iterator[Item]:
    records = _records(stream)
    for number, record in enumerate(records, 1):
        yield f"record {number}", _avro_item(record, rules)


def _records(stream: BufferedReader) -> Iterator[dict[str, object]]:
    """CommandError if the container is broken or holds other records."""
    try:
        yield from cast("Iterator[dict[str, object]]", fastavro.reader(stream, load(_SCHEMA)))
    except (ValueError, EOFError, fastavro.read.SchemaResolutionError) as error:
        raise CommandError(f"the Avro container cannot be read as MessagePublished: {error}") from None


def _avro_item(record: dict[str, object], rules: Rules) -> MessagePublished | RefusedItem:
    at = record["published_at"]
    if isinstance(at, datetime):
        record["published_at"] = (at - _EPOCH) // timedelta(microseconds=1)
    message = MessagePublished(**cast("dict[str, Any]", record))
    try:
        check_message(message, rules.payload_max)
        check_payload(message.payload)
    except (RefusedError, InvalidPayloadError) as error:
        return RefusedItem(str(error))
    return message
