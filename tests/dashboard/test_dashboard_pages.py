"""What the pages show, on the real engine."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.dashboard.visitor import Visitor
from tests.dashboard.world import World
from tests.integration.api_fixtures import KEY, dev_context, running

pytestmark = pytest.mark.integration


def shown(answer: httpx.Response, status: int = 200) -> str:
    """The page's text without tags, spaces run together."""
    assert answer.status_code == status, answer.text
    return " ".join(re.sub(r"<[^>]*>", " ", answer.text).split())


def test_an_empty_system_says_what_to_do_next(admin: Visitor) -> None:
    """Each page has words for having nothing to show."""
    assert "No endpoints yet" in shown(admin.get("overview"))
    assert "No deliveries yet" in shown(admin.get("deliveries"))
    assert "Nothing matches" in shown(admin.get("deliveries?status=failed"))
    assert "No delivery of that id" in shown(admin.get("deliveries?id=nothing"))


def test_the_overview_tells_what_fails(world: World, admin: Visitor) -> None:
    """Figures of the last hour, and the endpoint that has failed since its last success."""
    for n in range(3):
        world.publish("other")
        world.attempt("other", n)
    world.publish("acme")
    world.attempt("acme", 3, error_class="http_5xx")
    text = shown(admin.get("overview"))
    assert "Some endpoints are failing" in text
    assert "1 of 2 endpoints have failed" in text
    assert "hooks.example.com/in acme 1" in text
    assert "75.00 %" in text
    assert "Attempts by minute in the last hour: 4, of which 1 failed" in admin.get("overview").text


def test_the_overview_of_one_tenant(world: World, admin: Visitor) -> None:
    """Chosen in the address, and kept in the links."""
    world.publish("acme")
    world.attempt("acme", 0, error_class="http_5xx")
    page = admin.get("overview?tenant=other")
    assert "No endpoint is failing" not in shown(page)
    assert "Quiet" in shown(page)
    assert 'href="/dashboard/deliveries?tenant=other"' in page.text


def test_only_the_part_that_lives_is_sent_to_htmx(world: World, admin: Visitor) -> None:
    """Without the frame around it."""
    world.publish("acme")
    for path in ("overview", "deliveries", "message?id=m0"):
        part = admin.get(path, hx_request="true")
        assert part.status_code == 200, part.text
        assert "<html" not in part.text
        assert part.text.strip() in admin.get(path).text or path == "overview"


def test_a_live_tail_shows_each_its_own(world: World, admin: Visitor, acme: Visitor) -> None:
    """Who looks at the same is answered alike; a tenant's key never gets what the platform's was shown."""
    for tenant in ("acme", "other"):
        world.attempt(tenant, world.publish(tenant))
    for path, seen in (("deliveries?live=1", {"m0", "m1"}), ("deliveries?live=1&tenant=other", {"m1"})):
        assert set(re.findall(r">(m\d+)</a>", admin.get(path, hx_request="true").text)) == seen, path
    assert set(re.findall(r">(m\d+)</a>", acme.get("deliveries?live=1", hx_request="true").text)) == {"m0"}
    assert acme.get("deliveries?live=1&tenant=other", hx_request="true").status_code in {403, 404}


def test_deliveries_are_found_by_each_filter(world: World, admin: Visitor) -> None:
    """Status, endpoint, type, time, tenant and id; what does not match is not there."""
    world.publish("acme")
    world.publish("other")
    world.attempt("other", 1)
    for query, found in {
        "": {"m0", "m1"},
        "?status=pending": {"m0"},
        "?status=delivered": {"m1"},
        f"?endpoint={world.endpoints['acme']}": {"m0"},
        "?event_type=room.ended": {"m0", "m1"},
        "?event_type=room.started": set(),
        "?within=1h": {"m0", "m1"},
        "?since=2099-01-01T00:00": set(),
        "?until=2020-01-01T00:00:00Z": set(),
        "?tenant=acme": {"m0"},
        "?id=m1": {"m1"},
        "?live=1&path=x&self=y": {"m0", "m1"},
    }.items():
        page = admin.get(f"deliveries{query}")
        assert set(re.findall(r">(m\d)</a>", page.text)) == found, query


