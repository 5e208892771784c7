"""Values of an endpoint's own headers over the API: taken, never shown, sealed with the tenant's data key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.api.models import HEADER_MASK
from engine.core.change import CreateEndpoint, UpdateEndpoint
from engine.runtime.configuration.vault import COMMAND_KEY_ID, Keyring
from engine.runtime.memory import MemoryLog
from tests.integration.api_fixtures import PARTITIONS, Api, Ask, fields, make_context, running

NEW = {"url": "https://receiver.example.com/", "headers": {"Authorization": "Bearer abc", "X-Team": "blue"}}
MASKED = {"Authorization": HEADER_MASK, "X-Team": HEADER_MASK}


@pytest.fixture
def api() -> Iterator[Api]:
    """An API that has seen nothing."""
    with running(make_context()) as running_api:
        yield running_api


def opened(api: Api, endpoint_id: str) -> dict[str, str]:
    """The values as a dispatcher would send them."""
    endpoint = api.services.configuration.endpoints[endpoint_id]
    place = endpoint.tenant, endpoint.id
    return dict(api.services.configuration.keyring.headers(place, endpoint.settings))


def commands(api: Api) -> list[object]:
    """Everything that was asked of control."""
    log = api.context.log
    assert isinstance(log, MemoryLog)
    records = [record for n in range(PARTITIONS) for record in log.records(("commands", n))]
    return [api.context.codec.decode(record.value) for record in records]


def test_answers_show_names_and_mask_values(api: Api) -> None:
    """Those of a creation, a look, a list and a change; what is sent is what was given."""
    made = api.ask("POST", "/v1/endpoints", NEW | {"tenant": "acme"})
    path = made.headers["location"]
    got, listed = api.ask("GET", path), api.ask("GET", "/v1/endpoints?tenant=acme")
    changed = api.ask("PATCH", path, {"description": "d"})
    for shown in (made.json(), got.json(), listed.json()["data"][0], changed.json()):
        assert shown["headers"] == MASKED
    assert opened(api, made.json()["id"]) == NEW["headers"]
    assert api.ask("PATCH", path, {"headers": {"X-A": "1"}}).json()["headers"] == {"X-A": HEADER_MASK}
    assert opened(api, made.json()["id"]) == {"X-A": "1"}


def test_a_mask_is_not_taken_for_a_value(api: Api) -> None:
    """Who writes back what was read is told so, and nothing changes."""
    path = api.ask("POST", "/v1/endpoints", NEW | {"tenant": "acme"}).headers["location"]
    answer = api.ask("PATCH", path, {"headers": api.ask("GET", path).json()["headers"]})
    assert fields(answer) == ["headers"]
    assert "leave headers out" in answer.text
    assert opened(api, path.rpartition("/")[2]) == NEW["headers"]


def test_a_tenants_first_secret_is_under_its_data_key_already(api: Api) -> None:
    """Also of two first endpoints at once: what deletion shreds opens what is left on `commands`."""
    ask = Ask("POST", "/v1/endpoints", NEW | {"tenant": "new"})
    made = api.together(ask, ask)
    assert [answer.status_code for answer in made] == [201, 201]
    path = made[0].headers["location"]
    api.ask("PATCH", path, {"headers": {"X-A": "1"}})
    found = [each for each in commands(api) if isinstance(each, CreateEndpoint | UpdateEndpoint)]
    held = [each.settings.sealed_headers for each in found]
    assert len(held) == 3
    secrets = [each.secret for each in found if isinstance(each, CreateEndpoint)]
    for sealed in (*held, *secrets):
        assert sealed is not None
        assert sealed.data_key_id != COMMAND_KEY_ID
    (key,) = {each.data_key_id for each in secrets}
    assert api.services.configuration.keyring.data_keys[key].tenant == "new"
    assert api.ask("DELETE", "/v1/tenants/new").status_code == 204
    assert key not in api.services.configuration.keyring.data_keys
    with pytest.raises(ValueError, match="cannot open"):
        Keyring(api.context.vault).open_command("new", found[0].endpoint_id, secrets[0])
