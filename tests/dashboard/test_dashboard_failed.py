"""Deliveries that failed: the list, and asking for them again."""

from __future__ import annotations

import re
from contextlib import closing

import pytest
from clickhouse_connect.driver.client import Client

from engine.core.replay import Resend
from engine.runtime.history.clickhouse import History, UnavailableError
from engine.runtime.memory import MemoryLog
from tests.dashboard.test_dashboard_pages import shown
from tests.dashboard.visitor import Visitor
from tests.dashboard.world import World
from tests.integration.api_fixtures import KEY, Api
from tests.integration.history_fixtures import SECOND

pytestmark = pytest.mark.integration


def fail(world: World, tenant: str = "acme", at: int | None = None, **changed: object) -> str:
    """A message whose delivery has failed; its id."""
    offset = world.publish(tenant)
    ended = {"error_class": "http_5xx", "decision": "failed", "reason": "http_5xx", "retry_at": 0, **changed}
    world.attempt(tenant, offset, 4, at, **ended)
    return world.delivery(tenant, offset)


def resends(api: Api) -> list[Resend]:
    """What was asked to be made again, on the log."""
    log = api.context.log
    assert isinstance(log, MemoryLog)
    values = [r.value for n in range(log.partitions("commands")) for r in log.records(("commands", n))]
    found = [api.context.codec.decode(value) for value in values]
    return [each for each in found if isinstance(each, Resend)]


def messages(text: str) -> list[str]:
    """Which messages a page lists, in its order."""
    return re.findall(r">(m\d+)</a>", text)


def form_of(text: str) -> dict[str, str]:
    """The hidden fields of the form around the ticks."""
    form = text[text.index('id="ticked"') :]
    return {name: re.findall(rf'name="{name}" value="([^"]*)"', form)[0] for name in ("key", "back")}


def test_what_failed_is_listed_with_why(world: World, admin: Visitor) -> None:
    """Only what failed, the last to fail first, and the reason in words."""
    world.publish("other")
    world.attempt("other", 0)
    fail(world, at=world.now - 60 * SECOND, status_code=0, error_class="timeout", reason="timeout")
    fail(world, "other", at=world.now - 30 * SECOND)
    fail(world, at=world.now - 90 * SECOND, reason="gone", error_class="gone", status_code=410)
    page = admin.get("failed")
    text = shown(page)
    assert messages(page.text) == ["m2", "m1", "m3"]
    assert "All its tries are used up; the last time it answered 503" in text
    assert "All its tries are used up; the last time no answer came in time" in text
    assert "slower than its time limit" in text
    assert "gone (410)" in text


def test_failures_are_found_by_each_filter(world: World, admin: Visitor) -> None:
    """Tenant, endpoint, type, time of failing, message; a status is not asked for."""
    fail(world, at=world.now - 7_200 * SECOND)
    fail(world, "other", event_type="room.started")
    for query, found in {
        "": ["m1", "m0"],
        "?tenant=acme": ["m0"],
        f"?endpoint={world.endpoints['other']}": ["m1"],
        "?event_type=room.started": ["m1"],
        "?within=1h": ["m1"],
        "?id=m0": ["m0"],
        "?since=2099-01-01T00:00": [],
        "?until=2099-01-01T00:00&status=delivered": ["m1", "m0"],
    }.items():
        assert messages(admin.get(f"failed{query}").text) == found, query


