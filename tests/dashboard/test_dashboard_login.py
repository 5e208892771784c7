"""Logging in to the dashboard: sessions, tokens, and who tries too often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.api.dashboard.session import COOKIE, Seal
from engine.api.dashboard.throttle import ADDRESSES_MAX, FAILURES_MAX, WINDOW_S, Throttle
from tests.dashboard.visitor import Visitor
from tests.integration.api_fixtures import KEY, Api, make_context, running
from tests.integration.history_fixtures import Hand


@pytest.fixture(scope="module")
def api() -> Iterator[Api]:
    """One without a history; what is tested here needs none."""
    with running(make_context()) as running_api:
        yield running_api


def test_a_key_begins_a_session_and_leads_to_where_one_wanted_to_go(api: Api) -> None:
    """The cookie is HttpOnly and SameSite, and holds the key's id and not the key."""
    visitor = Visitor(api)
    sent_away = visitor.get("deliveries?status=failed")
    assert sent_away.status_code == 303
    assert sent_away.headers["location"].startswith("/dashboard/login?next=")
    visitor.get("login")
    answer = visitor.post("login", {"key": KEY, "next": "/dashboard/deliveries?status=failed"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/deliveries?status=failed")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie
    assert KEY not in cookie
    assert visitor.get("overview").status_code == 200


@pytest.mark.parametrize(
    "next",
    ["https://evil.example/", "//evil.example/dashboard/", "/dashboard/\\..\n", "javascript:alert(1)", "/v1"],
)
def test_after_login_one_is_led_to_no_other_site(api: Api, next: str) -> None:
    """Whatever the form said."""
    visitor = Visitor(api)
    visitor.get("login")
    assert visitor.post("login", {"key": KEY, "next": next}).headers["location"] == "/dashboard/overview"


@pytest.mark.parametrize("key", ["", "wrong", "hl_0123456789abcdef_" + "x" * 43, "hl_é"])
def test_a_key_that_is_not_known_is_refused_and_not_shown(api: Api, key: str) -> None:
    """401, as the API has it."""
    visitor = Visitor(api)
    visitor.get("login")
    answer = visitor.post("login", {"key": key})
    assert answer.status_code == 401
    assert "no longer valid" in answer.text
    assert not key or f'value="{key}"' not in answer.text


def test_a_key_that_may_only_publish_has_nothing_to_look_at(api: Api) -> None:
    """403 that names the scope."""
    visitor = Visitor(api)
    visitor.get("login")
    answer = visitor.post("login", {"key": api.new_key("publish")})
    assert answer.status_code == 403
    assert "lacks the scope read" in answer.text


def test_without_the_token_of_the_session_nothing_is_done(api: Api) -> None:
    """Neither login nor logout: missing, another session's, or from another site."""
    visitor, other = Visitor(api, KEY), Visitor(api, KEY)
    for fields in ({"csrf": ""}, {"csrf": other.token}, {"csrf": "x.y"}):
        assert visitor.post("logout", fields).status_code == 403
    assert visitor.post("logout", sec_fetch_site="cross-site").status_code == 403
    assert visitor.get("overview").status_code == 200
    fresh = Visitor(api)
    assert fresh.post("login", {"key": KEY}).status_code == 403
    assert fresh.get("overview").status_code == 303


def test_logging_out_ends_it(api: Api) -> None:
    """The cookie goes, and pages ask for a key again."""
    visitor = Visitor(api, KEY)
    assert visitor.post("logout").status_code == 303
    assert COOKIE not in visitor.cookies
    assert visitor.get("overview").status_code == 303


def test_a_revoked_key_ends_its_sessions(api: Api) -> None:
    """At the very next request; and a form that was open says that nothing was done."""
    key = api.new_key("read")
    visitor = Visitor(api, key)
    assert visitor.get("overview").status_code == 200
    api.ask("DELETE", f"/v1/keys/{key.split('_')[1]}")
    gone = visitor.get("overview")
    assert (gone.status_code, "why=ended" in gone.headers["location"]) == (303, True)
    assert "Nothing is lost" in visitor.get("login?why=ended").text
    part = visitor.get("overview", hx_request="true")
    assert (part.status_code, "login" in part.headers["hx-redirect"]) == (401, True)


def test_a_forged_cookie_is_none(api: Api) -> None:
    """One of another master key, one that was changed, one that is no text of ours."""
    visitor = Visitor(api, KEY)
    foreign = Seal([bytes(32)])
    session = foreign.new("admin", api.services.admin_digest, api.context.clock.now())
    good = visitor.cookies[COOKIE]
    for forged in (foreign.text(session), good[:-2] + "xx", "x" + good, "é", ""):
        visitor.cookies[COOKIE] = forged.encode("utf-8").decode("latin-1")
        assert visitor.get("overview").status_code == 303


def test_a_session_ends_after_its_time_and_with_another_key_under_its_name(api: Api) -> None:
    """It is sealed with when it ends and with what the key was."""
    seal, now = Seal(api.context.vault.command_keys), api.context.clock.now()
    digest = api.services.admin_digest
    visitor = Visitor(api)
    for session, status in (
        (seal.new("admin", digest, now), 200),
        (seal.new("admin", digest, now - 13 * 3_600_000_000), 303),
        (seal.new("admin", bytes(32), now), 303),
        (seal.new("key:0123456789abcdef", digest, now), 303),
        (seal.new("", digest, now), 303),
    ):
        visitor.cookies[COOKIE] = seal.text(session)
        assert visitor.get("overview").status_code == status, session


def test_any_process_with_the_master_key_takes_a_session_and_that_of_the_key_before() -> None:
    """After a restart, in another process, and while master keys are changed; not with another key."""
    old, new, now = bytes(32), b"\1" * 32, 1_800_000_000_000_000
    session = Seal([old]).new("admin", b"d", now)
    text = Seal([old]).text(session)
    assert Seal([old]).read(text, now) == Seal([new, old]).read(text, now) == session
    Seal([new, old]).check(session, Seal([old]).token(session))


def test_who_fails_too_often_has_to_wait() -> None:
    """429 for that address, though the key is right by then."""
    with running(make_context()) as api:
        visitor = Visitor(api)
        visitor.get("login")
        for _ in range(FAILURES_MAX):
            assert visitor.post("login", {"key": "wrong"}).status_code == 401
        refused = visitor.post("login", {"key": KEY})
        assert refused.status_code == 429
        assert "wait" in refused.text


def test_failures_are_counted_by_network_for_a_while_and_in_bounded_memory() -> None:
    """An IPv6 host has a /64; ten thousand networks are remembered."""
    clock = Hand(1.0)
    throttle = Throttle(clock)
    for n in range(FAILURES_MAX):
        throttle.failed(f"2001:db8::{n}")
    assert throttle.wait_s("2001:db8::ffff") == pytest.approx(WINDOW_S)
    assert throttle.wait_s("2001:db8:0:1::1") == throttle.wait_s("10.0.0.1") == 0
    clock.now_s += WINDOW_S
    assert throttle.wait_s("2001:db8::1") == 0
    for _ in range(FAILURES_MAX):
        throttle.failed("10.0.0.1")
    for n in range(ADDRESSES_MAX):
        throttle.failed(f"2001:db8:{n:x}::1")
    assert throttle.wait_s("10.0.0.1") == 0


def test_forms_that_cannot_be_read(api: Api) -> None:
    """415 and 422, as pages; a login without a cookie is no session's."""
    visitor = Visitor(api, KEY)
    assert visitor.post("logout", content_type="application/json").status_code == 415

    assert visitor.post("logout", [("y", "1")] * 2_001).status_code == 422
    assert visitor.get("overview").status_code == 200
