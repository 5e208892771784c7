"""Bytes to record and back: Avro single-object encoding.

A value starts with 0xC3 0x01 and the little-endian CRC-64-AVRO fingerprint of
the writer's schema (Avro 1.12 specification, "Single-object encoding"), so a
topic may hold several kinds of record and needs no registry.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form

from engine.core import change, directory, endpoint, health, lane, model, notice, replay

MARKER = b"\xc3\x01"
PREFIX_BYTES = 10
_FOLDER = Path(__file__).parent

Schema = dict[str, Any]
Convert = Callable[[Any], Any]
R = TypeVar("R")

RECORDS: tuple[type, ...] = (
    model.MessagePublished,
    model.RoutedBatch,
    model.DeliveryScheduled,
    model.AttemptFinished,
    model.InvalidRecord,
    endpoint.Endpoint,
    lane.Lane,
    change.CreateEndpoint,
    change.UpdateEndpoint,
    change.EnableEndpoint,
    change.DisableEndpoint,
    change.DeleteEndpoint,
    change.EndpointCreated,
    change.EndpointUpdated,
    change.EndpointEnabled,
    change.EndpointDisabled,
    change.EndpointDeleted,
    change.RotateSecret,
    change.SecretRotated,
    change.CommandRejected,
    directory.Tenant,
    directory.DataKey,
    directory.ApiKey,
    directory.EventType,
    directory.CreateTenant,
    directory.DeleteTenant,
    directory.CreateKey,
    directory.RevokeKey,
    directory.PutEventType,
    directory.DeleteEventType,
    directory.RewrapDataKey,
    directory.TenantCreated,
    directory.TenantDeleted,
    directory.KeyCreated,
    directory.KeyRevoked,
    directory.EventTypePut,
    directory.EventTypeDeleted,
    directory.DataKeyRewrapped,
    replay.Resend,
    replay.SendTest,
    replay.StartReplay,
    replay.CancelReplay,
    replay.ReplayStarted,
    replay.ReplayFinished,
    replay.ReplayCancelled,
    replay.Replay,
    replay.ResentBatch,
    health.EndpointHealth,
    notice.Notice,
)
"""Every record of the log, in no order that matters."""


class UnknownSchemaError(ValueError):
    """The fingerprint is of no schema we know: written by a newer hooklog, or not by one at all."""


class UndecodableError(ValueError):
    """The bytes are not what their schema says."""


def file_name(name: str) -> str:
    """`MessagePublished` -> `message_published`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def load(path: Path) -> Schema:
    """Read a schema file, with the records it names put in at their first mention."""
    seen: set[str] = set()

    def expand(node: Any) -> Any:
        if isinstance(node, list):
            return [expand(item) for item in node]
        if isinstance(node, dict):
            seen.add(node.get("name", ""))
            return {k: v if k in ("default", "symbols", "doc") else expand(v) for k, v in node.items()}
        if isinstance(node, str) and node[:1].isupper() and node not in seen:
            return expand(json.loads((_FOLDER / f"{file_name(node)}.avsc").read_text()))
        return node

    loaded: Schema = json.loads(path.read_text())
    seen.add(loaded["name"])
    return {**loaded, "fields": [{**f, "type": expand(f["type"])} for f in loaded["fields"]]}


def fingerprint_of(schema: Schema) -> bytes:
    """Eight bytes, little-endian, of the schema's parsing canonical form."""
    return _fingerprint(to_parsing_canonical_form(schema))


@cache  # counted byte by byte, in Python; a record's schema and its newest version are the same
def _fingerprint(canonical_form: str) -> bytes:
    return bytes.fromhex(fingerprint(canonical_form, "CRC-64-AVRO"))


def _without_logical_types(node: Any) -> Any:
    """Times stay integers: fastavro would build a datetime for each."""
    if isinstance(node, list):
        return [_without_logical_types(item) for item in node]
    if isinstance(node, dict):
        return {k: _without_logical_types(v) for k, v in node.items() if k != "logicalType"}
    return node


