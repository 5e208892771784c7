"""If-Match on what changes or ends an endpoint: what was not seen is not touched."""

from __future__ import annotations

import httpx
import pytest

from tests.integration.api_fixtures import Api
from tests.integration.api_fixtures import shared_api as api

__all__ = ["api"]

URL = "https://hooks.example.com/in"


def endpoint(api: Api) -> httpx.Response:
    """An endpoint that has been changed once."""
    made = api.ask("POST", "/v1/endpoints", {"tenant": "acme", "url": URL})
    assert made.status_code == 201, made.text
    changed = api.ask("PATCH", made.headers["location"], {"description": "changed"})
    assert changed.status_code == 200, changed.text
    return made


@pytest.mark.parametrize("if_match", ["", " ", '*, "1"', "2", 'W/"2"'])
def test_what_is_no_list_of_strong_tags_matches_nothing(api: Api, if_match: str) -> None:
    """An empty variable in a script must not become an unconditional change; tags are compared strongly."""
    path = endpoint(api).headers["location"]
    refused = api.ask("PATCH", path, {"description": "blind"}, if_match=if_match)
    assert (refused.status_code, api.ask("GET", path).json()["description"]) == (412, "changed")


def test_an_endpoint_that_has_changed_is_not_deleted_blindly(api: Api) -> None:
    """412 with the ETag of now; with that it goes."""
    made = endpoint(api)
    path = made.headers["location"]
    late = api.ask("DELETE", path, if_match=made.headers["etag"])
    now = api.ask("GET", path)
    assert (late.status_code, now.status_code) == (412, 200)
    assert now.headers["etag"] in late.json()["detail"]
    assert api.ask("DELETE", path, if_match=now.headers["etag"]).status_code == 204
    assert api.ask("GET", path).status_code == 404


@pytest.mark.parametrize("headers", [{}, {"if_match": "*"}])
def test_an_endpoint_is_deleted_whatever_its_version(api: Api, headers: dict[str, str]) -> None:
    """Without a condition, or with one that any version meets."""
    assert api.ask("DELETE", endpoint(api).headers["location"], **headers).status_code == 204
