"""A tenant's key can neither see nor guess anything of another tenant, over every route there is.

The routes come from the OpenAPI document: one that is added later is tried
too, or the test fails and says what it needs to know about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import httpx
import pytest

from engine.core.replay import Replay
from engine.core.routing import delivery_id
from engine.runtime.history.clickhouse import History
from engine.runtime.history.rows import columns, finished_rows, routed_rows
from tests.integration.api_fixtures import Api, make_context, running
from tests.integration.history_fixtures import TOPIC, attempt, batch, record, routing
from tests.integration.history_fixtures import Store as HistoryStore
from tests.integration.routes import Route, routes

pytestmark = pytest.mark.integration

OWN, OTHER = "alpha", "zeta-corp"
URL = "https://hooks.example.com/in"
PLATFORM_WIDE = {"name"}
"""Path parameters of things that belong to no tenant."""
BODIES: dict[str, object] = {
    "PATCH /v1/endpoints/{endpoint_id}": {"description": "x"},
    "POST /v1/endpoints": {"url": URL},
    "POST /v1/keys": {"scopes": ["read"]},
    "POST /v1/messages": {"event_type": "a.b", "payload": {}},
    "PUT /v1/event-types/{name}": {},
    "POST /v1/tenants": {"id": "new"},
    "POST /v1/replays": {"since": "2026-01-01T00:00:00Z", "only": "all", "dry_run": True},
    "POST /bots/webhooks/bot": {"webhook_url": URL},
}
"""A good body for each route that needs one; `tenant` is added."""


@dataclass(frozen=True, slots=True)
class World:
    """An API, a key of one tenant with every scope, and what another tenant has."""

    api: Api
    key: str
    theirs: dict[str, str]
    """Name of a path parameter -> id of a thing of the other tenant."""

    def ask(self, route: Route, ids: dict[str, str], query: str = "") -> httpx.Response:
        """Ask as the first tenant."""
        body = BODIES.get(str(route)) if route.needs_body else None
        return self.api.ask_as(self.key, route.method, route.path.format_map(ids) + query, body)


@pytest.fixture
def world(store: HistoryStore, history: History) -> Iterator[World]:
    """Both tenants with an endpoint, a key, a message and a delivery each."""
    with running(make_context(), history=history) as api:
        have(api, store, OWN, 0)
        theirs = have(api, store, OTHER, 1)
        yield World(api, api.new_key("admin", "manage", "publish", "read", tenant=OWN), theirs)


def have(api: Api, store: HistoryStore, tenant: str, offset: int) -> dict[str, str]:
    """Let a tenant have one of everything; return the ids by the name of their path parameter."""
    endpoint = api.ask("POST", "/v1/endpoints", {"tenant": tenant, "url": f"{URL}/{tenant}"}).json()["id"]
    seen = batch(replace(routing(offset, endpoint), tenant=tenant))
    finished = replace(attempt(offset, endpoint, 1, "failed"), tenant=tenant)
    rows = (
        routed_rows(record("routings", offset, seen), seen, TOPIC),
        finished_rows(record("attempts", offset, finished), finished),
    )
    for n, of_tables in enumerate(rows):
        for table, of_table in of_tables.items():
            store.history.insert(table, columns(table, of_table), f"{tenant}-{n}")
    replay = Replay(f"rpl_{'0' * 20}{offset:04}", tenant, started_at=offset)
    api.services.configuration.replays[replay.id] = replay
    return {
        "tenant_id": tenant,
        "replay_id": replay.id,
        "endpoint_id": endpoint,
        "key_id": api.new_key("read", tenant=tenant).split("_")[1],
        "message_id": f"m{offset}",
        "delivery_id": delivery_id(TOPIC, 0, offset, endpoint),
    }


def nobodys(id: str) -> str:
    """An id of the same form that nothing has."""
    return id[:-3] + ("xyz" if id[-3:] != "xyz" else "abc")


def test_what_is_anothers_is_answered_as_what_does_not_exist(world: World) -> None:
    """The very same status and body, ids aside; and to the platform's key they are there."""
    tried = 0
    for route in routes(world.api):
        if not set(route.in_path) - PLATFORM_WIDE:
            continue
        assert set(route.in_path) <= set(world.theirs), f"{route}: have() must make a thing of this kind"
        assert not route.needs_body or str(route) in BODIES, f"{route}: BODIES must have a good one"
        ids = {name: world.theirs[name] for name in route.in_path}
        none = {name: nobodys(id) for name, id in ids.items()}
        for query in ("", f"?tenant={OWN}") if "tenant" in route.in_query else ("",):
            theirs, missing = world.ask(route, ids, query), world.ask(route, none, query)
            assert theirs.status_code in (403, 404), f"{route}: {theirs.status_code} {theirs.text}"
            assert outline(theirs, ids) == outline(missing, none), str(route)
        if route.method == "GET":
            assert world.api.ask("GET", route.path.format_map(ids)).status_code == 200, str(route)
        tried += 1
    assert tried >= 9
    assert world.api.ask("GET", f"/v1/endpoints/{world.theirs['endpoint_id']}").status_code == 200


