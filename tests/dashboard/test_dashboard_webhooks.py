"""Settings → Webhooks: the list, adding, changing, turning off and deleting."""

from __future__ import annotations

import re

import pytest

from engine.core.change import EndpointUpdated
from engine.core.lane import Lane
from engine.ports import Output
from engine.runtime.memory import MemoryLog
from tests.dashboard.settings_forms import fields_of, filled, secret_of, send
from tests.dashboard.test_dashboard_pages import shown
from tests.dashboard.visitor import Visitor
from tests.dashboard.world import World
from tests.integration.api_fixtures import KEY, Api, dev_context, running

pytestmark = pytest.mark.integration
URL = "https://new.example.com/in"


def told(world: World, endpoint_id: str) -> dict[str, object]:
    """The endpoint as /v1 has it."""
    answer = world.api.ask("GET", f"/v1/endpoints/{endpoint_id}")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert isinstance(found, dict)
    return found


def count(api: Api) -> int:
    """How many endpoints there are."""
    return len(api.ask("GET", "/v1/endpoints").json()["data"])


def added(answer_text: str) -> str:
    """Id of the endpoint that a page says was added."""
    found = re.search(r'data-copy="(ep_\w+)"', answer_text)
    assert found, answer_text
    return found[1]


def updates(api: Api) -> list[EndpointUpdated]:
    """What was changed of endpoints, on the log."""
    log = api.context.log
    assert isinstance(log, MemoryLog)
    values = [r.value for n in range(log.partitions("changes")) for r in log.records(("changes", n))]
    found = [api.context.codec.decode(value) for value in values]
    return [each for each in found if isinstance(each, EndpointUpdated)]


def test_the_list_tells_of_each_endpoint_how_it_is(world: World, admin: Visitor) -> None:
    """Failing, healthy, disabled or quiet; circuit, types, profile; one tenant's or all."""
    for n, tenant in enumerate(("acme", "other")):
        world.publish(tenant)
        world.attempt(tenant, n, error_class="http_5xx" if tenant == "acme" else "")
    quiet = world.add_endpoint("acme", "https://quiet.example.com/", event_types=["room.*"], profile="bedrud")
    off = world.add_endpoint("acme", "https://off.example.com/", enabled=False)
    lane = Lane(quiet, circuit="open")
    log = world.api.context.log
    assert isinstance(log, MemoryLog)
    log.append(Output("lanes", 0, quiet.encode(), world.api.context.codec.encode(lane)))
    text = shown(admin.get("webhooks"))
    assert re.search(r"hooks\.example\.com/in acme ✕ Failing ✓ Closed All standard", text), text
    assert re.search(r"other\.example\.com/in other ✓ Healthy", text)
    assert re.search(r"quiet\.example\.com/ acme \S Quiet ✕ Open room\.\* bedrud", text)
    assert re.search(r"off\.example\.com/ acme \S Disabled", text)
    assert "other.example.com" not in shown(admin.get("webhooks?tenant=acme"))
    assert f"webhooks/{off}/edit?tenant=acme" in admin.get("webhooks?tenant=acme").text


def test_an_empty_list_says_what_to_do_next(api: Api, admin: Visitor) -> None:
    """Who may adds one; who may not is told so; without the history the list is there all the same."""
    assert 'href="/dashboard/webhooks/new"' in admin.get("webhooks").text
    reader = Visitor(api, api.new_key("read"))
    assert "Your key may look" in shown(reader.get("webhooks"))
    with running(dev_context()) as alone:
        alone.ask("POST", "/v1/endpoints", {"tenant": "acme", "url": "https://a.example.com/"})
        text = shown(Visitor(alone, KEY).get("webhooks"))
        assert "The history cannot be asked now" in text
        assert "a.example.com/" in text


def test_pages_of_endpoints_follow_each_other(world: World, admin: Visitor) -> None:
    """Each endpoint once."""
    for n in range(50):
        world.add_endpoint("acme", f"https://n{n:03}.example.com/")
    first = admin.get("webhooks")
    more = re.search(r'href="/dashboard/(webhooks\?cursor=[^"]*)"', first.text)
    assert more
    second = admin.get(more[1])
    ids = [re.findall(r"endpoints/(ep_\w+)", page.text) for page in (first, second)]
    assert (len(ids[0]), len(ids[1])) == (50, 2)
    assert len({*ids[0], *ids[1]}) == 52


