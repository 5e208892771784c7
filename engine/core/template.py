"""Templates of a profile: texts with `{fields}`, and the request body as a table of them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType

from engine.core.payload import InvalidPayloadError
from engine.core.profile_table import ProfileError, Table
from engine.core.routing import is_event_type

BODY_FIELDS = ("id", "type", "wire_type", "published", "published_s")
"""What a body may say about its message; none of it changes between tries."""

HEADER_FIELDS = (*BODY_FIELDS, "attempted_s")
"""What a header may say: `attempted_s` is the second of this attempt."""

_FIELD = re.compile(r"\{(\w*)\}")
_TOKEN = re.compile("[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_PRINTABLE = re.compile("[!-~](?:[ -~]*[!-~])?")
_EVENT_TYPE = "1 to 256 printable ASCII characters without spaces"
_VALUE_MAX = 1_000
_LEVELS_MAX = 100
_OURS = frozenset({"content-type", "user-agent", "webhook-id"})
_TRANSPORT = frozenset(
    {"accept-encoding", "connection", "content-encoding", "content-length", "cookie", "expect", "host"}
    | {
        "http2-settings",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
RESERVED_HEADERS = _OURS | _TRANSPORT
"""Lower-case names that neither a profile nor an endpoint may set."""

_EPOCH = datetime(1970, 1, 1)
_PAYLOAD = "\0"
"""Stands for the payload while a body is put together; JSON never holds it unescaped."""


def rfc3339(us: int) -> str:
    """Microseconds since 1970 -> `2026-01-18T10:00:00Z`; a fraction, unless zero, has six digits."""
    try:
        return (_EPOCH + timedelta(microseconds=us)).isoformat() + "Z"
    except OverflowError:
        raise InvalidPayloadError(
            f"published_at {us} is outside the years 1 to 9999: give microseconds since 1970"
        ) from None


def template(text: str, where: str, fields: Collection[str]) -> str:
    """Check a text with `{fields}`; it is a format string as it stands."""
    for name in _FIELD.findall(text):
        if name not in fields:
            there_are = ", ".join(f"{{{field}}}" for field in fields)
            raise ProfileError(f"{where}: {{{name}}} is no field here; there are {there_are or 'none'}")
    if re.search(r"[{}]", _FIELD.sub("", text)):
        raise ProfileError(f"{where}: a brace without its partner")
    return text


def is_printable(text: str, *, spaces: bool = True) -> bool:
    """Whether a text can be a header's value: printable ASCII, no spaces at its ends, not empty."""
    return _PRINTABLE.fullmatch(text) is not None and (spaces or " " not in text)


def header_value(table: Table, key: str, fields: Collection[str]) -> str:
    """A field that is the template of a header's value."""
    value = template(table.text(key), table.where(key), fields)
    if len(value) > _VALUE_MAX:
        raise table.wrong(key, f"must be at most {_VALUE_MAX} characters")
    if not is_printable(value):
        raise table.wrong(key, "must be printable ASCII, without spaces at its ends, and not empty")
    return value


def header_values(table: Table) -> tuple[tuple[str, str], ...]:
    """A table of header names and the templates of their values."""
    return tuple((name, header_value(table, name, HEADER_FIELDS)) for name in table.values)


def header_name(table: Table, key: str) -> str:
    """A field that names a header, in lower case; empty if it is left out."""
    if key not in table.values:
        return ""
    name = table.text(key)
    if not _TOKEN.fullmatch(name):
        raise table.wrong(key, f"{name!r} is no header name")
    return name.lower()


def check_header_names(names: Sequence[str]) -> None:
    """Refuse what is no header name, is reserved, or is there twice."""
    seen: set[str] = set()
    for name in names:
        if not _TOKEN.fullmatch(name):
            raise ProfileError(f"headers: {name!r} is no header name")
        if name.lower() in RESERVED_HEADERS | seen:
            raise ProfileError(f"headers: {name} is reserved, or there twice")
        seen.add(name.lower())


def wire_types(table: Table) -> Mapping[str, str]:
    """A table of event types and their names on the wire."""
    names = {key: table.text(key) for key in table.values}
    for key, name in names.items():
        if not is_event_type(key):
            raise table.wrong(key, f"is no event type: {_EVENT_TYPE}")
        if not is_event_type(name):
            raise table.wrong(key, f"must be {_EVENT_TYPE}")
    return MappingProxyType(names)


def wire_type_in_data(top: Table) -> tuple[str, frozenset[str]]:
    """`[wire_type_in_data]`: the key, and the types that it is written for; empty if it is left out."""
    if "wire_type_in_data" not in top.values:
        return "", frozenset()
    table = top.table("wire_type_in_data")
    table.only("key", "types")
    key, types = table.text("key"), table.texts("types")
    if not is_printable(key):
        raise table.wrong("key", "must be printable ASCII, without spaces at its ends, and not empty")
    if not types or not all(map(is_event_type, types)):
        raise table.wrong("types", f"must be a list of event types, each {_EVENT_TYPE}")
    return key, frozenset(types)


def layout(table: Mapping[str, object], where: str) -> tuple[str, str]:
    """The body's format strings before and after the payload."""
    before, *rest = _format(table, where).split(_PAYLOAD)
    if len(rest) != 1:
        raise ProfileError(f"{where}: '{{payload}}' must be the whole value of exactly one field")
    return before, rest[0]


def _format(value: object, where: str) -> str:
    if where.count(".") > _LEVELS_MAX:
        raise ProfileError(f"{where[:100]}…: is nested deeper than {_LEVELS_MAX}")
    if isinstance(value, Mapping):
        members = [
            f"{_quoted(key, where, ())}:{_format(item, f'{where}.{key}')}" for key, item in value.items()
        ]
        return "{{" + ",".join(members) + "}}"
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, int):  # true and false are
        return json.dumps(value)
    raise ProfileError(f"{where}: must be a text, a whole number, true, false or a table")


def _text(value: str, where: str) -> str:
    if value == "{payload}":
        return _PAYLOAD
    if value == "{published_s}":  # on its own it is a number
        return value
    return _quoted(value, where, BODY_FIELDS)


def _quoted(text: str, where: str, fields: Collection[str]) -> str:
    return json.dumps(template(text, where, fields), ensure_ascii=False)
