"""The page of API keys: the list, making one, revoking one."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from engine.dev.process import wait_until
from tests.dashboard.settings_forms import fields_of, filled, secret_of, send
from tests.dashboard.test_dashboard_pages import shown
from tests.dashboard.visitor import Visitor
from tests.dashboard.world import World
from tests.integration.api_fixtures import Api

pytestmark = pytest.mark.integration


def keys(api: Api) -> dict[str, dict[str, object]]:
    """Keys that are valid, by id."""
    return {each["id"]: each for each in api.ask("GET", "/v1/keys?limit=500").json()["data"]}


def test_a_key_is_made_and_shown_once(world: World, admin: Visitor) -> None:
    """It works, and only in its tenant; the same form again makes none and shows none."""
    page = admin.get("keys/new?tenant=acme")
    assert dict(fields_of(page))["owner"] == "acme"
    given = filled(
        page, scopes=["read", "publish"], description="the <b>shop</b>", expires_at="2099-01-31T12:00"
    )
    answer = admin.post("keys/new?tenant=acme", given)
    key = secret_of(answer)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = keys(world.api)[key.split("_")[1]]
    assert (made["tenant"], made["scopes"]) == ("acme", ["publish", "read"])
    assert made["expires_at"] == "2099-01-31T12:00:00Z"
    assert world.api.ask_as(key, "GET", "/v1/endpoints").status_code == 200
    assert world.api.ask_as(key, "GET", "/v1/endpoints?tenant=other").status_code == 403
    before = len(keys(world.api))
    again = admin.post("keys/new?tenant=acme", given)
    assert "no second key was made" in shown(again, 201)
    assert key not in again.text
    assert len(keys(world.api)) == before
    listed = admin.get("keys")
    assert key not in listed.text
    assert "<b>shop</b>" not in listed.text
    assert re.search(r"the &lt;b&gt;shop&lt;/b&gt; acme publish read", shown(listed))


def test_what_is_wrong_with_a_key_stands_at_its_field(world: World, admin: Visitor) -> None:
    """What was ticked and typed stays; nothing is made."""
    before = keys(world.api)
    good: dict[str, str | list[str] | None] = {"scopes": ["read"], "description": "kept"}
    for changed, field in (
        ({"scopes": []}, "scopes"),
        ({"scopes": ["everything"]}, "scopes"),
        ({"owner": "nobody"}, "owner"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"expires_at": "2020-01-01T00:00"}, "expires_at"),
        ({"description": "x" * 1_001}, "description"),
    ):
        answer = send(admin, "keys/new", **{**good, **changed})
        assert answer.status_code == 422, answer.text
        assert f'id="e-{field}"' in answer.text, field
        tag = re.search(rf'<(?:input|fieldset)[^>]*id="f-{field}"[^>]*>', answer.text)
        assert tag
        assert "autofocus" in tag[0]
        assert ('value="read" checked' in answer.text) == ("scopes" not in changed)
        assert "kept" in answer.text or "description" in changed
    assert keys(world.api) == before


def test_revoking_takes_a_word_and_ends_sessions(world: World, admin: Visitor) -> None:
    """Also the own one, of which it warns."""
    key = world.api.new_key("admin", tenant="acme")
    id = key.split("_")[1]
    owner = Visitor(world.api, key)
    assert "you will be logged out" in shown(owner.get(f"keys/{id}/revoke"))
    assert "you will be logged out" not in shown(admin.get(f"keys/{id}/revoke"))
    assert "nothing was revoked" in shown(admin.post(f"keys/{id}/revoke", {"word": "yes"}), 422)
    assert id in keys(world.api)
    assert admin.post(f"keys/{id}/revoke", {"word": "revoke"}).status_code == 303
    assert id not in keys(world.api)
    assert "is revoked." in shown(admin.get("keys"))
    assert owner.get("keys").status_code == 303
    for answer in (admin.post(f"keys/{id}/revoke", {"word": "revoke"}), admin.get(f"keys/{id}/revoke")):
        assert "There is no such key" in shown(answer, 404)


def test_a_tenant_sees_and_revokes_its_own_keys_only(world: World, acme: Visitor) -> None:
    """Those of the platform and of others do not exist for it."""
    ours = world.api.new_key("read", tenant="acme").split("_")[1]
    theirs = world.api.new_key("read", tenant="other").split("_")[1]
    platforms = world.api.new_key("read").split("_")[1]
    text = acme.get("keys").text
    assert (ours in text, theirs in text, platforms in text) == (True, False, False)
    for id in (theirs, platforms):
        assert "There is no such key" in shown(acme.get(f"keys/{id}/revoke"), 404)
        assert "There is no such key" in shown(acme.post(f"keys/{id}/revoke", {"word": "revoke"}), 404)
        assert id in keys(world.api)
    assert "bound to the tenant" in shown(send(acme, "keys/new", scopes=["read"], owner="other"), 403)
    made = secret_of(send(acme, "keys/new", scopes=["read"]))
    assert keys(world.api)[made.split("_")[1]]["tenant"] == "acme"


def test_only_who_has_the_scope_admin_sees_keys(world: World) -> None:
    """Neither the link nor the pages."""
    manager = Visitor(world.api, world.api.new_key("manage", tenant="acme"))
    assert "/dashboard/keys" not in manager.get("overview").text
    for path in ("keys", "keys/new", "keys/x/revoke"):
        assert "lacks the scope admin" in shown(manager.get(path), 403), path
    for path in ("keys/new", "keys/x/revoke"):
        assert "lacks the scope admin" in shown(manager.post(path, {"scopes": "read", "word": "revoke"}), 403)


def test_an_expired_key_says_so(world: World, admin: Visitor) -> None:
    """It stays in the list until it is revoked."""
    at = datetime.fromtimestamp(world.api.context.clock.now() / 1e6 + 1.5, UTC).isoformat()
    assert world.api.ask("POST", "/v1/keys", {"scopes": ["read"], "expires_at": at}).status_code == 201
    assert "Expired" not in shown(admin.get("keys"))
    assert wait_until(lambda: "Expired" in shown(admin.get("keys")), 20, 0.1)
