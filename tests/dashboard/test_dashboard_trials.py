"""Settings → Webhooks: rotating a secret and testing an endpoint, with every group and a real receiver."""

from __future__ import annotations

import html
import re

import httpx
import pytest

from engine.api.dashboard.session import PATH
from engine.core.profile import verify
from engine.dev.process import wait_until
from tests.dashboard.settings_forms import fields_of, filled, secret_of, send
from tests.dashboard.test_dashboard_pages import shown
from tests.dashboard.visitor import Visitor
from tests.dashboard.world import World
from tests.integration.api_fixtures import KEY, Api, dev_context, running
from tests.integration.whole import LIMIT_S, Receiver, api_with_groups, attempts, ok, receiver

__all__ = ["api_with_groups", "receiver"]
pytestmark = pytest.mark.integration
STANDARD_SECRET = "whsec_" + "QUJD" * 8


def added(api: Api, **given: object) -> str:
    """Create an endpoint; its id."""
    body = {"tenant": "acme", "url": "https://a.example.com/", **given}
    return str(ok(api.ask("POST", "/v1/endpoints", body), 201)["id"])


def code_of(page: httpx.Response, label: str) -> str:
    """The text of a block of code."""
    found = re.search(rf'<pre class="code"[^>]*aria-label="{label}">(.*?)</pre>', page.text, re.DOTALL)
    assert found, page.text
    return html.unescape(found[1])


def test_a_test_shows_what_was_sent_and_what_was_answered(api_with_groups: Api, receiver: Receiver) -> None:
    """Headers and body as the receiver got them, but for secrets; and the answer as text."""
    id = added(api_with_groups, url=receiver.url, headers={"X-Token": "of-the-receiver"})
    receiver.body = b"<script>alert(1)</script>"
    visitor = Visitor(api_with_groups, KEY)
    answer = send(visitor, f"webhooks/{id}/test")
    text = shown(answer)
    assert re.search(r"It answered 200, after [\d.]+ m?s", text)
    headers, body = receiver.requests[0]
    assert code_of(answer, "Body that was sent") == body.decode()
    said = dict(line.split(": ", 1) for line in code_of(answer, "Headers that were sent").splitlines()[1:])
    secret = {"webhook-signature", "X-Token"}
    assert {said[name] for name in secret} == {"(not shown)"}
    got = {name.lower(): value for name, value in headers.items()}
    for name in said.keys() - secret:
        assert got[name.lower()] == said[name], name
    assert code_of(answer, "Body of the answer") == "<script>alert(1)</script>"
    assert "<script>alert" not in answer.text
    assert "of-the-receiver" not in answer.text
    receiver.status = 401
    failed = send(visitor, f"webhooks/{id}/test")
    assert "It answered 401" in shown(failed)
    assert "the secret differs at the two ends" in shown(failed)
    assert "What to do: Compare the secret" in shown(failed)


def test_a_test_of_a_type_of_the_catalogue_and_one_that_reloads(
    api_with_groups: Api, receiver: Receiver
) -> None:
    """Only types with an example are offered; the same form again shows the first answer."""
    api, id = api_with_groups, added(api_with_groups, url=receiver.url, profile="bedrud", enabled=False)
    ok(api.ask("PUT", "/v1/event-types/room.ended", {"example": {"room": "kitchen"}}))
    ok(api.ask("PUT", "/v1/event-types/room.started", {}))
    visitor = Visitor(api, KEY)
    page = visitor.get(f"webhooks/{id}/test")
    assert "even though the endpoint is disabled" in shown(page)
    assert "room.started" not in page.text
    given = filled(page, event_type="room.ended")
    first = visitor.post(f"webhooks/{id}/test", given)
    assert '"kitchen"' in code_of(first, "Body that was sent")
    again = visitor.post(f"webhooks/{id}/test", given)
    assert "nothing was sent a second time" in shown(again)
    assert "It answered 200" in shown(again)
    assert len(receiver.requests) == len(attempts(api)) == 1
    wrong = visitor.post(f"webhooks/{id}/test", filled(page, event_type="room.none"))
    assert 'id="e-event_type"' in wrong.text
    assert shown(wrong, 422)


def test_a_test_that_nobody_answers(api_with_groups: Api) -> None:
    """The class of error in words, and what to do."""
    id = added(api_with_groups, url="http://127.0.0.1:9/")
    text = shown(send(Visitor(api_with_groups, KEY), f"webhooks/{id}/test"))
    assert "There was no answer" in text
    assert "nobody answers at that address" in text
    assert "Start the receiver" in text


