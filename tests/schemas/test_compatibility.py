"""BACKWARD_TRANSITIVE: today's reader understands what every kept version has written."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.directory import Tenant
from schemas.codec import MARKER, Codec, fingerprint_of
from tests.schemas.kept import FOLDER, HOW, NAMES, current, problems, read, versions, without_docs
from tests.schemas.values import plain

CODEC = Codec()
KEPT = [(name, number) for name in NAMES for number in versions(name)]

Field = dict[str, Any]
every_version = pytest.mark.parametrize(("name", "version"), KEPT)


@pytest.mark.parametrize("name", NAMES)
def test_the_newest_version_kept_is_the_current_one(name: str) -> None:
    """Whoever changes a schema keeps the new version too; this says how."""
    kept = versions(name)
    assert kept, f"{name}.avsc is not kept: {HOW}"
    same = without_docs(read(kept[max(kept)])) == without_docs(current(name))
    assert same, f"{name}.avsc differs from versions/{name}.{max(kept)}.avsc: {HOW}"


@pytest.mark.parametrize("name", NAMES)
def test_versions_are_numbered_without_holes(name: str) -> None:
    """1, 2, 3…: none is deleted while the log may still hold its records."""
    assert list(versions(name)) == list(range(1, len(versions(name)) + 1))


def test_every_kept_version_is_of_a_record() -> None:
    """No file is there that the codec never looks at."""
    of_records = {path for name in NAMES for path in versions(name).values()}
    assert set((FOLDER / "versions").glob("*.avsc")) == of_records


@every_version
def test_no_rule_is_broken(name: str, version: int) -> None:
    """Fields that are added have defaults, types stay, symbols and branches only come."""
    assert problems(current(name), read(versions(name)[version])) == []


@every_version
@settings(max_examples=25)
@given(data=st.data())
def test_what_a_version_wrote_is_decoded(name: str, version: int, data: st.DataObject) -> None:
    """Any value of any kept version, through fastavro's own resolution."""
    schema = read(versions(name)[version])
    value, out = data.draw(plain(schema)), BytesIO()
    out.write(MARKER + fingerprint_of(schema))
    schemaless_writer(out, parse_schema(schema), value)
    assert isinstance(CODEC.decode(out.getvalue()), NAMES[name])


# -- the rules themselves ---------------------------------------------------------------


def field(schema: Any, name: str) -> Field:
    """A field of a record."""
    return next(f for f in schema["fields"] if f["name"] == name)


def changed(change: Any) -> Any:
    """AttemptFinished after a change."""
    schema = deepcopy(current("attempt_finished"))
    change(schema, schema["fields"])
    return schema


BREAKING = {
    "a field without default": (
        lambda s, fields: fields.append({"name": "proxy", "type": "string"}),
        "needs a default",
    ),
    "another type": (lambda s, _: field(s, "attempt").update(type="string"), "from int to string"),
    "a promotion": (lambda s, _: field(s, "attempt").update(type="long"), "from int to long"),
    "a union": (lambda s, _: field(s, "worker").update(type=["null", "string"]), "from string to union"),
    "no logical type": (lambda s, _: field(s, "retry_at")["type"].pop("logicalType"), "logical type"),
    "a symbol less": (lambda s, _: field(s, "outcome")["type"]["symbols"].pop(), "symbol none was removed"),
    "another enum": (
        lambda s, _: field(s, "outcome")["type"].update(name="Fate"),
        "enum Result to enum Fate",
    ),
    "another record": (lambda s, _: s.update(name="Attempt"), "AttemptFinished to record Attempt"),
}
SAFE = {
    "a field with a default": lambda s, fields: fields.append(
        {"name": "proxy", "type": "string", "default": ""}
    ),
    "a field less": lambda s, fields: fields.pop(),
    "another order": lambda s, fields: fields.reverse(),
    "a symbol more": lambda s, _: field(s, "trigger")["type"]["symbols"].append("backfill"),
    "other words": lambda s, _: s.update(doc="Other words."),
}


@pytest.mark.parametrize("change", BREAKING)
def test_a_breaking_change_is_found(change: str) -> None:
    """Each kind of change that could make old records unreadable is named."""
    apply, words = BREAKING[change]
    (problem,) = problems(changed(apply), current("attempt_finished"))
    assert words in problem


@pytest.mark.parametrize("change", SAFE)
def test_a_safe_change_is_allowed(change: str) -> None:
    """What every reader can resolve is no problem."""
    assert problems(changed(SAFE[change]), current("attempt_finished")) == []


def test_a_symbol_more_needs_a_default_in_the_enum() -> None:
    """An older reader takes the default for a symbol it does not know; without one it would fail."""
    old = deepcopy(current("attempt_finished"))
    del field(old, "trigger")["type"]["default"]
    new = deepcopy(old)
    field(new, "trigger")["type"]["symbols"].append("backfill")
    (problem,) = problems(new, old)
    assert "enum without default" in problem


def test_a_branch_of_a_union_stays() -> None:
    """What may be null stays so."""
    old = deepcopy(current("disable_endpoint"))
    new = deepcopy(old)
    field(new, "expected_epoch")["type"].remove("null")
    assert any("a branch of the union was removed" in problem for problem in problems(new, old))


def test_nested_records_are_compared() -> None:
    """A break inside an array of records is found where it is."""
    new = deepcopy(current("routed_batch"))
    inner = field(new, "routings")["type"]["items"]
    field(inner, "skipped")["type"]["items"]["fields"].append({"name": "why", "type": "string"})
    (problem,) = problems(new, current("routed_batch"))
    assert problem.startswith("RoutedBatch.routings[]Routing.skipped[]Skipped.why")


def test_what_producers_write_never_loses_a_field() -> None:
    """MessagePublished is a public contract: additive for ever."""
    new = deepcopy(current("message_published"))
    new["fields"].pop()
    (problem,) = problems(new, current("message_published"))
    assert "attributes" in problem


def test_a_record_of_an_older_version_is_resolved(tmp_path: Path) -> None:
    """A field that came later gets its default, one that went is dropped, and both versions are read."""
    for path in FOLDER.glob("*.avsc"):
        shutil.copy(path, tmp_path)
    old = json.loads((FOLDER / "tenant.avsc").read_text())
    old["fields"] = [f for f in old["fields"] if f["name"] != "name"]
    old["fields"].append({"name": "plan", "type": "string", "doc": "Gone since.", "default": ""})
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "tenant.1.avsc").write_text(json.dumps(old))
    out = BytesIO()
    out.write(MARKER + fingerprint_of(old))
    schemaless_writer(
        out, parse_schema(old), {"id": "acme", "created_at": 7, "deleted": True, "plan": "gold"}
    )
    codec = Codec(tmp_path)
    assert codec.decode(out.getvalue()) == Tenant("acme", "", 7, True)
    assert codec.decode(CODEC.encode(Tenant("acme", "Acme"))) == Tenant("acme", "Acme")
