"""A fact of `changes` -> its row in the audit trail, whatever kind of fact it is.

Made of the fact's own fields, so that a new kind of fact needs nothing here.
Bytes are what secrets are sealed in and keys digested to: none are shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass

import orjson

from engine.core.change import FactBase
from engine.core.profile import rfc3339
from engine.ports import Record
from engine.runtime.history.rows import Row, Rows

_BASE = {each.name for each in fields(FactBase)}
_MASKED = "headers"
"""Values of an endpoint's own headers may be credentials of its receiver: names are told, values not."""


def change_rows(record: Record, fact: FactBase) -> Rows:
    """The one row of a fact, in the order of COLUMNS; its key is where it is on the log."""
    own = _own_fields(fact)
    subject, subject_id = _subject(fact, own)
    row: Row = (
        fact.tenant,
        subject,
        subject_id,
        _snake(type(fact).__name__).removeprefix(f"{subject}_"),
        fact.actor,
        fact.at // 1000,
        fact.command_id,
        orjson.dumps(_details(fact, f"{subject}_id")).decode(),
        record.partition,
        record.offset,
    )
    return {"changes": [row]}


def _own_fields(fact: FactBase) -> list[str]:
    return [each.name for each in fields(fact) if each.name not in _BASE]


def _subject(fact: FactBase, own: list[str]) -> tuple[str, str]:
    """(kind, id): by the first field that is an id, otherwise by the fact's own name."""
    identified = next((name for name in own if name.endswith("_id") and getattr(fact, name)), None)
    if identified is not None:
        return identified.removesuffix("_id"), str(getattr(fact, identified))
    kind = _snake(type(fact).__name__).rpartition("_")[0]
    return kind, fact.tenant if kind == "tenant" else str(getattr(fact, "name", fact.command_id))


def _details(fact: FactBase, subject_field: str) -> dict[str, object]:
    plain = _plain("", fact)
    assert isinstance(plain, dict)
    return {name: value for name, value in plain.items() if name not in _BASE | {subject_field}}


def _plain(name: str, value: object) -> object:
    """JSON of it: no bytes, no values of headers, times in RFC 3339 (0: null)."""
    if is_dataclass(value):
        members = {each.name: getattr(value, each.name) for each in fields(value)}
        return {n: _plain(n, v) for n, v in members.items() if not isinstance(v, bytes)}
    if isinstance(value, Mapping):
        return sorted(value) if name == _MASKED else {str(n): _plain(str(n), v) for n, v in value.items()}
    if isinstance(value, (tuple, list, set, frozenset)):
        return [_plain("", item) for item in value if not isinstance(item, bytes)]
    if isinstance(value, int) and name.endswith("_at"):
        return rfc3339(value) if value else None
    return value


def _snake(name: str) -> str:
    """`SecretRotated` -> `secret_rotated`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
