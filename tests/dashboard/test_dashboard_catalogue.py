"""The page of event types: the catalogue, and changing it."""

from __future__ import annotations

import re

import pytest

from tests.dashboard.settings_forms import fields_of, filled, send
from tests.dashboard.test_dashboard_pages import shown
from tests.dashboard.visitor import Visitor
from tests.dashboard.world import World
from tests.integration.api_fixtures import Api

pytestmark = pytest.mark.integration
SCHEMA = {"type": "object", "required": ["room"]}


def catalogue(api: Api) -> dict[str, dict[str, object]]:
    """The catalogue, by name."""
    return {each["name"]: each for each in api.ask("GET", "/v1/event-types?limit=500").json()["data"]}


def put(api: Api, name: str, **given: object) -> None:
    """Make or replace one."""
    answer = api.ask("PUT", f"/v1/event-types/{name}", given)
    assert answer.status_code == 200, answer.text


def test_the_catalogue_is_shown_with_examples_and_schemas(
    world: World, admin: Visitor, acme: Visitor
) -> None:
    """To all; only the platform's admins may change it."""
    assert "The catalogue is empty" in shown(acme.get("event-types"))
    assert "Add an event type" not in shown(acme.get("event-types"))
    put(world.api, "room.ended", description="<i>It</i> ended", example={"room": "blue"}, schema=SCHEMA)
    for visitor in (admin, acme):
        page = visitor.get("event-types")
        assert "room.ended" in page.text
        assert "<i>It</i>" not in page.text
        assert "{\n  &#34;room&#34;: &#34;blue&#34;\n}" in page.text
        assert "&#34;required&#34;" in page.text
    assert "event-types/edit?name=room.ended" in admin.get("event-types").text
    assert "event-types/edit" not in acme.get("event-types").text


def test_an_event_type_is_added_changed_and_deleted(world: World, admin: Visitor) -> None:
    """The API has it as it was written, an example of null too."""
    given = {
        "name": "room.ended",
        "description": "a\r\nb",
        "example": '{"room": "é"}',
        "schema": '{"type":"object"}',
    }
    assert send(admin, "event-types/new", **given).status_code == 303
    made = catalogue(world.api)["room.ended"]
    assert (made["description"], made["example"], made["schema"]) == (
        "a\nb",
        {"room": "é"},
        {"type": "object"},
    )
    path = "event-types/edit?name=room.ended"
    assert dict(fields_of(admin.get(path)))["example"] == '{\n  "room": "é"\n}'
    assert send(admin, path, example="null", schema="").status_code == 303
    made = catalogue(world.api)["room.ended"]
    assert (made["description"], made["example"], made["schema"]) == ("a\nb", None, None)
    assert "example" in made
    assert send(admin, path, example="").status_code == 303
    assert "example" not in catalogue(world.api)["room.ended"]
    path = "event-types/delete?name=room.ended"
    assert "no longer offered" in shown(admin.get(path))
    assert "nothing was deleted" in shown(admin.post(path, {"word": "no"}), 422)
    assert admin.post(path, {"word": "delete"}).status_code == 303
    assert catalogue(world.api) == {}
    assert "There is no such event type" in shown(admin.post(path, {"word": "delete"}), 404)
    assert "There is no such event type" in shown(admin.get(path), 404)


def test_what_is_wrong_stands_at_its_field(world: World, admin: Visitor) -> None:
    """With the place in what was typed; nothing typed is lost."""
    put(world.api, "room.there")
    good = {"name": "room.ended", "description": "kept", "example": '{"room":1}'}
    for changed, field, said in (
        ({"name": ""}, "name", "printable ASCII"),
        ({"name": "rö om"}, "name", "printable ASCII"),
        ({"name": ".."}, "name", "must not be"),
        ({"name": "room.there"}, "name", "in the catalogue already"),
        ({"description": "x" * 4_001}, "description", "at most 4000"),
        ({"example": '{"room":\n  oops}'}, "example", "line 2, column 3"),
        ({"example": '1,"x":2'}, "example", "more than one value"),
        ({"example": "1} {"}, "example", "cannot be read"),
        ({"example": '{"a":1,"a":2}'}, "example", "twice"),
        ({"example": "[" * 200 + "]" * 200}, "example", "nested deeper"),
        ({"example": "1e999"}, "example", "out of range"),
        ({"schema": "[]"}, "schema", "dict"),
        ({"schema": '{"type":"nothing"}'}, "schema", "type"),
        ({"schema": '{"required":["x"]}'}, "example", "x: is required"),
    ):
        values = {**good, **changed}
        answer = send(admin, "event-types/new", **values)
        assert answer.status_code == 422, (changed, answer.text)
        tag = re.search(rf'<p class="error" id="e-{field}"[^>]*>(.*?)</p>', answer.text, re.DOTALL)
        assert tag, (changed, answer.text)
        assert said in tag[1], (changed, tag[1])
        kept = dict(fields_of(answer))
        for name, value in values.items():
            assert kept[name] == value, name
    assert set(catalogue(world.api)) == {"room.there"}


def test_a_change_or_deletion_meanwhile_loses_nothing(world: World, admin: Visitor) -> None:
    """409 with what it is now, then it is saved; a deleted one becomes the form of a new one."""
    put(world.api, "room.ended", description="first")
    path = "event-types/edit?name=room.ended"
    page = admin.get(path)
    put(world.api, "room.ended", description="theirs", example={"of": "theirs"})
    answer = admin.post(path, filled(page, description="mine"))
    assert "What it is now" in shown(answer, 409)
    assert "theirs" in shown(answer, 409)
    assert catalogue(world.api)["room.ended"]["description"] == "theirs"
    assert admin.post(path, fields_of(answer)).status_code == 303
    assert catalogue(world.api)["room.ended"]["description"] == "mine"
    page = admin.get(path)
    world.api.ask("DELETE", "/v1/event-types/room.ended")
    assert "There is no such event type" in shown(admin.get(path), 404)
    answer = admin.post(path, filled(page, description="words"))
    assert "save it to add it anew" in shown(answer, 404)
    assert admin.post("event-types/new", fields_of(answer)).status_code == 303
    assert catalogue(world.api)["room.ended"]["description"] == "words"


def test_only_the_platforms_admins_change_it(world: World, acme: Visitor) -> None:
    """Not a tenant's admin, nor a manager of the platform."""
    put(world.api, "room.ended")
    manager = Visitor(world.api, world.api.new_key("manage"))
    for visitor in (acme, manager):
        for path in ("new", "edit?name=room.ended", "delete?name=room.ended"):
            assert shown(visitor.get(f"event-types/{path}"), 403)
            answer = visitor.post(f"event-types/{path}", {"name": "x", "word": "delete"})
            assert shown(answer, 403), path
    assert set(catalogue(world.api)) == {"room.ended"}
