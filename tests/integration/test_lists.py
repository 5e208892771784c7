"""Lists of the history over the API: deliveries, messages, changes, page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.api import history_pages as pages
from engine.core.change import EndpointDisabled, EndpointSettings, EndpointUpdated, FactBase
from engine.core.directory import KeyCreated, TenantCreated
from engine.runtime.history.clickhouse import History
from engine.runtime.history.listings import CHANGES, DELIVERIES, MESSAGES, Asked
from engine.runtime.history.rows import Rows, columns, finished_rows, routed_rows
from engine.runtime.history.trail import change_rows
from tests.integration.api_fixtures import Api, make_context
from tests.integration.history_fixtures import NOW, TOPIC, Store, attempt, batch, record, routing

pytestmark = pytest.mark.integration

Asking = Callable[..., Mapping[str, object]]


@pytest.fixture
def api(history: History) -> Iterator[Api]:
    """The API over this test's database."""
    running = Api(make_context(), history=history)
    yield running
    running.close()


def put(store: Store, *all_rows: Rows) -> None:
    """Insert rows, each call a block of its own."""
    for n, rows in enumerate(all_rows):
        for table, of_table in rows.items():
            if of_table:
                store.history.insert(table, columns(table, of_table), f"{id(all_rows)}-{n}")


def accepted_at(offset: int) -> int:
    """Three in a row in the same millisecond; every twelve a step of four days."""
    return NOW - NOW % 1_000 + offset // 3 * 1_000 - offset // 12 * 4 * 86_400_000_000


def routed(offset: int, *matched: str, tenant: str = "acme", event_type: str = "room.ended") -> Rows:
    """Rows of a message at an offset."""
    made = replace(routing(offset, *matched), tenant=tenant, event_type=event_type)
    made = replace(made, accepted_at=accepted_at(offset))
    return routed_rows(record("routings", offset, batch(made)), batch(made), TOPIC)


def newer(offset: int) -> Rows:
    """Rows of a message that was accepted a minute later than all others."""
    made = batch(replace(routing(1_000 + offset, "ep1"), accepted_at=NOW + 60_000_000 + offset))
    return routed_rows(record("routings", 1_000 + offset, made), made, TOPIC)


def ended(offset: int, endpoint: str, decision: str) -> Rows:
    """Rows of that delivery's only attempt."""
    assert decision in ("delivered", "failed")
    finished = attempt(offset, endpoint, 1, "delivered" if decision == "delivered" else "failed")
    finished = replace(finished, accepted_at=accepted_at(offset))
    return finished_rows(record("attempts", offset, finished), finished)


def data(api: Api, path: str, **query: object) -> list[dict[str, object]]:
    """All that one page holds."""
    answer = api.ask("GET", f"{path}?{urlencode(query)}")
    assert answer.status_code == 200, answer.text
    found = answer.json()["data"]
    assert isinstance(found, list)
    return found


def time_text(us: int) -> str:
    """RFC 3339."""
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat().replace("+00:00", "Z")


def test_deliveries_are_listed_by_what_is_asked_for(store: Store, api: Api) -> None:
    """Each filter leaves what fits it, newest first; together they narrow."""
    put(
        store,
        *(routed(n, "ep1", "ep2") for n in range(4)),
        routed(4, "ep1", event_type="room.started"),
        routed(5, "ep9", tenant="other"),
        ended(0, "ep1", "failed"),
        ended(1, "ep1", "delivered"),
    )
    found = data(api, "/v1/deliveries")
    assert len(found) == 10
    times = [str(d["accepted_at"]) for d in found]
    assert times == sorted(times, reverse=True)
    wanted = {
        (("tenant", "other"),): [("m5", "ep9")],
        (("status", "failed"),): [("m0", "ep1")],
        (("event_type", "room.started"),): [("m4", "ep1")],
        (("endpoint", "ep2"), ("message", "m3")): [("m3", "ep2")],
        (("endpoint", "ep1"), ("status", "delivered"), ("tenant", "acme")): [("m1", "ep1")],
        (("tenant", "nobody"),): [],
        (("endpoint", "it's \\ a\ttrap' OR 1=1 --"),): [],
    }
    for query, expected in wanted.items():
        listed = data(api, "/v1/deliveries", **dict(query))
        assert [(d["message_id"], d["endpoint_id"]) for d in listed] == expected