def test_pages_of_failures_follow_each_other(world: World, admin: Visitor) -> None:
    """Each once, those of the same moment too."""
    for n in range(53):
        fail(world, at=world.now - n // 2 * SECOND)
    first = admin.get("failed?within=24h")
    more = re.search(r'href="/dashboard/(failed\?[^"]*cursor=[^"]*)"', first.text)
    assert more
    second = admin.get(more[1].replace("&amp;", "&"))
    assert len(messages(first.text)) == 50
    assert sorted({*messages(first.text), *messages(second.text)}) == sorted(f"m{n}" for n in range(53))
    assert 'rel="next"' not in second.text


def test_bad_filters_and_nothing_to_show_are_said(world: World, admin: Visitor) -> None:
    """Beside the field; and what to do where there is nothing."""
    assert "Nothing has failed" in shown(admin.get("failed"))
    assert "Nothing matches" in shown(admin.get("failed?event_type=none"))
    page = admin.get("failed?since=yesterday")
    assert "must be a time such as" in shown(page, 422)
    assert 'id="e-since"' in page.text
    assert "begin without" in shown(admin.get("failed?cursor=abc"), 422)


def test_a_form_sent_while_clickhouse_is_away_is_kept(world: World, history: History) -> None:
    """The page has it with all its fields: sent again once ClickHouse is back, each is made once."""
    ids = [fail(world), fail(world)]
    is_back: list[bool] = []

    def connect() -> Client:
        if not is_back:
            raise UnavailableError("nobody answers at its port")
        return history.client

    with closing(Api(world.api.context, history=History(connect))) as api:
        visitor = Visitor(api, KEY)
        sent = [("key", "k1"), ("back", "/dashboard/failed"), *(("delivery", id) for id in ids)]
        away = visitor.post("failed/retry", sent)
        assert "What you sent is still here" in shown(away, 503)
        assert resends(api) == []
        fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', away.text)
        assert [each for each in fields if each[0] != "csrf"] == sent
        assert re.findall(r'<form method="post" action="([^"]+)"', away.text) == ["/dashboard/failed/retry"]
        is_back.append(True)
        for _ in range(2):
            assert visitor.post("failed/retry", fields).status_code == 303
        assert sorted({each.delivery_id for each in resends(api)}) == sorted(ids)
        assert len({each.command_id for each in resends(api)}) == len(ids)


def test_one_is_made_again_by_its_button_and_a_double_click_asks_once(world: World, admin: Visitor) -> None:
    """The form's key makes both the same command; it leads back to where one was."""
    id = fail(world)
    form = {**form_of(admin.get("failed?within=24h").text), "only": id}
    for _ in range(2):
        answer = admin.post("failed/retry", form)
        assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/failed?within=24h")
        assert "It is made again, as the delivery dlv_" in shown(admin.get("failed"))
    asked = resends(world.api)
    assert {each.delivery_id for each in asked} == {id}
    assert len({each.command_id for each in asked}) == 1
    assert asked[0].actor == "admin"
    admin.post("failed/retry", {**form_of(admin.get("failed").text), "only": id})
    assert len({each.command_id for each in resends(world.api)}) == 2


def test_those_that_are_ticked_are_made_again(world: World, admin: Visitor) -> None:
    """All of them in one step; none ticked is no error."""
    ids = [fail(world), fail(world, "other"), fail(world)]
    form = list(form_of(admin.get("failed").text).items())
    answer = admin.post("failed/retry", [*form, *(("delivery", id) for id in ids[:2])])
    assert answer.status_code == 303
    assert "2 deliveries are made again" in shown(admin.get("failed"))
    assert {each.delivery_id for each in resends(world.api)} == set(ids[:2])
    assert admin.post("failed/retry", form).status_code == 303
    assert "Nothing was ticked" in shown(admin.get("failed"))


def test_what_cannot_be_made_again_is_said_one_by_one(world: World, admin: Visitor) -> None:
    """A disabled endpoint's and an unknown one, while the others are made."""
    mine, theirs = fail(world), fail(world, "other")
    world.api.ask("POST", f"/v1/endpoints/{world.endpoints['other']}/disable")
    form = list(form_of(admin.get("failed").text).items())
    ticked = [("delivery", id) for id in (mine, theirs, "dlv_<b>none")]
    text = shown(admin.post("failed/retry", [*form, *ticked]))
    assert "1 of 3 deliveries are made again" in text
    assert "is disabled: enable it first" in text
    assert "dlv_&lt;b&gt;none" in text
    assert "Not made again" in shown(admin.post("failed/retry", [*form, ("only", theirs)]), 409)
    assert {each.delivery_id for each in resends(world.api)} == {mine}


def test_bad_forms_do_nothing(world: World, admin: Visitor) -> None:
    """No key, too many, an id that is none, a way back that leads elsewhere."""
    id = fail(world)
    assert "is missing from the form" in shown(admin.post("failed/retry", {"only": id}), 422)
    many = [("key", "k"), *(("delivery", f"dlv_{n}") for n in range(501))]
    assert "at most 500 at once" in shown(admin.post("failed/retry", many), 422)
    assert "must be a delivery" in shown(admin.post("failed/retry", {"key": "k", "only": "x" * 300}), 422)
    assert resends(world.api) == []
    answer = admin.post("failed/retry", {"key": "k", "only": id, "back": "https://evil.example.com/"})
    assert answer.headers["location"] == "/dashboard/overview"


def test_only_who_may_manage_has_buttons_and_the_server_checks_too(world: World) -> None:
    """On the list, the log and the story."""
    id = fail(world)
    reader, holder = (Visitor(world.api, world.api.new_key(s, tenant="acme")) for s in ("read", "manage"))
    for path in ("failed", "deliveries", f"message?id=m0&delivery={id}"):
        assert 'action="/dashboard/failed/retry"' in holder.get(path).text, path
        assert 'action="/dashboard/failed/retry"' not in reader.get(path).text, path
    assert "lacks the scope manage" in shown(reader.post("failed/retry", {"key": "k", "only": id}), 403)
    assert "nothing was done" in shown(holder.post("failed/retry", {"csrf": "x", "only": id}), 403)
    assert resends(world.api) == []


def test_the_buttons_of_log_and_story_make_it_again(world: World, admin: Visitor) -> None:
    """Each by a form of its own, which leads back."""
    id = fail(world)
    for path, back in (
        ("deliveries?status=failed", "deliveries?status=failed"),
        ("message?id=m0", "message?"),
    ):
        text = admin.get(path).text
        key, way = re.findall(
            r'name="key" value="([^"]+)"><input type="hidden" name="back" value="([^"]+)"', text
        )[0]
        answer = admin.post("failed/retry", {"key": key, "back": way.replace("&amp;", "&"), "delivery": id})
        assert answer.headers["location"].startswith(f"/dashboard/{back}")
    assert [each.delivery_id for each in resends(world.api)] == [id, id]


def test_a_tenant_makes_nothing_of_others_again(world: World, acme: Visitor) -> None:
    """What is another's is as what does not exist."""
    theirs = fail(world, "other")
    assert messages(acme.get("failed").text) == []
    text = shown(acme.post("failed/retry", {"key": "k", "only": theirs}), 404)
    assert "there is no delivery" in text
    assert "other" not in text.replace("another", "")
    assert resends(world.api) == []


def test_what_was_made_since_is_marked(world: World, admin: Visitor) -> None:
    """A failed delivery whose message has arrived since says so."""
    fail(world, at=world.now - 60 * SECOND)
    fail(world)
    world.attempt("acme", 0, 1, delivery_id="dlv_again", origin="x", trigger="resend")
    page = admin.get("failed")
    assert shown(page).count("Delivered since") == 1
    assert page.text.index("Delivered since") > page.text.index(">m1</a>")


def test_all_that_match_is_a_replay_of_the_same_filters(world: World, admin: Visitor) -> None:
    """Offered where a tenant or an endpoint is chosen, with the filters as fields."""
    fail(world)
    assert "Choose a tenant or an endpoint" in shown(admin.get("failed"))
    text = admin.get("failed?tenant=acme&event_type=room.ended&since=2026-01-01T00:00").text
    form = text[text.index('action="/dashboard/replays/preview?tenant=acme"') :]
    for field in ('name="only" value="failed"', 'name="event_types" value="room.ended"'):
        assert field in form
    assert 'name="since" value="2026-01-01T00:00:00.000Z"' in form
