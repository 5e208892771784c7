"""A message id that several tenants use, and ranges that end before they begin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from engine.runtime.history.clickhouse import History
from engine.runtime.history.rows import columns, routed_rows
from tests.integration.api_fixtures import Api, fields, make_context, running
from tests.integration.history_fixtures import TOPIC, Store, batch, record, routing

pytestmark = pytest.mark.integration
EARLY, LATE = "2026-05-01T00:00:00Z", "2026-05-02T00:00:00Z"


@pytest.fixture
def api(history: History) -> Iterator[Api]:
    """The API over this test's database."""
    with running(make_context(), history=history) as made:
        yield made


def put(store: Store, offset: int, tenant: str, message_id: str) -> None:
    """Insert the rows of a message."""
    made = batch(replace(routing(offset), tenant=tenant, message_id=message_id))
    for table, rows in routed_rows(record("routings", offset, made), made, TOPIC).items():
        if rows:
            store.history.insert(table, columns(table, rows), f"{table}-{offset}")


def test_of_two_tenants_messages_of_one_id_none_is_shown_until_one_is_named(store: Store, api: Api) -> None:
    """422 that names the field; with a tenant, its own."""
    put(store, 0, "acme", "same")
    put(store, 1, "globex", "same")
    put(store, 2, "acme", "alone")
    refused = api.ask("GET", "/v1/messages/same")
    assert fields(refused) == ["tenant"]
    assert "several tenants have a message 'same': name one" in refused.json()["detail"]
    for tenant in ("acme", "globex"):
        assert api.ask("GET", f"/v1/messages/same?tenant={tenant}").json()["tenant"] == tenant
    assert api.ask("GET", "/v1/messages/alone").json()["tenant"] == "acme"


def test_a_tenants_own_key_needs_to_name_none(store: Store, api: Api) -> None:
    """It sees its own message only."""
    put(store, 0, "acme", "same")
    put(store, 1, "globex", "same")
    api.ask("POST", "/v1/tenants", {"id": "globex"})
    key = api.new_key("read", tenant="globex")
    assert api.ask_as(key, "GET", "/v1/messages/same").json()["tenant"] == "globex"


def test_messages_of_one_id_that_the_history_has_not_yet_are_told_apart_too(store: Store, api: Api) -> None:
    """Whether it has one of them already or none; each is found by its tenant."""
    for tenant in ("acme", "globex"):
        body = {"tenant": tenant, "event_type": "a.b", "payload": tenant, "id": "new"}
        assert api.ask("POST", "/v1/messages", body).status_code == 202
    assert fields(api.ask("GET", "/v1/messages/new")) == ["tenant"]
    for tenant in ("acme", "globex"):
        assert api.ask("GET", f"/v1/messages/new?tenant={tenant}").json()["payload"] == tenant
    put(store, 0, "acme", "mixed")
    body = {"tenant": "globex", "event_type": "a.b", "payload": "1", "id": "mixed"}
    assert api.ask("POST", "/v1/messages", body).status_code == 202
    assert fields(api.ask("GET", "/v1/messages/mixed")) == ["tenant"]


@pytest.mark.parametrize("path", ["/v1/deliveries", "/v1/messages", "/v1/changes"])
def test_a_list_whose_range_ends_before_it_begins_is_refused(api: Api, path: str) -> None:
    """422 naming both; one that ends where it begins is empty."""
    assert fields(api.ask("GET", f"{path}?since={LATE}&until={EARLY}")) == ["since", "until"]
    assert api.ask("GET", f"{path}?since={EARLY}&until={EARLY}").json()["data"] == []
    assert api.ask("GET", f"{path}?since={EARLY}&until={LATE}").status_code == 200


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_replay_whose_range_holds_nothing_is_refused(api: Api, dry_run: bool) -> None:
    """422 naming both, or the beginning where that alone is in the future."""
    url = "https://hooks.example.com/in"
    assert api.ask("POST", "/v1/endpoints", {"tenant": "acme", "url": url}).status_code == 201
    asked = {"tenant": "acme", "only": "all", "dry_run": dry_run}
    for until in (EARLY, LATE):
        body = {**asked, "since": LATE, "until": until}
        assert fields(api.ask("POST", "/v1/replays", body)) == ["since", "until"]
    assert fields(api.ask("POST", "/v1/replays", {**asked, "since": "2999-01-01T00:00:00Z"})) == ["since"]