def test_an_endpoint_is_added_with_all_that_can_be_said_of_it(world: World, admin: Visitor) -> None:
    """The API has it as it was written; the secret is in this answer and in no other."""
    world.api.ask("PUT", "/v1/event-types/room.ended", {"description": "x"})
    page = admin.get("webhooks/new?tenant=acme")
    assert 'value="room.ended"' in page.text
    given = filled(
        page,
        url=URL,
        which="some",
        types=["room.ended"],
        event_types="stream.*, part.left",
        profile="bedrud",
        secret="a-secret-of-my-own",
        header_name=["X-Token", "", ""],
        header_value=["of the receiver", "", ""],
        rate_limit="2.5",
        timeout_ms="3000",
        retry_policy="5s, 30s",
        description="first\r\nsecond",
        enabled=None,
    )
    answer = admin.post("webhooks/new?tenant=acme", given)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert secret_of(answer) == "a-secret-of-my-own"
    assert "shown this once" in answer.text
    wanted = {
        "tenant": "acme",
        "url": URL,
        "event_types": ["part.left", "room.ended", "stream.*"],
        "profile": "bedrud",
        "headers": {"X-Token": "********"},
        "rate_limit": 2.5,
        "timeout_ms": 3000,
        "retry_policy": ["5s", "30s"],
        "description": "first\nsecond",
        "enabled": False,
    }
    id = added(answer.text)
    assert wanted.items() <= told(world, id).items()
    for path in (f"endpoints/{id}", f"webhooks/{id}/edit", "webhooks", f"webhooks/{id}/rotate"):
        later = admin.get(path)
        assert later.status_code == 200
        assert "a-secret-of-my-own" not in later.text, path
        assert "of the receiver" not in later.text, path


def test_sending_the_form_twice_adds_one_and_shows_the_secret_once(world: World, admin: Visitor) -> None:
    """As a reload of the page with the secret does."""
    given = filled(admin.get("webhooks/new?tenant=acme"), url=URL, which="all")
    before = count(world.api)
    first = admin.post("webhooks/new?tenant=acme", given)
    secret = secret_of(first)
    assert secret.startswith("whsec_")
    again = admin.post("webhooks/new?tenant=acme", given)
    assert (again.status_code, secret_of(again), secret in again.text) == (201, "", False)
    assert "This was done before" in again.text
    assert added(again.text) == added(first.text)
    assert count(world.api) == before + 1
    changed = [(name, "https://else.example.com/" if name == "url" else value) for name, value in given]
    other = admin.post("webhooks/new?tenant=acme", changed)
    assert "was sent before with other values" in shown(other, 422)
    assert dict(fields_of(other))["once"] != dict(given)["once"]
    assert count(world.api) == before + 1