def test_times_bound_a_list_from_since_to_before_until(store: Store, api: Api) -> None:
    """A message accepted at `since` is in, one at `until` is not; a zone and fractions are understood."""
    put(store, *(routed(n, "ep1") for n in (0, 3, 6)))
    since, until = (data(api, "/v1/messages")[n]["accepted_at"] for n in (1, 0))
    assert [m["id"] for m in data(api, "/v1/messages", since=since, until=until)] == ["m3"]
    zoned = str(since).replace("Z", "000+00:00")
    assert [m["id"] for m in data(api, "/v1/messages", since=zoned)] == ["m6", "m3"]
    assert data(api, "/v1/messages", since="2999-01-01T00:00:00Z") == []
    assert len(data(api, "/v1/messages", since="0001-01-01t00:00:00z")) == 3


def test_a_delivery_shows_its_attempts(store: Store, api: Api) -> None:
    """State and every attempt; an unknown one is 404."""
    first, second = attempt(0, "ep1", 1, "retry"), attempt(0, "ep1", 2, "delivered")
    put(
        store,
        routed(0, "ep1", "ep2"),
        finished_rows(record("attempts", 0, first), first),
        finished_rows(record("attempts", 1, second), second),
    )
    shown = api.ask("GET", f"/v1/deliveries/{first.delivery_id}").json()
    assert (shown["status"], shown["attempt_count"], shown["endpoint_id"]) == ("delivered", 2, "ep1")
    assert [(a["attempt"], a["status_code"], a["decision"]) for a in shown["attempts"]] == [
        (1, 503, "retry"),
        (2, 200, "delivered"),
    ]
    (pending,) = data(api, "/v1/deliveries", endpoint="ep2")
    assert api.ask("GET", f"/v1/deliveries/{pending['id']}").json() == {**pending, "attempts": []}
    assert api.ask("GET", "/v1/deliveries/dlv_none").status_code == 404


def test_the_audit_trail_names_actor_subject_and_change(store: Store, api: Api) -> None:
    """Newest first, with details as JSON; narrowed by each of its words."""
    facts: list[FactBase] = [
        TenantCreated("c0", "acme", "admin", NOW, "Acme"),
        EndpointUpdated(
            *("c1", "acme", "key:k1", NOW + 1_000, "ep1", 2, ("url",)), EndpointSettings("https://a.b/c")
        ),
        EndpointDisabled("c2", "acme", "health", NOW + 2_000, "ep1", 3, "gone"),
        KeyCreated("c3", "", "admin", NOW + 2_000, "k9", ("read",), b"CANARY-digest", "", 0),
    ]
    put(store, *(change_rows(record("changes", n, fact), fact) for n, fact in enumerate(facts)))
    found = data(api, "/v1/changes")
    assert [(c["subject"], c["subject_id"], c["change"], c["actor"]) for c in found] == [
        ("key", "k9", "created", "admin"),
        ("endpoint", "ep1", "disabled", "health"),
        ("endpoint", "ep1", "updated", "key:k1"),
        ("tenant", "acme", "created", "admin"),
    ]
    assert found[1]["details"] == {"version": 3, "reason": "gone"}
    assert b"CANARY" not in orjson.dumps(found)
    for query, ids in [
        ({"subject": "endpoint"}, ["c2", "c1"]),
        ({"subject_id": "ep1", "change": "disabled"}, ["c2"]),
        ({"actor": "admin", "tenant": "acme"}, ["c0"]),
        ({"tenant": ""}, ["c3"]),
        ({"since": time_text(NOW + 1_999)}, ["c3", "c2"]),
    ]:
        assert [c["command_id"] for c in data(api, "/v1/changes", **query)] == ids


def test_pages_tile_the_whole_in_order_while_rows_are_added(store: Store, api: Api) -> None:
    """Whatever was there at the start comes once and in order, though each page brings a newer row."""
    put(store, *(routed(n, "ep1", "ep2") for n in range(7)))
    expected = [(d["id"], d["accepted_at"]) for d in data(api, "/v1/deliveries")]
    found: list[tuple[object, object]] = []
    query: dict[str, object] = {"limit": 3}
    for _ in range(2 * len(expected)):
        answer = api.ask("GET", f"/v1/deliveries?{urlencode(query)}").json()
        found += [(d["id"], d["accepted_at"]) for d in answer["data"]]
        put(store, newer(len(found)), ended(len(found) % 7, "ep1", "delivered"))
        if answer["next"] is None:
            break
        query["cursor"] = answer["next"]
    assert found == expected


