"""Replays through the dashboard, with every group on a log in memory and a real receiver."""

from __future__ import annotations

import re

import pytest

from engine.dev.process import wait_until
from tests.dashboard.test_dashboard_pages import shown
from tests.dashboard.visitor import Visitor
from tests.integration.api_fixtures import Api
from tests.integration.history_fixtures import Store
from tests.integration.whole import (
    LIMIT_S,
    Receiver,
    api_with_groups,
    endpoint,
    ok,
    project,
    publish,
    receiver,
    wait_attempts,
    wait_replay,
)

__all__ = ["api_with_groups", "receiver"]
pytestmark = pytest.mark.integration
SLOW = "0.1"
"""Deliveries a second: such a replay does not end by itself within a test."""


@pytest.fixture
def api(api_with_groups: Api) -> Api:
    """In place of the one without groups."""
    return api_with_groups


@pytest.fixture
def failed(api: Api, receiver: Receiver) -> str:
    """Three deliveries of acme that have failed, of two types; the endpoint's id. It is well again."""
    receiver.status = 500
    made = endpoint(api, receiver)
    publish(api, 2)
    publish(api, 1, "room.started")
    wait_attempts(api, 3)
    receiver.status = 200
    return made


def dead_letters(visitor: Visitor, count: int, **more: str) -> str:
    """The page of a dry run that has counted so many: what failed takes a moment to be one."""
    asked = {"only": "failed", "tenant": "acme", **more}
    visitor.get("replays/new")

    def page() -> str:
        answer = visitor.post("replays/preview", asked)
        assert answer.status_code == 200, answer.text
        return answer.text

    wanted = f"Start: make {count} "
    assert wait_until(lambda: wanted in page(), LIMIT_S, 0.05), page()
    return page()


def form_of(text: str) -> dict[str, str]:
    """Hidden fields of the form that starts it."""
    form = text[text.rindex('action="/dashboard/replays') : text.index("Start: make")]
    return {
        name: value for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', form) if name != "csrf"
    }


def started(visitor: Visitor, **more: str) -> str:
    """Start one of the three; its path."""
    answer = visitor.post("replays", form_of(dead_letters(visitor, 3, **more)))
    assert answer.status_code == 303, answer.text
    return str(answer.headers["location"]).removeprefix("/dashboard/").partition("?")[0]


def test_a_dry_run_counts_by_type_and_estimates(admin: Visitor, api: Api, failed: str) -> None:
    """And writes nothing: no replay is there afterwards."""
    page = dead_letters(admin, 3, rate="0.5")
    assert "room.ended 2 room.started 1" in " ".join(re.sub("<[^>]*>", " ", page).split())
    assert ">6 s<" in page
    assert "Start: make 2 deliveries" in dead_letters(admin, 2, event_types="room.ended, none.*")
    assert "Start: make 1 delivery<" in dead_letters(
        admin, 1, tenant="", endpoint=failed, event_types="room.started"
    )
    assert "There is nothing to replay" in shown(
        admin.post("replays/preview", {"only": "failed", "tenant": "acme", "event_types": "none"})
    )
    assert ok(api.ask("GET", "/v1/replays"))["data"] == []
    assert "No replays" in shown(admin.get("replays"))


def test_what_was_counted_is_started_once_however_often_it_is_clicked(
    admin: Visitor, api: Api, receiver: Receiver, failed: str
) -> None:
    """Both clicks lead to the one replay; each delivery is made once; its page tells how it went."""
    form = form_of(dead_letters(admin, 3))
    places = {admin.post("replays", form).headers["location"] for _ in range(2)}
    (path,) = (place.removeprefix("/dashboard/") for place in places)
    id = path.partition("?")[0].removeprefix("replays/")
    wait_replay(api, id)
    assert len(wait_attempts(api, 3, "replay")) == 3
    assert len(receiver.bodies) == 6
    text = shown(admin.get(path))
    assert "Finished" in text
    assert "3 of 3 deliveries made" in text
    assert "data-live" not in admin.get(path).text
    rows = shown(admin.get("replays"))
    assert rows.count("Finished") == 1
    assert form["until"]
    assert ok(api.ask("GET", f"/v1/replays/{id}"))["until"] == form["until"].replace("Z", "000Z")


def test_progress_lives_until_it_is_cancelled(admin: Visitor, api: Api, failed: str) -> None:
    """A fragment for htmx that says aloud how far it is; once ended it stops asking and has no button."""
    path = started(admin, rate=SLOW)
    page = admin.get(path).text
    assert 'data-live="1"' in page
    assert "Cancel the replay" in page
    part = admin.get(path, hx_request="true").text
    assert "<html" not in part
    assert 'data-say="0 % done"' in part
    assert "data-ended" not in part
    form = {"key": re.findall(r'name="key" value="([^"]+)"', page)[0]}
    for _ in range(2):
        assert admin.post(f"{path}/cancel", form).headers["location"] == f"/dashboard/{path}"
    assert "The replay is cancelled" in shown(admin.get(path))
    part = admin.get(path, hx_request="true").text
    assert 'data-say="The replay is cancelled" data-ended' in part
    assert 'id="cancel" hx-swap-oob="true"' in part
    assert "Cancel the replay" not in admin.get(path).text
    assert "Cancelled" in shown(admin.get("replays"))