def _converter(hint: Any, of_record: Callable[[Any], Convert], sequence: Callable[[Any], Any]) -> Any:
    """How a value of this type changes between record and Avro; None if it stays as it is."""
    if is_dataclass(hint):
        return of_record(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        inner = _converter(arguments[0], of_record, sequence)
        return sequence if inner is None else lambda items: sequence([inner(item) for item in items])
    if origin is UnionType or NoneType in arguments:
        convert = next((c for a in arguments if (c := _converter(a, of_record, sequence)) is not None), None)
        return None if convert is None else lambda value: None if value is None else convert(value)
    return None


def _nested(record: Any, of_record: Callable[[Any], Convert], sequence: Callable[[Any], Any]) -> Any:
    """Fields whose values change, each with how."""
    converters = {
        name: _converter(hint, of_record, sequence) for name, hint in get_type_hints(record).items()
    }
    return [(name, convert) for name, convert in converters.items() if convert is not None]


def _flattener(record: Any) -> Convert:
    """Compile the way from a record to what fastavro writes; no look at types is left for later."""
    names = tuple(f.name for f in fields(record))
    values, nested = attrgetter(*names), _nested(record, _flattener, list)

    def flatten(value: Any) -> dict[str, Any]:
        plain = dict(zip(names, values(value), strict=True))
        for name, convert in nested:
            plain[name] = convert(plain[name])
        return plain

    return flatten


def _builder(record: Any) -> Convert:
    """Compile the way from what fastavro reads to a record."""
    nested = _nested(record, _builder, tuple)

    def build(plain: dict[str, Any]) -> Any:
        for name, convert in nested:
            plain[name] = convert(plain[name])
        return record(**plain)

    return build


class Codec:
    """Encodes and decodes every record of the log; immutable once made."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        self._writers: dict[type, tuple[bytes, Any, Convert]] = {}
        self._readers: dict[bytes, tuple[Any, Any, Convert]] = {}
        for record in RECORDS:
            self._register(record, folder)

    def _register(self, record: type, folder: Path) -> None:
        name = file_name(record.__name__)
        current = load(folder / f"{name}.avsc")
        parsed = parse_schema(_without_logical_types(current))
        build = _builder(record)
        for path in sorted((folder / "versions").glob(f"{name}.*.avsc")):
            kept = json.loads(path.read_text())
            self._readers[fingerprint_of(kept)] = (parse_schema(_without_logical_types(kept)), parsed, build)
        self._readers[fingerprint_of(current)] = (parsed, None, build)
        self._writers[record] = (MARKER + fingerprint_of(current), parsed, _flattener(record))

    def encode(self, record: object) -> bytes:
        """Return the record as single-object bytes."""
        prefix, schema, flatten = self._writers[type(record)]
        out = io.BytesIO()
        out.write(prefix)
        schemaless_writer(out, schema, flatten(record))
        return out.getvalue()

    def decode(self, value: bytes | None) -> object:
        """Return the record; UnknownSchemaError or UndecodableError if that cannot be done."""
        if value is None or value[:2] != MARKER or len(value) < PREFIX_BYTES:
            raise UndecodableError("not Avro single-object encoding: it must start with the bytes c3 01")
        known = self._readers.get(value[2:PREFIX_BYTES])
        if known is None:
            raise UnknownSchemaError(f"unknown schema fingerprint {value[2:PREFIX_BYTES].hex()}")
        written, wanted, build = known
        stream = io.BytesIO(value)
        stream.seek(PREFIX_BYTES)
        try:
            plain: Any = schemaless_reader(stream, written, wanted)
        except Exception as error:  # fastavro raises whatever its C code met
            raise UndecodableError(f"{type(error).__name__}: {error}") from error
        if stream.read(1):
            raise UndecodableError("bytes after the end of the record")
        return build(plain)

    def decode_as(self, record: type[R], value: bytes | None) -> R:
        """Decode, and be sure of the kind."""
        decoded = self.decode(value)
        if not isinstance(decoded, record):
            raise UndecodableError(f"a {type(decoded).__name__} where a {record.__name__} belongs")
        return decoded