@given(st.lists(st.integers(0, 90), unique=True, max_size=12), st.integers(1, 13), st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_of_any_size_tile_any_list(
    store: Store, offsets: list[int], limit: int, drawn: st.DataObject
) -> None:
    """Page by page is the same as all at once, for each list, with many rows of one millisecond."""
    store.clear()
    facts = [EndpointDisabled(f"c{n}", "acme", "a", accepted_at(n), "ep", n, "") for n in offsets]
    put(
        store,
        *(routed(n, "ep1", "ep2") for n in offsets),
        *(change_rows(record("changes", n, fact), fact) for n, fact in zip(offsets, facts, strict=True)),
    )
    listing = drawn.draw(st.sampled_from([DELIVERIES, MESSAGES, CHANGES]))
    asked = Asked({"tenant": "acme"})
    whole = [pages.key_of(listing, row) for row in store.history.page(listing, asked, None, 500)]
    assert sorted(whole, key=tuple, reverse=True) == whole
    assert len(whole) == len(offsets) * (2 if listing is DELIVERIES else 1)
    found, cursor = list[object](), None
    for _ in range(2 * len(whole) + 1):
        after = pages.read_cursor(listing, asked, cursor)
        page = pages.page_of(listing, asked, store.history.page(listing, asked, after, limit + 1), limit)
        found += [pages.key_of(listing, row) for row in page.rows]
        assert len(page.rows) <= limit
        if page.next is None:
            break
        cursor = page.next
    assert found == whole


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"cursor": "%%%"}, "cursor"),
        ({"cursor": "ä"}, "cursor"),
        ({"cursor": "bnVsbA"}, "cursor"),
        ({"cursor": "W10"}, "cursor"),
        ({"limit": "0"}, "limit"),
        ({"limit": "501"}, "limit"),
        ({"since": "yesterday"}, "since"),
        ({"since": "2026-05-01T12:00:00"}, "since"),
        ({"until": "2026-13-01T12:00:00Z"}, "until"),
        ({"until": "1767225600"}, "until"),
        ({"status": "lost"}, "status"),
        ({"enpoint": "ep1"}, "enpoint"),
        ({"event_type": "x" * 257}, "event_type"),
    ],
)
def test_a_wrong_question_is_refused_by_its_field(api: Api, query: dict[str, str], field: str) -> None:
    """422 that names it; nothing is guessed."""
    answer = api.ask("GET", f"/v1/deliveries?{urlencode(query)}")
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_cursor_of_another_question_is_refused(store: Store, api: Api) -> None:
    """With other filters, of another list, or made up around a true mark: 422 in words."""
    put(store, *(routed(n, "ep1") for n in range(3)))
    cursor = api.ask("GET", "/v1/deliveries?tenant=acme&limit=1").json()["next"]
    assert api.ask("GET", f"/v1/deliveries?tenant=acme&limit=2&cursor={cursor}").status_code == 200
    for path in ("/v1/deliveries?tenant=other", "/v1/messages?tenant=acme", "/v1/deliveries?limit=1"):
        answer = api.ask("GET", f"{path}&cursor={cursor}")
        assert (answer.status_code, "another list" in answer.text) == (422, True)
    asked = Asked({"tenant": "acme"})
    forgeries: list[list[int | str]] = [
        [1],
        [1, 2],
        ["x", "y"],
        [-1, "y"],
        [True, "y"],
        [1 << 63, "y"],
        [1, "y", "z"],
    ]
    for key in forgeries:
        forged = pages.write_cursor(DELIVERIES, asked, key)
        assert api.ask("GET", f"/v1/deliveries?tenant=acme&cursor={forged}").status_code == 422


@pytest.mark.parametrize("path", ["/v1/deliveries", "/v1/deliveries/d", "/v1/messages", "/v1/changes"])
def test_away_is_said_in_words(path: str) -> None:
    """Without ClickHouse: 503 that says so, and when to try again."""
    running = Api(make_context())
    try:
        answer = running.ask("GET", path)
    finally:
        running.close()
    assert (answer.status_code, "ClickHouse" in answer.json()["detail"]) == (503, True)
    assert answer.headers["retry-after"]
