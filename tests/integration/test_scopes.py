"""What each scope may do, over every route of the OpenAPI document."""

from __future__ import annotations

import pytest

from tests.integration.api_fixtures import Api, Ask, holding
from tests.integration.api_fixtures import shared_api as api
from tests.integration.routes import Route, routes

__all__ = ["api"]

GRANTS = {
    "read": {"read"},
    "publish": {"publish"},
    "manage": {"read", "manage"},
    "admin": {"read", "publish", "manage", "admin", "platform"},
}
"""Scope of a key -> what it may do; `platform`: if it is bound to no tenant."""
NEEDED = {
    "POST /v1/messages": "publish",
    "POST /v1/messages/batch": "publish",
    "POST /v1/keys": "admin",
    "GET /v1/keys": "admin",
    "DELETE /v1/keys/{key_id}": "admin",
    "POST /v1/tenants": "platform",
    "DELETE /v1/tenants/{tenant_id}": "platform",
    "GET /v1/event-types": "any",
    "PUT /v1/event-types/{name}": "platform",
    "DELETE /v1/event-types/{name}": "platform",
}
"""Of all others a GET needs `read`, any other method `manage`."""
OF_AN_ACCOUNT = "/bots/"
"""Meeting BaaS's routes take a tenant's key only."""


def needed(route: Route) -> str:
    """What a route needs."""
    return NEEDED.get(str(route), "read" if route.method == "GET" else "manage")


def may(scope: str, tenant: str | None, route: Route) -> bool:
    """What the tables say."""
    if needed(route) == "platform" and tenant is not None:
        return False
    if route.path.startswith(OF_AN_ACCOUNT) and tenant is None:
        return False
    return needed(route) == "any" or needed(route) in GRANTS[scope]


def lacks(scope: str, route: Route) -> str:
    """What a refusal says."""
    if needed(route) in GRANTS[scope]:
        return "bound to a tenant" if route.path.startswith(OF_AN_ACCOUNT) else "one is a tenant's"
    return f"scope {'admin' if needed(route) == 'platform' else needed(route)}"


def path_of(route: Route) -> str:
    """A path of things that do not exist."""
    return route.path.format_map({name: f"no-{name}" for name in route.in_path})


@pytest.mark.parametrize("tenant", [None, "acme"])
@pytest.mark.parametrize("scope", GRANTS)
def test_a_key_may_do_what_its_scope_grants_and_nothing_else(
    api: Api, scope: str, tenant: str | None
) -> None:
    """403 naming the scope that lacks, whatever the body; otherwise the route itself answers."""
    if tenant is not None:
        api.ask("POST", "/v1/tenants", {"id": tenant})
    key = api.new_key(scope, tenant=tenant)
    for route in routes(api):
        answer = api.ask_as(key, route.method, path_of(route), {"surprise": 1})
        said = f"{route}: {answer.status_code} {answer.text}"
        if may(scope, tenant, route):
            assert answer.status_code not in (401, 403), said
        else:
            assert answer.status_code == 403, said
            assert lacks(scope, route) in answer.json()["detail"], said


def test_every_route_needs_a_key_that_is_valid(api: Api) -> None:
    """401 with no key, an unknown, a malformed, a revoked one, and one under another's id."""
    revoked, good = api.new_key("admin"), api.new_key("admin")
    assert api.ask("DELETE", f"/v1/keys/{revoked.split('_')[1]}").status_code == 204
    crossed = f"hl_{good.split('_')[1]}_{revoked.split('_', 2)[2]}"
    unknown = f"hl_{'0' * 16}_{'A' * 43}"
    for route in routes(api):
        for key in ("", "hl_", "x", good[:-1], good + "x", revoked, crossed, unknown):
            answer = api.ask_as(key, route.method, path_of(route), {})
            assert answer.status_code == 401, f"{route} with {key[:6]!r}: {answer.text}"
            assert answer.headers["www-authenticate"] == "Bearer"


ODD = {
    b"": "it is empty",
    b"[]": "Expecting",
    b"{": "Expecting",
    b"\xef\xbb\xbf{}": "byte order mark",
    b'{"a":1,"a":2}': '"a" is there twice',
    b'{"a":NaN}': "NaN is no number",
    b'{"a":"\xff"}': "UTF-8",
    b'{"a":' + b"[" * 600 + b"]" * 600 + b"}": "deeper than",
}


def test_every_body_is_read_by_the_same_strict_rules(api: Api) -> None:
    """400 with one wording, the same on each route; 415 for what is said not to be JSON."""
    api.ask("POST", "/v1/tenants", {"id": "bodies"})
    platforms, tenants = holding(api.new_key("admin")), holding(api.new_key("admin", tenant="bodies"))
    with_body = [route for route in routes(api) if route.in_body]
    assert len(with_body) >= 8
    for route in with_body:
        admin = tenants if route.path.startswith(OF_AN_ACCOUNT) else platforms
        for body, said in ODD.items():
            if body or route.needs_body:
                (answer,) = api.together(Ask(route.method, path_of(route), content=body, headers=admin))
                assert answer.status_code == 400, f"{route} {body[:20]!r}: {answer.text}"
                assert answer.json()["detail"].startswith("the body is not a JSON object: "), answer.text
                assert said in answer.json()["detail"], answer.text
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonp"):
            headers = {**admin, "Content-Type": kind}
            (answer,) = api.together(Ask(route.method, path_of(route), content=b"{}", headers=headers))
            assert answer.status_code == 415, f"{route} as {kind}: {answer.text}"