def test_a_delivery_is_found_by_its_own_id(world: World, admin: Visitor) -> None:
    """It leads to its place in the message's story."""
    world.publish("acme")
    id = world.delivery("acme", 0)
    answer = admin.get(f"deliveries?id={id}")
    assert answer.status_code == 303
    assert f"id=m0&delivery={id}" in answer.headers["location"]
    assert id in admin.get(answer.headers["location"].removeprefix("/dashboard/")).text


def test_what_is_wrong_with_a_filter_stands_beside_it(world: World, admin: Visitor) -> None:
    """422, with the rule; a foreign cursor is a page too."""
    page = admin.get("deliveries?since=yesterday&status=lost")
    text = shown(page, 422)
    assert "must be a time such as" in text
    assert 'id="e-status"' in page.text
    assert "begin without" in shown(admin.get("deliveries?cursor=abc"), 422)


def test_pages_of_deliveries_follow_each_other(world: World, admin: Visitor) -> None:
    """Each delivery once, with a time that was chosen by how long ago, too."""
    for _ in range(60):
        world.publish("acme")
    for start in ("deliveries", "deliveries?within=24h"):
        first = admin.get(start)
        more = re.search(r'href="/dashboard/(deliveries\?[^"]*cursor=[^"]*)"', first.text)
        assert more
        second = admin.get(more[1].replace("&amp;", "&"))
        found = [re.findall(r">(m\d+)</a>", page.text) for page in (first, second)]
        assert (len(found[0]), len(found[1])) == (50, 10)
        assert len({*found[0], *found[1]}) == 60
        assert 'rel="next"' not in second.text


def test_the_story_tells_each_attempt_and_why(world: World, admin: Visitor) -> None:
    """Payload, coordinates, decision in words, the headers that were sent, and the answer."""
    world.publish("acme", b'{"b":[1,2],"a":"x"}')
    world.attempt("acme", 0, error_class="http_5xx", response_body=b"busy")
    page = admin.get("message?id=m0")
    text = shown(page)
    assert "hooklog.messages / partition 0 / offset 0" in text
    assert "retry in 1 h, because it answered 503" in text
    assert "busy" in text
    assert "webhook-id: m0" in text
    assert "webhook-signature: (not shown)" in text
    assert "{\n  &#34;b&#34;: [\n    1,\n    2\n  ],\n  &#34;a&#34;: &#34;x&#34;\n}" in page.text
    assert "{&#34;b&#34;:[1,2],&#34;a&#34;:&#34;x&#34;}" in admin.get("message?id=m0&view=raw").text
    assert 'data-live="3"' in page.text


def test_the_payload_and_a_curl_as_text(world: World, admin: Visitor) -> None:
    """Nothing that a browser would run; the command has no signature, and its quotes hold."""
    world.publish("acme", b'{"a":"it\'s <b>"}')
    payload = admin.get("message/payload?id=m0")
    assert payload.text == '{"a":"it\'s <b>"}'
    curl = admin.get(f"message/curl?id=m0&endpoint={world.endpoints['acme']}")
    for answer in (payload, curl):
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "https://hooks.example.com/in" in curl.text
    assert "signature" not in curl.text
    assert admin.get(f"message/curl?id=m0&endpoint={world.endpoints['other']}").status_code == 404


def test_a_message_that_matched_nothing(world: World, admin: Visitor) -> None:
    """Says so; and one that nobody knows is a page that says so."""
    world.publish("acme", to="gone_long_ago")
    assert "gone_long_ago" in shown(admin.get("message?id=m0"))
    assert "there is no message" in shown(admin.get("message?id=none"), 404)


