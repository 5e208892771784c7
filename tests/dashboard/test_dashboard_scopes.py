"""What holds for every page: who may see it, what browsers are told, no change without a token."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
from fastapi.routing import APIRoute

from engine.api.dashboard.app import CSP, routers
from engine.api.dashboard.visit import Visiting
from engine.core.directory import SCOPES
from tests.dashboard.visitor import Visitor
from tests.dashboard.world import World
from tests.integration.api_fixtures import KEY

pytestmark = pytest.mark.integration

_OPEN = {"/login", "/logout", "/static/{name}"}
"""What is there before login; their own tests say how."""
_SECRET = "of-the-other-tenant"


@dataclass(frozen=True, slots=True)
class Page:
    """A method of a path below /dashboard."""

    method: str
    path: str


def routes() -> list[APIRoute]:
    """Every route of the dashboard but those that are open."""
    found = [route for router in routers() for route in router.routes if isinstance(route, APIRoute)]
    assert len(found) > 8
    return [route for route in found if route.path not in _OPEN]


def pages() -> list[Page]:
    """The same by method."""
    return [Page(method, route.path) for route in routes() for method in sorted(route.methods or ())]


def filled(page: Page, given: dict[str, str]) -> str:
    """Its path with these parameters, and all of them in the query, too."""
    path = re.sub(r"{(\w+)(?::\w+)?}", lambda found: given.get(found[1], "x"), page.path)
    query = "&".join(f"{name}={value}" for name, value in given.items())
    return f"{path.removeprefix('/')}?{query}"


def _given(world: World, tenant: str, offset: int) -> dict[str, str]:
    """Parameters that name what is a tenant's, under every name that a route has for it."""
    endpoint, delivery = world.endpoints[tenant], world.delivery(tenant, offset)
    return {
        "endpoint_id": endpoint,
        "endpoint": endpoint,
        "id": f"m{offset}",
        "message": f"m{offset}",
        "delivery_id": delivery,
        "delivery": delivery,
        "name": "room.ended",
    }


@pytest.fixture
def both(world: World) -> World:
    """A message of each tenant that failed: m0 is acme's, m1 the other's."""
    world.endpoints.pop("other")
    world.add_endpoint("other", f"https://{_SECRET}.example.com/in")
    for offset, tenant in enumerate(("acme", "other")):
        world.publish(tenant, b'{"of": "%s"}' % (_SECRET.encode() if offset else b"acme"))
        world.attempt(tenant, offset, error_class="http_5xx", response_body=_SECRET.encode() * offset)
    return world


def test_every_page_asks_for_a_session_and_is_guarded(both: World) -> None:
    """Without one a page leads to the login and a change is refused; each answer has the policy."""
    stranger = Visitor(both.api)
    for page in pages():
        path = filled(page, _given(both, "acme", 0))
        answer = stranger.get(path) if page.method == "GET" else stranger.post(path)
        assert answer.status_code == (303 if page.method == "GET" else 401), page
        assert answer.headers["content-security-policy"] == CSP, page
        assert answer.headers["x-content-type-options"] == "nosniff", page
        assert answer.headers["cache-control"] == "no-store", page
        assert _SECRET not in answer.text, page


def test_every_page_that_is_shown_is_guarded_and_has_no_inline_script_or_style(
    both: World, admin: Visitor
) -> None:
    """The policy forbids them, so they would be faults; errors are guarded, too."""
    paths = [filled(page, _given(both, "acme", 0)) for page in pages() if page.method == "GET"]
    for path in [*paths, "nothing", "static/dashboard.css", "login", "deliveries?since=x"]:
        answer = admin.get(path)
        assert answer.headers["content-security-policy"] == CSP, path
        assert answer.headers["x-content-type-options"] == "nosniff", path
        assert answer.status_code < 500, path
        assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", answer.text), path
        assert not re.search(r'(?:src|href)="https?://', answer.text), path


def test_no_change_goes_without_the_sessions_token(both: World, admin: Visitor) -> None:
    """403 for each, without one and with another session's."""
    other = Visitor(both.api, KEY)
    for page in pages():
        if page.method in ("GET", "HEAD"):
            continue
        for token in ("", other.token):
            answer = admin.post(filled(page, _given(both, "acme", 0)), {"csrf": token})
            assert (answer.status_code, "nothing was done" in answer.text) == (403, True), page


def test_every_route_checks_a_scope() -> None:
    """By one of the types of visit.py, so that none is forgotten."""
    for route in routes():
        checks = [each.call for each in route.dependant.dependencies]
        assert any(isinstance(check, Visiting) for check in checks), route.path


def test_a_tenants_key_sees_nothing_of_others_on_any_page(both: World, acme: Visitor) -> None:
    """Whatever a request names; and to ask for another tenant outright is refused."""
    ours, theirs = _given(both, "acme", 0), _given(both, "other", 1)
    for page in pages():
        if page.method != "GET":
            continue
        for given in (ours, theirs, {}):
            answer = acme.get(filled(page, given))
            assert answer.status_code < 500, (page, given)
            assert _SECRET not in answer.text, (page, given)
        refused = acme.get(filled(page, {**ours, "tenant": "other"}))
        assert refused.status_code == 403, page


def test_the_admin_sees_both_where_a_tenant_sees_one(both: World, admin: Visitor, acme: Visitor) -> None:
    """So the test above can fail."""
    for path in ("deliveries", "overview", "message?id=m1", f"endpoints/{both.endpoints['other']}"):
        assert _SECRET in admin.get(path).text, path
        assert _SECRET not in acme.get(path).text, path


def test_each_scope_opens_what_it_may(both: World) -> None:
    """All but publish may look; a publisher has no session at all."""
    for scope in SCOPES:
        visitor = Visitor(both.api)
        visitor.log_in(both.api.new_key(scope, tenant="acme"))
        assert visitor.get("deliveries").status_code == (303 if scope == "publish" else 200), scope


def test_the_frame_tells_whose_it_is(both: World, admin: Visitor, acme: Visitor) -> None:
    """Only who may choose a tenant is asked which."""
    assert 'name="tenant"' in admin.get("overview").text
    assert 'name="tenant"' not in acme.get("overview").text
    assert "<b>acme</b>" in acme.get("overview").text


def test_requests_are_counted_by_their_whole_path(both: World, admin: Visitor) -> None:
    """So that the dashboard's pages are told from the API's routes."""
    admin.get("deliveries")
    text = both.api.ask("GET", "/metrics").text
    assert 'route="/dashboard/deliveries"' in text