def test_what_has_ended_is_not_cancelled(admin: Visitor, api: Api, failed: str) -> None:
    """409 as a page; an unknown one 404."""
    path = started(admin)
    wait_replay(api, path.removeprefix("replays/"))
    assert "has ended already" in shown(admin.post(f"{path}/cancel"), 409)
    assert "there is no replay" in shown(admin.post("replays/none/cancel"), 404)
    assert "there is no replay" in shown(admin.get("replays/none"), 404)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("since", "yesterday", "must be a time such as"),
        ("since", "2999-01-01T00:00", "must not be in the future"),
        ("until", "1970-01-01T00:00", "must be later than since"),
        ("rate", "fast", "must be a number"),
        ("rate", "nan", "should be"),
        ("rate", "-1", "greater than or equal"),
        ("event_types", "a*b (", "is no event type"),
        ("endpoint", "ep_none", "there is no endpoint"),
        ("tenant", "", "name a tenant or an endpoint"),
    ],
)
def test_what_is_wrong_stands_in_the_form(
    admin: Visitor, failed: str, field: str, value: str, said: str
) -> None:
    """With what was typed still there; nothing is counted or started."""
    admin.get("replays/new")
    given = {"only": "failed", "tenant": "acme", "key": "k", field: value}
    for path in ("replays/preview", "replays"):
        answer = admin.post(path, given)
        assert answer.status_code in (404, 422), answer.text
        assert said in answer.text
        assert "<form" in answer.text
        assert f'value="{value}"' in answer.text
    assert "No replays" in shown(admin.get("replays"))


def test_the_same_form_for_something_else_is_refused(admin: Visitor, failed: str) -> None:
    """A key stands for what was counted with it; without one nothing starts."""
    form = form_of(dead_letters(admin, 3, rate=SLOW))
    assert admin.post("replays", form).status_code == 303
    assert "was used before" in shown(admin.post("replays", {**form, "only": "all"}), 422)
    assert "is missing from the form" in shown(admin.post("replays", {**form, "key": ""}), 422)


def test_nobody_to_deliver_to_is_said(admin: Visitor, api: Api, failed: str) -> None:
    """409 in the form while the endpoint is disabled."""
    ok(api.ask("POST", f"/v1/endpoints/{failed}/disable"))
    admin.get("replays/new")
    text = shown(admin.post("replays/preview", {"only": "failed", "endpoint": failed}), 409)
    assert "nobody to deliver to" in text


def test_a_tenant_neither_sees_nor_touches_others_replays(admin: Visitor, api: Api, failed: str) -> None:
    """Lists, pages, cancelling, counting, starting."""
    path = started(admin, rate=SLOW)
    ok(api.ask("POST", "/v1/tenants", {"id": "other", "name": "Other"}), 201)
    other = Visitor(api, api.new_key("manage", "read", tenant="other"))
    assert "No replays" in shown(other.get("replays"))
    assert shown(other.get(path), 404)
    assert shown(other.post(f"{path}/cancel"), 404)
    assert "bound to the tenant" in shown(
        other.post("replays/preview", {"tenant": "acme", "only": "all"}), 403
    )
    theirs = {"endpoint": failed, "only": "all", "key": "k"}
    for where in ("replays/preview", "replays"):
        assert "there is no endpoint" in shown(other.post(where, theirs), 404)
    assert failed not in other.get("replays/new").text
    assert ok(api.ask("GET", f"/v1/{path}"))["status"] == "running"
    assert ok(api.ask("GET", "/v1/replays?limit=1"))["next"] is None


def test_only_who_may_manage_starts_and_cancels(admin: Visitor, api: Api, failed: str) -> None:
    """A reader sees it go on, without buttons; the server checks, and the token too."""
    path = started(admin, rate=SLOW)
    reader = Visitor(api, api.new_key("read", tenant="acme"))
    assert "Running" in shown(reader.get("replays"))
    assert "New replay" not in shown(reader.get("replays"))
    assert "Cancel the replay" not in shown(reader.get(path))
    for answer in (
        reader.get("replays/new"),
        reader.post("replays/preview", {"only": "failed"}),
        reader.post("replays", {"only": "failed", "key": "k"}),
        reader.post(f"{path}/cancel"),
    ):
        assert "lacks the scope manage" in shown(answer, 403)
    for where in ("replays/preview", "replays", f"{path}/cancel"):
        assert "nothing was done" in shown(admin.post(where, {"csrf": "", "only": "failed", "key": "k"}), 403)
    assert "Running" in shown(reader.get("replays"))


def test_all_failures_of_the_list_are_made_again(
    admin: Visitor, api: Api, receiver: Receiver, store: Store, failed: str
) -> None:
    """From the list of failures by its button to the replay, with its filters."""
    dead_letters(admin, 3)
    project(api, store)
    text = admin.get("failed?tenant=acme&event_type=room.ended").text
    form = text[text.index('action="/dashboard/replays/preview') :]
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form[: form.index("</form>")]))
    page = admin.post("replays/preview?tenant=acme", fields).text
    answer = admin.post("replays?tenant=acme", form_of(page))
    assert answer.status_code == 303, answer.text
    assert len(wait_attempts(api, 2, "replay")) == 2
    assert len(receiver.bodies) == 5
