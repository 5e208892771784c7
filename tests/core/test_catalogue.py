"""What a schema of the catalogue may be: in one document, and cheap to check against."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.catalogue import PATTERNS_MAX, SCHEMA_MAX, read_schema, violation


def doubling(levels: int) -> dict[str, object]:
    """A schema of some hundred characters that is 2^levels subschemas once its references are followed."""
    defs: dict[str, object] = {"l0": {"type": "string"}}
    for n in range(1, levels):
        defs[f"l{n}"] = {"allOf": [{"$ref": f"#/$defs/l{n - 1}"}] * 2}
    return {"$defs": defs, "$ref": f"#/$defs/l{levels - 1}"}


def chain(length: int, step: int) -> dict[str, object]:
    """Definitions that each refer to the next (step 1) or the one before (-1)."""
    last = length - 1 if step > 0 else 0
    defs = {f"{n}": {} if n == last else {"$ref": f"#/$defs/{n + step}"} for n in range(length)}
    return {"$defs": defs, "$ref": f"#/$defs/{0 if step > 0 else length - 1}"}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {
            "type": "object",
            "properties": {"$ref": {"type": "string"}, "$id": {}, "pattern": {"type": "null"}},
        },
        {"enum": [{"$ref": "https://example.com/x"}], "default": {"$id": "x"}},
        {"$id": "https://example.com/room", "$defs": {"a/b~c d": True}, "$ref": "#/$defs/a~1b~0c%20d"},
        {"items": {"$ref": "#"}, "prefixItems": [{"$ref": "#/items"}, {"$ref": "#/prefixItems/0"}]},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}},
        doubling(11),
        chain(200, 1),
        chain(200, -1),
        {"allOf": [{"pattern": "a"}] * PATTERNS_MAX},
    ],
)
def test_ordinary_schemas_are_read(schema: object) -> None:
    """References inside the document, recursive ones too; names of properties and values mean nothing."""
    assert read_schema(json.dumps(schema)) == schema


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("true", "must be a JSON Schema"),
        ("[]", "must be a JSON Schema"),
        ('{"maximum":' + "9" * 5_000 + "}", "is not JSON"),
        ('{"title":"' + "x" * SCHEMA_MAX + '"}', "at most 65536 characters"),
        ('{"not":' * 101 + "{}" + "}" * 101, "nested deeper than 100"),
        ("[" * 60_000, "nested deeper than 100"),
        ('"' + '\\"' * 32_000, "is not JSON"),
        ('{"$ref":"https://example.com/x"}', "nothing is ever fetched"),
        ('{"$ref":"http://169.254.169.254/"}', "nothing is ever fetched"),
        ('{"$ref":"file:///etc/passwd"}', "nothing is ever fetched"),
        ('{"$ref":"//example.com/x#/a"}', "nothing is ever fetched"),
        ('{"$ref":"other.json#/a"}', "nothing is ever fetched"),
        ('{"$ref":"#name"}', "nothing is ever fetched"),
        ('{"$ref":1}', "nothing is ever fetched"),
        ('{"$ref":"https://json-schema.org/draft/2020-12/schema"}', "nothing is ever fetched"),
        ('{"items":[{"not":{"$ref":"https://example.com/x"}}]}', "nothing is ever fetched"),
        ('{"$defs":{"a":{"$ref":"https://example.com/x"}}}', "nothing is ever fetched"),
        ('{"patternProperties":{"a":{"$ref":"https://example.com/x"}}}', "nothing is ever fetched"),
        ('{"$ref":"#/$defs/a"}', "leads to no schema"),
        ('{"$ref":"#/allOf/1","allOf":[{}]}', "leads to no schema"),
        ('{"$ref":"#/title","title":"x"}', "leads to no schema"),
        ('{"items":{"$id":"https://example.com/x"}}', "$id may stand at the top only"),
        ('{"$dynamicRef":"#a"}', "$dynamicRef is not supported"),
        ('{"items":{"$anchor":"a"}}', "$anchor is not supported"),
        ('{"pattern":"' + "a" * 1_001 + '"}', "at most 1000 characters"),
        ('{"patternProperties":{"' + "a" * 1_001 + '":{}}}', "at most 1000 characters"),
        (json.dumps({"allOf": [{"pattern": "a"}] * (PATTERNS_MAX + 1)}), "more than 50 patterns"),
        (json.dumps({"patternProperties": {f"a{n}": {} for n in range(51)}}), "more than 50 patterns"),
        (json.dumps(doubling(40)), "more than 10000 subschemas"),
        (json.dumps(chain(1_500, 1)), "deeper than 300 subschemas"),
        (json.dumps(chain(1_500, -1)), "deeper than 300 subschemas"),
    ],
)
def test_other_schemas_are_refused_with_the_rule(text: str, said: str) -> None:
    """The error names the rule; nothing that a short text can say takes long."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011  what it says is checked
        read_schema(text)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("steps", "path"),
    [
        ([], "payload"),
        (["mp4"], "payload.mp4"),
        (["transcript", 0, "speaker"], "payload.transcript[0].speaker"),
        (["a b", "é", "x-y", "$z", "", "1"], 'payload["a b"]["\\u00e9"].x-y.$z[""]["1"]'),
        (["a.b", "\ud800", 'q"'], 'payload["a.b"]["\\ud800"]["q\\""]'),
    ],
)
def test_paths(steps: list[str | int], path: str) -> None:
    """Such as a person would write in JavaScript; no key can be mistaken for another."""
    assert violation(steps, "is required") == (path, "is required")


@given(st.lists(st.text() | st.integers(0), max_size=300), st.text(max_size=1_000))
def test_what_is_said_stays_short_and_in_ascii(steps: list[str | int], rule: str) -> None:
    """However long the names of a hostile payload are."""
    found = violation(steps, rule)
    assert len(found.path) <= 200
    assert len(found.rule) <= 300
    assert found.path.removesuffix("…").isascii()