def outline(answer: httpx.Response, ids: dict[str, str]) -> tuple[int, str, dict[str, str]]:
    """All of an answer, without the ids that were asked for and its length."""
    text = answer.text
    for name, id in ids.items():
        text = text.replace(id, name)
    headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
    return answer.status_code, text, headers


def test_lists_never_hold_anything_of_another_tenant(world: World) -> None:
    """Nothing of it stands in any list; to ask for it by its name is refused; the platform sees it."""
    lists = [route for route in routes(world.api) if route.is_list]
    assert {str(route) for route in lists} >= {
        f"GET /v1/{name}" for name in ("endpoints", "keys", "messages")
    }
    seen = ""
    for route in lists:
        answer = world.ask(route, {}, "?limit=500")
        assert answer.status_code == 200, f"{route}: {answer.text}"
        assert not [id for id in world.theirs.values() if f'"{id}"' in answer.text], str(route)
        seen += world.api.ask("GET", route.path + "?limit=500").text
        if "tenant" in route.in_query:
            assert world.ask(route, {}, f"?tenant={OTHER}").status_code == 403, str(route)
    assert not [id for id in world.theirs.values() if f'"{id}"' not in seen]


def test_other_reading_routes_never_count_or_show_anything_of_another_tenant(world: World) -> None:
    """Accounting, and whatever else answers a GET without naming a thing: refused by the tenant's name."""
    for route in routes(world.api):
        if route.method == "GET" and not route.in_path and not route.is_list:
            assert "tenant" in route.in_query, f"{route}: say here why it shows nothing of a tenant"
            assert world.ask(route, {}, f"?tenant={OTHER}").status_code == 403, str(route)
            own, all_of_it = world.ask(route, {}), world.api.ask("GET", route.path)
            assert own.json() != all_of_it.json(), str(route)


def test_ids_in_a_query_lead_nowhere_when_they_are_anothers(world: World) -> None:
    """Filtering by another's endpoint or message gives what filtering by none that exists gives."""
    for route in routes(world.api):
        for name in {"endpoint", "message", "subject_id"} & route.in_query:
            id = world.theirs.get(f"{name}_id", world.theirs["endpoint_id"])
            theirs = world.ask(route, {}, f"?{name}={id}")
            missing = world.ask(route, {}, f"?{name}={nobodys(id)}")
            assert outline(theirs, {"id": id}) == outline(missing, {"id": nobodys(id)}), str(route)


def test_nothing_can_be_made_for_another_tenant_and_its_own_need_not_be_named(world: World) -> None:
    """403 wherever a body names another tenant, before anything is done; without one it is the key's."""
    for route in routes(world.api):
        if "tenant" in route.in_body:
            body = BODIES[str(route)]
            assert isinstance(body, dict)
            told = world.api.ask_as(world.key, route.method, route.path, body | {"tenant": OTHER})
            assert told.status_code == 403, f"{route}: {told.text}"
            own = world.api.ask_as(world.key, route.method, route.path, body)
            assert own.status_code in (200, 201, 202), f"{route}: {own.text}"
            assert own.json().get("tenant", OWN) == OWN
    item = {"event_type": "a.b", "payload": {}}
    both = world.api.ask_as(
        world.key, "POST", "/v1/messages/batch", {"messages": [item | {"tenant": OTHER}, item]}
    )
    assert [result["status"] for result in both.json()["data"]] == [403, 202]


def test_a_body_that_names_anothers_endpoint_leads_nowhere(world: World) -> None:
    """The very same answer as for an endpoint that does not exist."""
    tried = [route for route in routes(world.api) if "endpoint" in route.in_body]
    assert tried
    for route in tried:
        body, id = BODIES[str(route)], world.theirs["endpoint_id"]
        assert isinstance(body, dict)
        theirs, missing = (
            world.api.ask_as(world.key, route.method, route.path, body | {"endpoint": each})
            for each in (id, nobodys(id))
        )
        assert theirs.status_code in (404, 422), f"{route}: {theirs.text}"
        assert outline(theirs, {"id": id}) == outline(missing, {"id": nobodys(id)}), str(route)


def test_a_message_that_was_just_accepted_is_no_ones_but_its_tenants(world: World) -> None:
    """While the history does not have it yet."""
    body = {"event_type": "a.b", "payload": {}, "id": "fresh", "tenant": OTHER}
    assert world.api.ask("POST", "/v1/messages", body).status_code == 202
    hidden = world.api.ask_as(world.key, "GET", "/v1/messages/fresh")
    missing = world.api.ask_as(world.key, "GET", "/v1/messages/frosh")
    assert outline(hidden, {"id": "fresh"}) == outline(missing, {"id": "frosh"})
    assert world.api.ask("GET", f"/v1/messages/fresh?tenant={OTHER}").status_code == 200
