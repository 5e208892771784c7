"""Bytes to record and back: Avro single-object encoding.

A value starts with 0xC3 0x01 and the little-endian CRC-64-AVRO fingerprint of
the writer's schema (Avro 1.12 specification, "Single-object encoding"), so a
topic may hold several kinds of record and needs no registry.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form

from engine.core import endpoint, model

MARKER = b"\xc3\x01"
PREFIX_BYTES = 10
_FOLDER = Path(__file__).parent

Schema = dict[str, Any]
R = TypeVar("R")

RECORDS: tuple[type, ...] = (
    model.MessagePublished,
    model.RoutedBatch,
    model.DeliveryScheduled,
    model.AttemptFinished,
    model.InvalidRecord,
    endpoint.Endpoint,
    endpoint.Tenant,
    endpoint.DataKey,
    endpoint.CreateEndpoint,
    endpoint.UpdateEndpoint,
    endpoint.EnableEndpoint,
    endpoint.DisableEndpoint,
    endpoint.DeleteEndpoint,
    endpoint.EndpointCreated,
    endpoint.EndpointUpdated,
    endpoint.EndpointEnabled,
    endpoint.EndpointDisabled,
    endpoint.EndpointDeleted,
    endpoint.TenantCreated,
    endpoint.CommandRejected,
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
    hexadecimal: str = fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO")
    return bytes.fromhex(hexadecimal)


def _without_logical_types(node: Any) -> Any:
    """Times stay integers: fastavro would build a datetime for each."""
    if isinstance(node, list):
        return [_without_logical_types(item) for item in node]
    if isinstance(node, dict):
        return {k: _without_logical_types(v) for k, v in node.items() if k != "logicalType"}
    return node


def _to_plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_to_plain(item) for item in value]
    return value


def _flattener(record: type) -> Callable[[Any], dict[str, Any]]:
    """A function from record to dict; the flat records of the hot path need no recursion."""
    names = tuple(f.name for f in fields(record))
    if any(_nests(hint) for hint in get_type_hints(record).values()):
        return _to_plain
    values = attrgetter(*names)
    return lambda value: dict(zip(names, values(value), strict=True))


def _nests(hint: Any) -> bool:
    return is_dataclass(hint) or get_origin(hint) is tuple or any(_nests(a) for a in get_args(hint))


def _reviver(hint: Any) -> Callable[[Any], Any] | None:
    """How to turn what Avro gives into what the type hint says; None if it is that already."""
    if is_dataclass(hint):
        return _builder(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        inner = _reviver(arguments[0])
        return tuple if inner is None else lambda items: tuple(inner(item) for item in items)
    if origin is UnionType or NoneType in arguments:
        revive = next((r for r in map(_reviver, arguments) if r is not None), None)
        return None if revive is None else lambda value: None if value is None else revive(value)
    return None


def _builder(record: Any) -> Callable[[dict[str, Any]], Any]:
    hints = get_type_hints(record)
    revivers = [(name, revive) for name, hint in hints.items() if (revive := _reviver(hint)) is not None]

    def build(plain: dict[str, Any]) -> Any:
        for name, revive in revivers:
            plain[name] = revive(plain[name])
        return record(**plain)

    return build


class Codec:
    """Encodes and decodes every record of the log; immutable once made."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        self._writers: dict[type, tuple[bytes, Any, Callable[[Any], dict[str, Any]]]] = {}
        self._readers: dict[bytes, tuple[Any, Any, Callable[[dict[str, Any]], Any]]] = {}
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


EMPTY: Mapping[str, bytes] = MappingProxyType({})