def test_without_the_groups_a_test_says_what_is_missing() -> None:
    """503 on the form, and the choice stays."""
    with running(dev_context()) as api:
        id = added(api, timeout_ms=100)
        answer = send(Visitor(api, KEY), f"webhooks/{id}/test")
        assert "are the replayer and the dispatcher running?" in shown(answer, 503)
        assert 'name="event_type"' in answer.text


def test_a_new_secret_signs_and_is_shown_once(api_with_groups: Api, receiver: Receiver) -> None:
    """In the answer of the form only, which no cache keeps; sent again it rotates nothing."""
    api, id = api_with_groups, added(api_with_groups, url=receiver.url, profile="bedrud")
    visitor = Visitor(api, KEY)
    page = visitor.get(f"webhooks/{id}/rotate")
    assert "The old secret stops now." in shown(page)
    assert 'name="overlap_seconds"' not in page.text
    given = filled(page)
    answer = visitor.post(f"webhooks/{id}/rotate", given)
    secret = secret_of(answer)
    assert (answer.status_code, answer.headers["cache-control"], len(secret)) == (200, "no-store", 64)
    assert "stops then" in shown(answer)

    def is_signed_with_it() -> bool:
        send(visitor, f"webhooks/{id}/test")
        return verify(api.context.profile("bedrud"), secret, *receiver.requests[-1])

    assert wait_until(is_signed_with_it, LIMIT_S, 0.05)
    version = ok(api.ask("GET", f"/v1/endpoints/{id}"))["version"]
    again = visitor.post(f"webhooks/{id}/rotate", given)
    assert "nothing was done a second time" in shown(again)
    assert secret not in again.text
    assert ok(api.ask("GET", f"/v1/endpoints/{id}"))["version"] == version
    for path in (f"webhooks/{id}/rotate", f"endpoints/{id}", "webhooks"):
        assert secret not in visitor.get(path).text


def test_an_overlap_where_the_profile_has_one(api: Api, admin: Visitor) -> None:
    """Its length in words; how long the old one goes on stands beside the new one."""
    path = f"webhooks/{added(api)}/rotate"
    assert "goes on beside the new one for 1 d" in shown(admin.get(path))
    assert "signs too until" in shown(send(admin, path))
    stops = send(admin, path, overlap_seconds="0", secret=STANDARD_SECRET)
    assert secret_of(stops) == STANDARD_SECRET
    assert "stops then" in shown(stops)
    assert "signs too until" in shown(send(admin, path, overlap_seconds="2h"))


def test_bad_values_of_a_rotation_stand_at_their_fields(api: Api, admin: Visitor) -> None:
    """A secret that cannot be used is not shown again; nothing is rotated."""
    id = added(api)
    path = f"webhooks/{id}/rotate"
    for overlap in ("soon", "31d", "9" * 30):
        answer = send(admin, path, overlap_seconds=overlap)
        assert 'id="e-overlap_seconds"' in answer.text
        assert dict(fields_of(answer))["overlap_seconds"] == overlap
        assert shown(answer, 422)
    answer = send(admin, path, secret="too short", overlap_seconds="5h")
    assert 'id="e-secret"' in answer.text
    assert "too short" not in answer.text
    assert "write it again" in answer.text
    assert (answer.status_code, dict(fields_of(answer))["overlap_seconds"]) == (422, "5h")
    bedrud = added(api, profile="bedrud")
    assert "sends one signature" in shown(send(admin, f"webhooks/{bedrud}/rotate", overlap_seconds="1h"), 422)
    for each in (id, bedrud):
        assert ok(api.ask("GET", f"/v1/endpoints/{each}"))["version"] == 1


def test_no_secret_is_in_a_cookie_a_log_or_an_address(
    world: World, admin: Visitor, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of those that are shown once: a new endpoint's, a rotation's, a key's."""
    id = world.endpoints["acme"]
    answers = [
        send(admin, "webhooks/new", owner="acme", url="https://b.example.com/", which="all"),
        send(admin, f"webhooks/{id}/rotate"),
        send(admin, "keys/new", scopes=["read"]),
    ]
    logged = capfd.readouterr()
    for answer in answers:
        secret = secret_of(answer)
        assert len(secret) > 40
        assert answer.headers["cache-control"] == "no-store"
        assert secret not in str(answer.headers)
        assert secret not in str(admin.cookies)
        assert secret not in logged.out + logged.err
        assert "location" not in answer.headers
    assert PATH == "/dashboard"