Typed = dict[str, str | list[str] | None]
WRONG: dict[str, tuple[Typed, str]] = {
    "url": ({"url": "http://10.0.0.1/"}, "url"),
    "no url": ({"url": ""}, "url"),
    "types": ({"which": "some", "event_types": "rö om"}, "event_types"),
    "no types": ({"which": "some", "event_types": ""}, "event_types"),
    "profile": ({"profile": "none"}, "profile"),
    "secret": ({"secret": "short"}, "secret"),
    "header": ({"header_name": ["Host"], "header_value": ["x"]}, "headers"),
    "header twice": ({"header_name": ["A", "a"], "header_value": ["x", "y"]}, "headers"),
    "value alone": ({"header_name": [""], "header_value": ["x"]}, "headers"),
    "rate": ({"rate_limit": "fast"}, "rate_limit"),
    "rate nan": ({"rate_limit": "nan"}, "rate_limit"),
    "timeout": ({"timeout_ms": "5"}, "timeout_ms"),
    "timeout text": ({"timeout_ms": "5s"}, "timeout_ms"),
    "retries": ({"retry_policy": "soon"}, "retry_policy"),
    "description": ({"description": "x" * 1_001}, "description"),
    "tenant": ({"owner": ""}, "owner"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_stands_at_its_field_and_nothing_typed_is_lost(admin: Visitor, case: str) -> None:
    """422; the field is marked, described by what to change, and has the focus; a secret is not kept."""
    changed, field = WRONG[case]
    good: Typed = {
        "owner": "acme",
        "url": URL,
        "which": "all",
        "description": "kept <b>words</b>",
        "retry_policy": "7s",
    }
    values: Typed = {**good, **changed}
    answer = send(admin, "webhooks/new", **values)
    assert answer.status_code == 422, answer.text
    assert f'id="e-{field}"' in answer.text
    assert f'href="#f-{field}"' in answer.text
    tag = re.search(rf'<(?:input|select|textarea|fieldset)[^>]*id="f-{field}"[^>]*>', answer.text)
    assert tag, field
    for attribute in ('aria-invalid="true"', f"e-{field}", "autofocus"):
        assert attribute in tag[0], attribute
    assert answer.text.count("autofocus") == 1
    kept = dict(fields_of(answer))
    for name, value in values.items():
        if name == "secret":
            assert kept[name] == ""
        elif isinstance(value, str) and name not in ("which", "event_types", "profile"):
            assert kept[name].strip() == value, name
    assert "secret" not in changed or "write it again" in answer.text
    assert "<b>words</b>" not in answer.text


def test_more_rows_for_headers_come_without_a_script(world: World, admin: Visitor) -> None:
    """What was typed stays; nothing is saved."""
    page = admin.get("webhooks/new?tenant=acme")
    given = filled(page, url=URL, secret="my secret", header_name=["A", "B"], header_value=["1", "2"])
    before = count(world.api)
    answer = admin.post("webhooks/new?tenant=acme", [*given, ("more", "1")])
    found = fields_of(answer)
    assert answer.status_code == 200
    assert [value for name, value in found if name == "header_value"][:2] == ["1", "2"]
    assert len([name for name, _ in found if name == "header_name"]) > 4
    assert dict(found)["url"] == URL
    assert "my secret" not in answer.text
    assert count(world.api) == before


def test_only_what_was_changed_is_sent_and_headers_keep_their_values(world: World, admin: Visitor) -> None:
    """The audit trail names those fields; a header may be kept, replaced or removed."""
    id = world.add_endpoint("acme", headers={"X-A": "value-a", "X-B": "value-b"}, rate_limit=5)
    path = f"webhooks/{id}/edit"
    page = admin.get(path)
    assert "value-a" not in page.text
    answer = admin.post(path, filled(page, description="mine", rate_limit=""))
    assert (answer.status_code, answer.headers["location"]) == (303, f"/dashboard/endpoints/{id}")
    assert set(updates(world.api)[-1].fields) == {"description", "rate_limit"}
    assert told(world, id)["rate_limit"] is None
    page = admin.get(path)
    values = ["", "new", "third", ""]
    names = ["X-A", "X-B", "X-C", ""]
    assert admin.post(path, filled(page, header_name=names, header_value=values)).status_code == 303
    endpoint = world.api.services.configuration.endpoints[id]
    keyring = world.api.services.configuration.keyring
    assert dict(keyring.headers(("acme", id), endpoint.settings)) == {
        "X-A": "value-a",
        "X-B": "new",
        "X-C": "third",
    }
    assert send(admin, path, header_removed=["X-A", "X-C"]).status_code == 303
    assert told(world, id)["headers"] == {"X-B": "********"}
    assert send(admin, path, header_kept=["X-B", "X-Z"], header_name=["X-B", "X-Z"]).status_code == 422
    written = len(updates(world.api))
    assert "Nothing was changed" in shown(admin.get(send(admin, path).headers["location"][11:]))
    assert len(updates(world.api)) == written


def test_a_change_made_meanwhile_is_shown_and_nothing_typed_is_lost(world: World, admin: Visitor) -> None:
    """409 once; what others changed is taken over, what both did says so; then it is saved."""
    id = world.endpoints["acme"]
    path = f"webhooks/{id}/edit"
    page = admin.get(path)
    theirs = {"description": "theirs", "timeout_ms": 4000, "event_types": ["room.*"]}
    world.api.ask("PATCH", f"/v1/endpoints/{id}", theirs)
    answer = admin.post(path, filled(page, description="mine", rate_limit="3"))
    text = shown(answer, 409)
    assert "Somebody else has changed this endpoint" in text
    assert "Description by somebody else not set theirs what you wrote" in text
    assert "Timeout by somebody else not set 4000 the value of now" in text
    assert "Event types by somebody else all room.* the value of now" in text
    assert "Rate limit not set not set what you wrote" in text
    assert told(world, id)["rate_limit"] is None
    saved = admin.post(path, fields_of(answer))
    assert saved.status_code == 303, saved.text
    mine = {"description": "mine", "rate_limit": 3.0, "timeout_ms": 4000, "event_types": ["room.*"]}
    assert mine.items() <= told(world, id).items()


def test_a_rotation_meanwhile_is_a_change_that_cannot_be_shown(world: World, admin: Visitor) -> None:
    """And a form whose base was lost or forged still keeps what was typed."""
    id = world.endpoints["acme"]
    path = f"webhooks/{id}/edit"
    page = admin.get(path)
    world.api.ask("POST", f"/v1/endpoints/{id}/rotate-secret")
    assert "its secret, a header" in shown(admin.post(path, filled(page, description="mine")), 409)
    answer = admin.post(path, filled(page, description="mine", base="{nonsense"))
    assert "without what it was made from" in shown(answer, 409)
    assert admin.post(path, fields_of(answer)).status_code == 303
    assert told(world, id)["description"] == "mine"
    for version in ("", "x", "-1", "9" * 30):
        assert admin.post(path, filled(page, version=version)).status_code == 409


def test_bad_values_of_an_edit_stand_at_their_fields(world: World, admin: Visitor) -> None:
    """With the version that the form was made from, so that a change meanwhile is still noticed."""
    path = f"webhooks/{world.endpoints['acme']}/edit"
    answer = send(admin, path, url="ftp://x", rate_limit="0")
    assert 'id="e-rate_limit"' in answer.text
    assert shown(answer, 422)
    assert dict(fields_of(answer))["version"] == "1"
    assert 'id="e-url"' in send(admin, path, url="ftp://x").text