def test_the_endpoint_page_tells_what_is_wrong_and_what_to_do(world: World, admin: Visitor) -> None:
    """State, cause, advice, errors by class and its attempts."""
    world.publish("acme")
    world.attempt("acme", 0, error_class="timeout", status_code=0, error="no answer")
    text = shown(admin.get(f"endpoints/{world.endpoints['acme']}"))
    for said in (
        "Failing",
        "slower than its time limit",
        "Answer 2xx at once",
        "because no answer came in time",
    ):
        assert said.lower() in text.lower()
    for span in ("1h", "24h", "7d", "30d", "nonsense"):
        assert admin.get(f"endpoints/{world.endpoints['acme']}?range={span}").status_code == 200


def test_an_endpoint_that_was_deleted_in_another_tab(world: World, admin: Visitor, acme: Visitor) -> None:
    """404 with words; its deliveries stay; to another tenant there never was one."""
    for tenant in ("acme", "other"):
        world.publish(tenant)
        world.api.ask("DELETE", f"/v1/endpoints/{world.endpoints[tenant]}")
    assert "was deleted" in shown(admin.get(f"endpoints/{world.endpoints['acme']}"), 404)
    assert "was deleted" in shown(acme.get(f"endpoints/{world.endpoints['acme']}"), 404)
    assert "was deleted" not in shown(acme.get(f"endpoints/{world.endpoints['other']}"), 404)
    assert "There is no such endpoint" in shown(admin.get("endpoints/none"), 404)
    assert "m0" in shown(admin.get(f"deliveries?endpoint={world.endpoints['acme']}"))
    assert "deleted" in shown(admin.get("message?id=m0"))


PAYLOADS = (
    b'{"x":"<script>alert(1)</script><img src=x onerror=alert(1)>"}',
    b'{"x":"' + b"<&\\\"'" * 52_000 + b'"}',
    b"[" * 130_000 + b"]" * 130_000,
    b"\xff\xfe\x00not json \xe2\x80\xae",
    b"",
)


@pytest.mark.parametrize("payload", PAYLOADS, ids=["html", "256 KiB", "deep", "no UTF-8", "empty"])
def test_payloads_and_answers_are_text_whatever_is_in_them(
    world: World, admin: Visitor, payload: bytes
) -> None:
    """Shown, never run, and a page stays light."""
    world.publish("acme", payload)
    world.attempt(
        "acme",
        0,
        error_class="http_5xx",
        response_body=payload[:16_384],
        error=payload[:99].decode(errors="replace"),
    )
    for view in ("pretty", "raw"):
        page = admin.get(f"message?id=m0&view={view}&delivery={world.delivery('acme', 0)}")
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "<img" not in page.text
        assert "\u202e" not in page.text
        assert len(page.content) < 120_000
    raw = admin.get("message/payload?id=m0")
    assert (raw.status_code, raw.content, raw.headers["x-content-type-options"]) == (200, payload, "nosniff")


def test_without_the_history_pages_say_what_still_works() -> None:
    """The overview stands; lists and stories are a page that says why; nothing answers 500."""
    with running(dev_context()) as api:
        id = api.ask("POST", "/v1/endpoints", {"tenant": "acme", "url": "https://a.example.com/"}).json()[
            "id"
        ]
        visitor = Visitor(api, KEY)
        assert "history cannot be asked" in shown(visitor.get("overview"))
        assert "1 endpoints" in shown(visitor.get("overview"))
        assert "Deliveries go on" in shown(visitor.get(f"endpoints/{id}"))
        for path in ("deliveries", "message?id=m"):
            assert "What still works" in shown(visitor.get(path), 503)


def test_a_page_that_does_not_exist(admin: Visitor) -> None:
    """404 as a page; 405 too."""
    assert "no such page" in shown(admin.get("nothing"), 404)
    assert shown(admin.post("overview"), 405)
    assert "no such page" in shown(admin.get("static/none.js"), 404)


def test_times_are_told_to_machines_and_people(world: World, admin: Visitor) -> None:
    """UTC stays on hover."""
    world.publish("acme")
    at = re.search(
        r'<time class="when" datetime="([^"]+)Z" title="([^"]+) UTC">', admin.get("deliveries").text
    )
    assert at
    assert at[1].startswith(at[2].replace(" ", "T"))
