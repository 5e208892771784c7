"""What a change of the audit trail says besides who, what and when, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import orjson

from engine.api.dashboard import words
from engine.runtime.history.clickhouse import Row

DETAILS_MAX = 240
"""Characters of a line; the API's route has all of it."""
_ONLY_FOR_PROGRAMS = frozenset({"version", "ends", "epoch", "command_id", "data_key_id"})
_NOTHING: tuple[object, ...] = (None, "", 0, [])
_TIMES = frozenset({"since", "until"})
_MILLISECONDS = frozenset({"timeout_ms", "retry_policy"})


def said_of(change: Row) -> str:
    """What else is known of a change, in a line: `url: https://…; event types: room.ended`."""
    details = orjson.loads(str(change["details"]))
    text = "; ".join(_parts(details))
    return text if len(text) <= DETAILS_MAX else f"{text[:DETAILS_MAX]}…"


def _parts(details: Mapping[str, object]) -> Iterator[str]:
    """A text for each detail that says something; settings stand beside it, if they changed."""
    changed = details.get("fields")
    for name, value in details.items():
        if isinstance(value, dict):
            among = changed if isinstance(changed, list) else value
            yield from _parts({each: value[each] for each in value if each in among})
        elif name not in _ONLY_FOR_PROGRAMS and (value is False or value not in _NOTHING):
            yield f"{name.replace('_', ' ').removesuffix(' ms')}: {_said(name, value)}"


def _said(name: str, value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_said(name, each) for each in value)
    if name in _TIMES and isinstance(value, int):
        return words.moment(value)
    if name in _MILLISECONDS and isinstance(value, int):
        return words.milliseconds(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else orjson.dumps(value).decode()
