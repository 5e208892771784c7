"""What a schema in the catalogue may be: JSON Schema, all in one document, cheap to check against."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote

from engine.core.payload import depth

SCHEMA_MAX = 64 << 10
"""Characters of a schema's text."""
PARTS_MAX = 10_000
"""Subschemas, each counted as often as it is referred to: references can double at each level."""
PATTERNS_MAX = 50
"""Regular expressions, counted likewise."""
PATTERN_MAX = 1_000
DEPTH_MAX = 100
"""Levels of brackets; of subschemas, references followed, three times as many."""

_DATA = frozenset({"const", "default", "enum", "example", "examples"})
"""Keywords that hold values, not schemas."""
_MAPS = frozenset({"dependencies", "dependentSchemas", "patternProperties", "properties"})
_DEFINITIONS = ("$defs", "definitions")
_ELSEWHERE = ("$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef")
_PATH_MAX = 200
_RULE_MAX = 300
_PLAIN = re.compile("[A-Za-z_$][A-Za-z0-9_$-]*")


class Violation(NamedTuple):
    """Where a payload breaks which rule of its schema."""

    path: str
    """Such as `payload.transcript[0].speaker`."""
    rule: str


_TOO_DEEP = f"must not lead deeper than {3 * DEPTH_MAX} subschemas, references followed"


class _Weight(NamedTuple):
    parts: int
    patterns: int
    levels: int


def violation(steps: list[str | int], rule: str) -> Violation:
    """Word it; `steps` lead from the payload to the value."""
    path = "payload" + "".join(map(_step, steps))
    return Violation(_cut(path, _PATH_MAX), _cut(rule, _RULE_MAX))


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if _PLAIN.fullmatch(step) else f"[{json.dumps(step)}]"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def read_schema(text: str) -> dict[str, object]:
    """Parse a schema and hold it to the limits; ValueError in words. Its keywords are for others to check."""
    if len(text) > SCHEMA_MAX:
        raise ValueError(f"must be at most {SCHEMA_MAX} characters")
    if depth(text.encode("utf-8", "replace")) > DEPTH_MAX:
        raise ValueError(f"must not be nested deeper than {DEPTH_MAX}")
    try:
        schema = json.loads(text)
    except ValueError as error:  # numbers of over 4,300 digits too
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ValueError('must be a JSON Schema: an object such as {"type": "object"}')
    weight = _Unfolded(schema).weigh(schema)
    if weight.levels > 3 * DEPTH_MAX:
        raise ValueError(_TOO_DEEP)
    if weight.parts > PARTS_MAX:
        raise ValueError(f"is more than {PARTS_MAX} subschemas, references followed")
    if weight.patterns > PATTERNS_MAX:
        raise ValueError(f"holds more than {PATTERNS_MAX} patterns, references followed")
    return schema


class _Unfolded:
    """Weighs a schema with its references followed; each subschema is looked at once."""

    def __init__(self, root: dict[str, object]) -> None:
        self._root = root
        self._known: dict[int, _Weight] = {}

    def weigh(self, schema: dict[str, object], level: int = 0) -> _Weight:
        """What a schema and all it refers to amount to; recursion counts once."""
        if level > 3 * DEPTH_MAX:
            raise ValueError(_TOO_DEEP)
        if id(schema) not in self._known:
            self._known[id(schema)] = _Weight(1, 0, 1)
            inside = [self.weigh(each, level + 1) for each in self._reached(schema)]
            for each in _definitions(schema):  # counts where it is referred to
                self.weigh(each, level + 1)
            self._known[id(schema)] = _Weight(
                1 + sum(each.parts for each in inside),
                _own_patterns(schema) + sum(each.patterns for each in inside),
                1 + max((each.levels for each in inside), default=0),
            )
        return self._known[id(schema)]

    def _reached(self, schema: dict[str, object]) -> Iterator[dict[str, object]]:
        for keyword in _ELSEWHERE:
            if keyword in schema:
                raise ValueError(f"{keyword} is not supported: refer by $ref to #/$defs/…")
        if "$id" in schema and schema is not self._root:
            raise ValueError("$id may stand at the top only: refer by $ref to #/$defs/…")
        if "$ref" in schema:
            yield self._target(schema["$ref"])
        yield from _subschemas(schema)

    def _target(self, reference: object) -> dict[str, object]:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise ValueError(
                f"$ref {reference!r:.100} leads elsewhere: nothing is ever fetched, use #/$defs/…"
            )
        found: object = self._root
        for step in unquote(reference).split("/")[1:]:
            found = _within(found, step.replace("~1", "/").replace("~0", "~"))
        if isinstance(found, bool):
            return {}
        if not isinstance(found, dict):
            raise ValueError(f"$ref {reference!r:.100} leads to no schema in this document")
        return found


def _within(value: object, step: str) -> object:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
        return value[int(step)]
    return None


def _subschemas(schema: dict[str, object]) -> Iterator[dict[str, object]]:
    for keyword, value in schema.items():
        if keyword in _DATA or keyword in _DEFINITIONS:
            continue
        inside = [value]
        if isinstance(value, list):
            inside = value
        elif keyword in _MAPS and isinstance(value, dict):
            inside = list(value.values())
        yield from (each for each in inside if isinstance(each, dict))


def _definitions(schema: dict[str, object]) -> list[dict[str, object]]:
    named = [schema[keyword] for keyword in _DEFINITIONS if keyword in schema]
    return [
        each
        for group in named
        if isinstance(group, dict)
        for each in group.values()
        if isinstance(each, dict)
    ]


def _own_patterns(schema: dict[str, object]) -> int:
    keyed = schema.get("patternProperties")
    patterns = [schema["pattern"]] if "pattern" in schema else []
    patterns += list(keyed) if isinstance(keyed, dict) else []
    if any(isinstance(pattern, str) and len(pattern) > PATTERN_MAX for pattern in patterns):
        raise ValueError(f"pattern: must be at most {PATTERN_MAX} characters")
    return len(patterns)
