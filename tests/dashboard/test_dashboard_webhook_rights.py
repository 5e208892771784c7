"""Settings → Webhooks: turning off, deleting, other tabs, other tenants, and who may what."""

from __future__ import annotations

import pytest

from tests.dashboard.settings_forms import fields_of, filled, send
from tests.dashboard.test_dashboard_pages import shown
from tests.dashboard.test_dashboard_webhooks import URL, added, told
from tests.dashboard.visitor import Visitor
from tests.dashboard.world import World

pytestmark = pytest.mark.integration


def test_disabling_asks_first_and_enabling_does_not(world: World, admin: Visitor) -> None:
    """Both are told on the endpoint's page."""
    id = world.endpoints["acme"]
    assert f"webhooks/{id}/disable" in admin.get(f"endpoints/{id}").text
    assert "is skipped and stays skipped" in shown(admin.get(f"webhooks/{id}/disable"))
    answer = admin.post(f"webhooks/{id}/disable")
    assert (answer.status_code, told(world, id)["enabled"]) == (303, False)
    page = admin.get(f"endpoints/{id}")
    assert "The endpoint is disabled." in shown(page)
    assert f"webhooks/{id}/enable" in page.text
    assert (admin.post(f"webhooks/{id}/enable").status_code, told(world, id)["enabled"]) == (303, True)


def test_deleting_takes_a_word(world: World, admin: Visitor) -> None:
    """Without it nothing is done; a second time there is nothing to delete."""
    id = world.endpoints["acme"]
    path = f"webhooks/{id}/delete"
    assert "Type delete to go on" in shown(admin.get(path))
    for word in ("", "Delete it"):
        assert "nothing was deleted" in shown(admin.post(path, {"word": word}), 422)
    assert told(world, id)["id"] == id
    assert admin.post(path, {"word": "delete"}).headers["location"] == "/dashboard/webhooks"
    assert world.api.ask("GET", f"/v1/endpoints/{id}").status_code == 404
    assert "was deleted" in shown(admin.post(path, {"word": "delete"}), 404)


def test_what_another_tab_has_deleted_is_a_clear_page(world: World, admin: Visitor) -> None:
    """On every page of it; what was typed into the form is there for a new endpoint."""
    id = world.endpoints["acme"]
    page = admin.get(f"webhooks/{id}/edit")
    world.api.ask("DELETE", f"/v1/endpoints/{id}")
    for path in ("edit", "disable", "delete", "rotate", "test"):
        assert "This endpoint was deleted" in shown(admin.get(f"webhooks/{id}/{path}"), 404), path
    for path in ("enable", "disable", "rotate", "test"):
        assert "This endpoint was deleted" in shown(admin.post(f"webhooks/{id}/{path}"), 404), path
    answer = admin.post(f"webhooks/{id}/edit", filled(page, description="long words"))
    assert "add a new endpoint" in shown(answer, 404)
    assert dict(fields_of(answer))["description"] == "long words"
    again = admin.post("webhooks/new", filled(answer, owner="acme"))
    assert told(world, added(again.text))["description"] == "long words"


def test_nobody_changes_what_is_another_tenants(world: World, acme: Visitor) -> None:
    """404 as if it were not there; to add to another tenant is refused, and nothing typed is lost."""
    id = world.endpoints["other"]
    before = told(world, id)
    for path in ("enable", "disable", "delete", "rotate", "test", "edit"):
        answer = acme.post(f"webhooks/{id}/{path}", {"word": "delete", "url": URL, "version": "1"})
        assert "There is no such endpoint" in shown(answer, 404), path
    assert told(world, id) == before
    answer = send(acme, "webhooks/new", owner="other", url=URL)
    assert "bound to the tenant" in shown(answer, 403)
    assert dict(fields_of(answer))["url"] == URL
    assert send(acme, "webhooks/new", url=URL).status_code == 201


def test_who_may_only_look_has_no_buttons_and_is_refused(world: World) -> None:
    """Neither forms nor changes."""
    reader = Visitor(world.api, world.api.new_key("read", tenant="acme"))
    id = world.endpoints["acme"]
    for path in ("webhooks", f"endpoints/{id}"):
        page = reader.get(path)
        assert page.status_code == 200
        assert f"webhooks/{id}/" not in page.text, path
        assert "webhooks/new" not in page.text, path
    for path in ("new", f"{id}/edit", f"{id}/rotate", f"{id}/test", f"{id}/delete", f"{id}/disable"):
        assert "lacks the scope manage" in shown(reader.get(f"webhooks/{path}"), 403), path
        assert "lacks the scope manage" in shown(reader.post(f"webhooks/{path}", {"word": "delete"}), 403)
    assert reader.post(f"webhooks/{id}/enable").status_code == 403


def test_text_of_others_is_shown_and_never_run(world: World, admin: Visitor) -> None:
    """Descriptions and header names come from tenants, and platform admins look at them."""
    id = world.add_endpoint("acme", description='"><script>alert(1)</script>\u202e')
    for path in ("webhooks", f"endpoints/{id}", f"webhooks/{id}/edit"):
        text = admin.get(path).text
        assert "<script>alert" not in text
        assert "&lt;script&gt;" in text
