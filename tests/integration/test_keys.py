"""API keys and tenants: made, shown once, bound, expired, revoked, deleted."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from urllib.parse import quote

import pytest

from engine.core.change import EndpointCreated
from engine.core.directory import KeyCreated, KeyRevoked, TenantCreated, TenantDeleted
from engine.runtime.memory import MemoryLog
from tests.integration.api_fixtures import PARTITIONS, Api, fields
from tests.integration.api_fixtures import shared_api as api

__all__ = ["api"]

URL = "https://hooks.example.com/in"


def facts(api: Api) -> list[object]:
    """Everything on `changes`."""
    log = api.context.log
    assert isinstance(log, MemoryLog)
    records = (record for n in range(PARTITIONS) for record in log.records(("changes", n)))
    return [api.context.codec.decode(record.value) for record in records]


def tenant(api: Api, id: str) -> str:
    """Create a tenant."""
    assert api.ask("POST", "/v1/tenants", {"id": id}).status_code == 201
    return id


def test_a_key_is_shown_once_and_kept_as_its_digest(api: Api) -> None:
    """201 has it, with 256 random bits; a list and the view have everything but the key."""
    body = {"scopes": ["publish", "read"], "tenant": tenant(api, "once"), "description": "for once"}
    made = api.ask("POST", "/v1/keys", body)
    assert made.status_code == 201
    shown = made.json()
    key = shown.pop("key")
    prefix, id, secret = key.split("_", 2)
    assert (prefix, id, len(secret)) == ("hl", shown["id"], 43)
    assert {name: shown[name] for name in ("tenant", "scopes", "description", "expires_at")} == {
        **body,
        "expires_at": None,
    }
    listed = api.ask("GET", "/v1/keys?tenant=once")
    assert listed.json() == {"data": [shown], "next": None}
    assert secret not in listed.text
    assert api.services.configuration.keys[id].digest == sha256(key.encode()).digest()


def test_a_repeat_under_an_idempotency_key_shows_the_key_no_more(api: Api) -> None:
    """The same body: the same key, not shown. Another body: 422 that names the header."""
    body = {"scopes": ["read", "publish"]}
    first = api.ask("POST", "/v1/keys", body, idempotency_key="k")
    again = api.ask("POST", "/v1/keys", {"scopes": ["publish", "read"]}, idempotency_key="k")
    other = api.ask("POST", "/v1/keys", {"scopes": ["manage"]}, idempotency_key="k")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == {name: value for name, value in first.json().items() if name != "key"}
    assert fields(other) == ["Idempotency-Key"]
    assert api.ask_as(first.json()["key"], "GET", "/v1/endpoints").status_code == 200


def test_a_revoked_key_is_refused_from_the_answer_on(api: Api) -> None:
    """204, then 401, then 404; it is listed no more, and who did it is on the log."""
    admin = api.new_key("admin")
    made = api.ask("POST", "/v1/keys", {"scopes": ["read"]}).json()
    path = f"/v1/keys/{made['id']}"
    assert api.ask_as(made["key"], "GET", "/v1/endpoints").status_code == 200
    assert api.ask_as(admin, "DELETE", path).status_code == 204
    assert api.ask_as(made["key"], "GET", "/v1/endpoints").status_code == 401
    assert api.ask("DELETE", path).status_code == 404
    assert made["id"] not in api.ask("GET", "/v1/keys?limit=500").text
    by = {fact.actor for fact in facts(api) if isinstance(fact, KeyRevoked) and fact.key_id == made["id"]}
    assert by == {f"key:{admin.split('_')[1]}"}


def test_a_key_is_refused_once_it_has_expired(api: Api) -> None:
    """200 before, 401 from that time on."""
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+00:00", "Z")  # noqa: TID251
    made = api.ask("POST", "/v1/keys", {"scopes": ["read"], "expires_at": later}).json()
    assert made["expires_at"][:19] == later[:19]
    assert api.ask_as(made["key"], "GET", "/v1/endpoints").status_code == 200
    keys = api.services.configuration.keys
    keys[made["id"]] = replace(keys[made["id"]], expires_at=time.time_ns() // 1_000 - 1)
    assert api.ask_as(made["key"], "GET", "/v1/endpoints").status_code == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes.0"),
        ({"scopes": "read"}, "scopes"),
        ({"scopes": ["read"], "tenant": "never-made"}, "tenant"),
        ({"scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"scopes": ["read"], "expires_at": "2030-01-01"}, "expires_at"),
        ({"scopes": ["read"], "expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"scopes": ["read"], "expires_at": 4e9}, "expires_at"),
        ({"scopes": ["read"], "description": "\0"}, "description"),
    ],
)
def test_a_wrong_field_of_a_key_is_named(api: Api, body: dict[str, object], field: str) -> None:
    """422, and nothing is made."""
    before = len(api.services.configuration.keys)
    assert fields(api.ask("POST", "/v1/keys", body)) == [field]
    assert len(api.services.configuration.keys) == before


def test_a_tenants_admin_manages_the_keys_of_its_tenant_only(api: Api) -> None:
    """What it makes is bound to its tenant; those of the platform are not there for it."""
    admin = api.new_key("admin", tenant=tenant(api, "self-managed"))
    made = api.ask_as(admin, "POST", "/v1/keys", {"scopes": ["admin"]}).json()
    assert made["tenant"] == "self-managed"
    listed = api.ask_as(admin, "GET", "/v1/keys?limit=500").json()["data"]
    assert {key["id"] for key in listed} == {made["id"], admin.split("_")[1]}
    platforms = api.new_key("read").split("_")[1]
    assert api.ask_as(admin, "DELETE", f"/v1/keys/{platforms}").status_code == 404
    assert api.ask_as(admin, "DELETE", f"/v1/keys/{made['id']}").status_code == 204


def test_every_change_names_the_key_it_was_made_with(api: Api) -> None:
    """`key:<id>`; the key of the setting is `admin`."""
    key = api.new_key("manage", tenant=tenant(api, "named"))
    made = api.ask_as(key, "POST", "/v1/endpoints", {"url": URL}).json()
    actors = {
        fact.actor for fact in facts(api) if isinstance(fact, EndpointCreated) and fact.tenant == "named"
    }
    assert actors == {f"key:{key.split('_')[1]}"}
    assert made["tenant"] == "named"
    assert {fact.actor for fact in facts(api) if isinstance(fact, KeyCreated) and fact.tenant == "named"} == {
        "admin"
    }


def test_a_deleted_tenant_takes_its_endpoints_and_keys_with_it(api: Api) -> None:
    """204; its key is refused, its endpoint is not there, and it cannot be deleted twice."""
    key = api.new_key("admin", tenant=tenant(api, "a/b gone"))
    endpoint = api.ask_as(key, "POST", "/v1/endpoints", {"url": URL}).json()["id"]
    assert api.ask("DELETE", "/v1/tenants/a%2Fb%20gone").status_code == 204
    assert api.ask_as(key, "GET", "/v1/endpoints").status_code == 401
    assert api.ask("GET", f"/v1/endpoints/{endpoint}").status_code == 404
    assert api.ask("DELETE", "/v1/tenants/a%2Fb%20gone").status_code == 404
    assert "a/b gone" not in api.ask("GET", "/v1/tenants?limit=500").text
    kinds = [
        type(f) for f in facts(api) if isinstance(f, TenantCreated | TenantDeleted) and "gone" in f.tenant
    ]
    assert kinds == [TenantCreated, TenantDeleted]


def test_tenants_are_listed_in_pages_and_made_once(api: Api) -> None:
    """Each once, in order; a second of that name is a conflict, a repeat is not."""
    made = [tenant(api, f"päge {n}") for n in range(3)]
    assert api.ask("POST", "/v1/tenants", {"id": made[0]}).status_code == 409
    first = api.ask("POST", "/v1/tenants", {"id": "repeated", "name": "R"}, idempotency_key="t")
    again = api.ask("POST", "/v1/tenants", {"id": "repeated", "name": "R"}, idempotency_key="t")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    other = api.ask("POST", "/v1/tenants", {"id": "repeated", "name": "S"}, idempotency_key="t")
    assert fields(other) == ["Idempotency-Key"]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api.ask("GET", f"/v1/tenants?limit=2{f'&cursor={cursor}' if cursor else ''}").json()
        seen += [each["id"] for each in page["data"]]
        cursor = page["next"]
    assert [id for id in seen if id.startswith("päge")] == made
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("cursor", ["", "x", "é", "MC4x=", "LTEuYQ==", "MS 5h", "9" * 5_000, "MS5h\n", "_w"])
@pytest.mark.parametrize("path", ["tenants", "keys", "event-types", "endpoints"])
def test_a_cursor_that_was_never_given_out_is_refused(api: Api, path: str, cursor: str) -> None:
    """422 that names it, on each list of the configuration."""
    assert fields(api.ask("GET", f"/v1/{path}?cursor={quote(cursor)}")) == ["cursor"]
