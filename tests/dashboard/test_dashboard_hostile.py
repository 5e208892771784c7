"""Somebody who means harm, or types nonsense, at the dashboard: nothing runs, leads away or breaks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.dashboard.settings_forms import fields_of, filled
from tests.dashboard.visitor import Visitor
from tests.dashboard.world import World
from tests.integration.api_fixtures import KEY

_ASKED = 'curl() { printf "%s\\0" "$@"; case "$*" in *"@-"*) cat;; esac; }\n'
"""Stands for curl: says its arguments, and its input where it would send that."""
NASTY = (
    b'{"a": "it\'s"}',
    b'{"a": "$(touch hacked) `touch hacked` \\" \' ; touch hacked #"}',
    b'{"a": "100 % \\\\ \\n",\n "b": "--x"}',
    b'{"a": "\x7f\x7f\x7f\x7f"}\n touch hacked\n',
    b'{"a": "\xc2\x9b201~ \xe2\x80\xae"}',
    b"\x03\x1b[201~\ntouch hacked\n\0\xff",
    b"-1\x03",
    b'{"a": "' + b"'" * 120_000 + b'"}',
)


@pytest.mark.parametrize(
    "next", ["//[", "http://[x", "/dashboard/a\tb", "/\t/evil.example", "///evil.example/dashboard/"]
)
def test_an_address_that_is_none_leads_to_the_overview(world: World, next: str) -> None:
    """After login, and back from a retry; browsers leave out what is not printable."""
    visitor = Visitor(world.api)
    answer = visitor.log_in(KEY, next)
    assert (answer.status_code, answer.headers.get("location")) == (303, "/dashboard/overview")
    back = visitor.post("failed/retry", {"key": "k", "back": next})
    assert (back.status_code, back.headers.get("location")) == (303, "/dashboard/overview")


@pytest.mark.parametrize("payload", NASTY)
def test_a_copied_curl_sends_the_payload_and_does_nothing_else(
    world: World, admin: Visitor, payload: bytes, tmp_path: Path
) -> None:
    """Pasted into a shell, whatever is in it; and no terminal obeys what is in it meanwhile."""
    world.publish("acme", payload)
    answer = admin.get(f"message/curl?id=m0&endpoint={world.endpoints['acme']}")
    assert all(each.isprintable() or each == "\n" for each in answer.text)
    ran = subprocess.run(
        ["/bin/sh"], input=(_ASKED + answer.text).encode(), capture_output=True, cwd=tmp_path, check=True
    )
    assert ran.stdout.split(b"\0", ran.stdout.count(b"--data") + 20)[0] == b"--globoff"
    assert payload in ran.stdout
    assert ran.stderr == b""
    assert list(tmp_path.iterdir()) == []


def test_a_payload_that_does_not_fit_the_profile_has_no_curl(world: World, admin: Visitor) -> None:
    """A clear page: such a message was skipped, and there is no request to make again."""
    id = world.add_endpoint("acme", "https://js.example.com/in", profile="meetingbaas")
    world.publish("acme", b"\xff{", to=id)
    answer = admin.get(f"message/curl?id=m0&endpoint={id}")
    assert answer.status_code == 422
    assert "does not fit the profile" in answer.text


def test_a_version_of_thousands_of_digits_is_an_old_one(world: World, admin: Visitor) -> None:
    """Python refuses to read numbers that long; the form must not."""
    path = f"webhooks/{world.endpoints['acme']}/edit"
    page = admin.get(path)
    assert admin.post(path, filled(page, version="9" * 5_000)).status_code == 409
    assert admin.post(path, [*filled(page, version="9" * 5_000), ("more", "1")]).status_code == 200


ORIGIN = "http://api"
LATE = [
    ("owner", "acme"),
    ("url", "https://late.example.com/a?b=1&c"),
    ("which", "all"),
    ("profile", "standard"),
]


def _ended(world: World) -> Visitor:
    """Somebody whose key was revoked while a form was open."""
    key = world.api.new_key("manage", "read")
    visitor = Visitor(world.api, key)
    world.api.ask("DELETE", f"/v1/keys/{key.split('_')[1]}")
    return visitor


def test_a_form_that_was_sent_after_its_session_is_sent_after_the_login(world: World) -> None:
    """Nothing is lost: what was written comes along, and a wrong key on the way does not lose it."""
    visitor = _ended(world)
    answer = visitor.post(
        "webhooks/new", LATE, origin=ORIGIN, referer=f"{ORIGIN}/dashboard/webhooks/new?tenant=acme"
    )
    assert (answer.status_code, "log in to send it" in answer.text) == (401, True)
    answer = visitor.post("login", filled(answer, key="wrong"))
    answer = visitor.post("login", filled(answer, key=KEY))
    assert (answer.status_code, "Send it now" in answer.text) == (200, True)
    assert 'href="/dashboard/webhooks/new?tenant=acme"' in answer.text
    assert KEY not in answer.text
    assert visitor.post("webhooks/new", fields_of(answer)).status_code == 201
    assert "late.example.com" in visitor.get("webhooks").text


@pytest.mark.parametrize("origin", ["", "null", "http://evil.example", "http://[", "http://api.evil.example"])
def test_what_another_site_sent_waits_for_no_login(world: World, origin: str) -> None:
    """Or it could lay a form of its own before who logs in; nor is its address gone back to."""
    answer = _ended(world).post("webhooks/new", LATE, origin=origin, referer=f"{origin}/dashboard/x")
    assert (answer.status_code, "do it again" in answer.text) == (401, True)
    assert "late.example.com" not in answer.text
    assert 'name="next" value=""' in answer.text


def test_a_waiting_form_goes_to_no_other_site(world: World) -> None:
    """Whatever the login's form was made to say."""
    visitor = Visitor(world.api)
    visitor.get("login")
    given = {
        "key": KEY,
        "to": "//evil.example/dashboard/",
        "next": "//evil.example",
        "sent": "a=%22%3E%3Cscript%3E",
    }
    answer = visitor.post("login", given)
    assert "evil.example" not in answer.text
    assert 'value="&#34;&gt;&lt;script&gt;"' in answer.text


def test_tenants_are_chosen_on_pages_that_are_about_one(world: World, admin: Visitor) -> None:
    """Elsewhere another tenant would be another page: that of a message, or one that answers a form."""
    world.publish("acme")
    for path in ("overview", "deliveries", "failed", "replays", "webhooks", "keys", "audit"):
        assert 'id="f-tenant"' in admin.get(path).text, path
    for path in ("message?id=m0", f"endpoints/{world.endpoints['acme']}", "event-types", "webhooks/new"):
        assert 'id="f-tenant"' not in admin.get(path).text, path


@pytest.mark.parametrize("path", ["deliveries", "failed", "audit"])
def test_a_wrong_filter_is_told_with_its_field(admin: Visitor, path: str) -> None:
    """To a screen reader too, and without what only concerns addresses of the API."""
    answer = admin.get(f"{path}?since=yesterday")
    assert answer.status_code == 422
    assert 'name="since" aria-describedby="e-since" aria-invalid="true"' in answer.text
    assert 'id="e-since"' in answer.text
    assert "RFC 3339" not in answer.text
    assert "aria-invalid" not in admin.get(path).text
