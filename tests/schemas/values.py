"""Hypothesis: any value that a schema allows, as what fastavro writes."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

_PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False),
    "bytes": st.binary(max_size=40),
    "string": st.text(max_size=40),
}


def plain(schema: Any, named: dict[str, st.SearchStrategy[Any]] | None = None) -> st.SearchStrategy[Any]:
    """Dicts, lists and scalars that fit a schema; `named` are the types met so far."""
    named = {} if named is None else named
    if isinstance(schema, list):
        return st.one_of([plain(branch, named) for branch in schema])
    if isinstance(schema, str):
        return _PRIMITIVES[schema] if schema in _PRIMITIVES else named[schema]
    made = _complex(schema, named)
    if "name" in schema:
        named[schema["name"]] = made
    return made


def _complex(schema: Any, named: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    match schema["type"]:
        case "record":
            return st.fixed_dictionaries({f["name"]: plain(f["type"], named) for f in schema["fields"]})
        case "enum":
            return st.sampled_from(schema["symbols"])
        case "array":
            return st.lists(plain(schema["items"], named), max_size=3)
        case "map":
            return st.dictionaries(_PRIMITIVES["string"], plain(schema["values"], named), max_size=3)
        case primitive:
            return _PRIMITIVES[primitive]


def frozen(value: Any) -> Any:
    """The same value as a record holds it: lists are tuples there."""
    if isinstance(value, list):
        return tuple(frozen(item) for item in value)
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    return value
