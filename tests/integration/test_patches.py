"""Changes of one endpoint at once: what control makes of them is what one of them was checked against."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from engine.core.change import DisableEndpoint, EnableEndpoint, UpdateEndpoint
from engine.dev.process import wait_until
from engine.runtime.memory import MemoryLog
from tests.integration.api_fixtures import PARTITIONS, Api, Ask, fields
from tests.integration.api_fixtures import shared_api as api

__all__ = ["api"]

URL = "https://hooks.example.com/in"


def endpoint(api: Api, **settings: object) -> httpx.Response:
    """Create an endpoint."""
    made = api.ask("POST", "/v1/endpoints", {"tenant": "acme", "url": URL, **settings})
    assert made.status_code == 201, made.text
    return made


def test_two_changes_at_once_that_are_wrong_together_are_not_both_made(api: Api) -> None:
    """A header that only the new profile sets, and the new profile: the later one is told what is wrong."""
    path = endpoint(api).headers["location"]
    sets = {name.lower() for name, _ in api.context.profiles["bedrud"].headers}
    sets |= {name.lower() for name in api.context.profiles["bedrud"].signature.headers}
    headers, profile = {"headers": {min(sets): "mine"}}, {"profile": "bedrud"}
    answers = api.together(Ask("PATCH", path, headers), Ask("PATCH", path, profile))
    assert sorted(answer.status_code for answer in answers) == [200, 422], [each.text for each in answers]
    refused = next(answer for answer in answers if answer.status_code == 422)
    assert fields(refused) == ["headers"]


def test_changes_at_once_that_agree_are_all_made(api: Api) -> None:
    """Each is checked anew against what the other has made of it."""
    path = endpoint(api).headers["location"]
    wanted = [{"description": "d"}, {"timeout_ms": 700}, {"rate_limit": 5.0}]
    answers = api.together(*(Ask("PATCH", path, each) for each in wanted))
    assert [answer.status_code for answer in answers] == [200] * 3, [each.text for each in answers]
    now = api.ask("GET", path).json()
    assert (now["description"], now["timeout_ms"], now["rate_limit"]) == ("d", 700, 5.0)


def test_changes_by_two_processes_at_once_are_all_made(api: Api) -> None:
    """Control refuses what was checked against another version than it has; then it is checked anew."""
    other = Api(api.context)
    path = endpoint(api).headers["location"]
    with ThreadPoolExecutor(2) as threads:
        changes = [[Ask("PATCH", path, {"description": f"{n} {m}"}) for m in range(4)] for n in range(2)]
        found = threads.map(lambda process, asks: process.together(*asks), (api, other), changes)
        answers = [answer for of_one in found for answer in of_one]
    other.close()
    assert [answer.status_code for answer in answers] == [200] * 8, [each.text for each in answers]
    assert wait_until(lambda: api.ask("GET", path).json()["version"] == 1 + 8, 10)


def test_a_change_names_the_version_that_it_was_checked_against(api: Api) -> None:
    """So that control can tell whether it still holds."""
    made = endpoint(api)
    for body in ({"description": "d"}, {"enabled": False}, {"enabled": True}):
        assert api.ask("PATCH", made.headers["location"], body).status_code == 200
    log = api.context.log
    assert isinstance(log, MemoryLog)
    found = [record for n in range(PARTITIONS) for record in log.records(("commands", n))]
    commands = [api.context.codec.decode(record.value) for record in found]
    versions = [
        each.expected_version
        for each in commands
        if isinstance(each, UpdateEndpoint | EnableEndpoint | DisableEndpoint)
        and each.endpoint_id == made.json()["id"]
    ]
    assert versions == [1, 2, 3]


def test_if_match_changes_only_the_version_that_was_seen(api: Api) -> None:
    """412 with the ETag of now otherwise; * and lists are understood; the answer has the new ETag."""
    made = endpoint(api)
    path, seen = made.headers["location"], made.headers["etag"]
    assert api.ask("GET", path).headers["etag"] == seen == f'"{made.json()["version"]}"'
    changed = api.ask("PATCH", path, {"description": "1"}, if_match=seen)
    assert (changed.status_code, changed.headers["etag"]) == (200, f'"{changed.json()["version"]}"')
    assert changed.headers["etag"] != seen
    for body in ({"description": "2"}, {"enabled": False}):
        late = api.ask("PATCH", path, body, if_match=seen)
        assert (late.status_code, changed.headers["etag"] in late.json()["detail"]) == (412, True)
    assert api.ask("GET", path).json() == changed.json()
    listed = f'"0", {changed.headers["etag"]}'
    assert api.ask("PATCH", path, {"enabled": False}, if_match=listed).json()["enabled"] is False
    assert api.ask("PATCH", path, {"description": "3"}, if_match="*").json()["description"] == "3"


@pytest.mark.parametrize("body", [{"description": "d"}, {"enabled": False}])
def test_of_two_changes_of_one_version_at_once_one_is_made(api: Api, body: object) -> None:
    """The other is 412, although this process had not seen the first when it was asked."""
    made = endpoint(api)
    asked = {"If-Match": made.headers["etag"]}
    answers = api.together(
        Ask("PATCH", made.headers["location"], {"timeout_ms": 700}, headers=asked),
        Ask("PATCH", made.headers["location"], body, headers=asked),
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412], [each.text for each in answers]
