"""Every field of a profile: missing, of each wrong kind, or unknown; the error names it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from datetime import date

import pytest

from engine.core.profile import ProfileError, parse_profile
from tests.core.test_own_profile import OWN, in_data

FULL = OWN.replace('"unchanged"', '"ecmascript"').replace(
    "[wire_types]", in_data('key = "event"\ntypes = ["x"]')
)
OPTIONAL = ("answer_header", "headers", "wire_types", "wire_type_in_data")
CHOSEN_FREELY = ("body", "headers", "wire_types")
"""Tables whose fields have any name."""
VALUES: tuple[object, ...] = (
    "",
    "\0",
    "soon",
    -1,
    2**70,
    1.5,
    float("nan"),
    True,
    date(2026, 1, 1),
    [],
    [[]],
    [1],
    {},
)
"""Something of each kind that TOML has; for each field some of them are wrong."""


def leaves(table: Mapping[str, object], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of each field and each table."""
    for key, value in table.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))


FIELDS = list(leaves(tomllib.loads(FULL)))


def is_needed(path: tuple[str, ...]) -> bool:
    """Whether a profile without it is wrong."""
    return path[0] not in CHOSEN_FREELY if len(path) > 1 else path[0] not in OPTIONAL


def changed(path: tuple[str, ...], *value: object) -> Mapping[str, object]:
    """The table with one field set, or taken out if there is no value."""
    top = tomllib.loads(FULL)
    table = top
    for key in path[:-1]:
        table = table[key]
    table.pop(path[-1], None)
    if value:
        table[path[-1]] = value[0]
    return top


def error_of(table: Mapping[str, object]) -> str:
    """What is wrong with a profile's table; empty if nothing is."""
    try:
        parse_profile("acme", table)
    except ProfileError as error:
        return str(error)
    return ""


def test_the_full_profile_is_right() -> None:
    """What the next tests change one thing in."""
    assert error_of(tomllib.loads(FULL)) == ""


@pytest.mark.parametrize("path", [path for path in FIELDS if is_needed(path)], ids=".".join)
def test_every_field_that_is_needed_is_missed(path: tuple[str, ...]) -> None:
    """By its full name."""
    name = ".".join(path)
    assert error_of(changed(path)) == f"{name}: is missing"


@pytest.mark.parametrize("path", FIELDS, ids=".".join)
def test_every_field_refuses_what_it_cannot_be(path: tuple[str, ...]) -> None:
    """For a value of each kind it says so by name, or takes it; nothing else is raised."""
    named = (".".join(path), path[0], "signature.signs" if path[0] == "headers" else path[0])
    refused = [error for value in VALUES if (error := error_of(changed(path, value)))]
    assert all(error.startswith(named) and error.partition(": ")[2] for error in refused), refused
    assert len(refused) >= (4 if path[0] == "body" else 9), refused


@pytest.mark.parametrize("table", ["", "signature", "secret", "wire_type_in_data"])
def test_unknown_fields_are_refused_in_every_table(table: str) -> None:
    """A mistyped name is not left out in silence."""
    path = (table, "retrys") if table else ("retrys",)
    name = ".".join(path)
    assert error_of(changed(path, 1)).startswith(f"{name}: is no field; there are ")
