"""Asking control: a repeat is answered as the first time, and what is gone is not said to be there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from engine.api.problems import Problem
from engine.core.change import (
    Command,
    CreateEndpoint,
    DeleteEndpoint,
    EndpointSettings,
    RotateSecret,
    UpdateEndpoint,
)
from engine.core.directory import (
    CreateKey,
    CreateTenant,
    DeleteEventType,
    DeleteTenant,
    DirectoryCommand,
    DirectoryFact,
    PutEventType,
    RevokeKey,
)
from engine.core.endpoint import Endpoint
from tests.integration.api_fixtures import Api, make_context, running

TENANT = "acme"
SETTINGS = EndpointSettings("https://hooks.example.com/in")
CREATE_TENANT = CreateTenant("t", TENANT, "hl_1", 0, "Acme")
CREATE_KEY = CreateKey("k", TENANT, "hl_1", 0, "k1", ("read",), b"digest", "", 0)


@pytest.fixture
def api() -> Iterator[Api]:
    """An API of its own with a control group beside it."""
    with running(make_context(), limit_s=5) as made:
        yield made


def create(api: Api, id: str = "ep_1") -> CreateEndpoint:
    """A command."""
    sealed = api.services.configuration.keyring.seal_command(TENANT, id, 1, "whsec_c2VjcmV0")
    return CreateEndpoint(f"create-{id}", TENANT, "hl_1", 0, id, SETTINGS, True, sealed)


def ask(api: Api, command: Command) -> Endpoint:
    """Ask on the API's loop."""
    return api._runner.run(api.services.control.ask(command))


def ask_directory(api: Api, command: DirectoryCommand) -> DirectoryFact:
    """Ask on the API's loop."""
    return api._runner.run(api.services.control.ask_directory(command))


def refused(api: Api, command: DirectoryCommand) -> tuple[int, str]:
    """Status and reason."""
    with pytest.raises(Problem) as caught:
        ask_directory(api, command)
    return caught.value.status_code, caught.value.detail


def test_a_repeated_command_has_the_first_ones_fact(api: Api) -> None:
    """For the process that asked, and for one that was started since; the directory has it by then."""
    first = ask_directory(api, CREATE_TENANT)
    assert first.tenant in api.services.configuration.tenants
    assert ask_directory(api, CREATE_TENANT) == first
    other = Api(api.context, 5)
    try:
        assert ask_directory(other, CREATE_TENANT) == first
        assert ask_directory(other, replace(CREATE_TENANT, name="Other")) == first
    finally:
        other.close()


def test_a_change_of_the_directory_can_be_read_when_it_is_answered(api: Api) -> None:
    """Keys, event types and tenants, their ends too."""
    seen = api.services.configuration
    ask_directory(api, CREATE_TENANT)
    ask_directory(api, CREATE_KEY)
    assert seen.keys["k1"].digest == b"digest"
    ask_directory(api, RevokeKey("r", TENANT, "hl_1", 0, "k1"))
    assert seen.keys["k1"].revoked_at
    ask_directory(api, PutEventType("p", "", "hl_1", 0, "room.ended", "", "{}", ""))
    assert seen.event_types["room.ended"].schema == "{}"
    ask_directory(api, DeleteEventType("d", "", "hl_1", 0, "room.ended"))
    assert seen.event_types == {}
    ask(api, create(api))
    ask_directory(api, replace(CREATE_KEY, command_id="k2", key_id="k2"))
    ask_directory(api, DeleteTenant("gone", TENANT, "hl_1", 0))
    assert (seen.tenants[TENANT].deleted, seen.of_tenant(TENANT)) == (True, {})
    assert seen.keys["k2"].revoked_at
    assert seen.keyring.of_tenant(TENANT) is None


def test_a_refusal_has_its_status(api: Api) -> None:
    """Missing 404, there already 409; repeated, it is refused again."""
    ask_directory(api, CREATE_TENANT)
    again = replace(CREATE_TENANT, command_id="t2")
    for _ in range(2):
        assert refused(api, again) == (409, "tenant 'acme' exists already")
    revoke = RevokeKey("r", TENANT, "hl_1", 0, "k9")
    assert refused(api, revoke) == (404, "API key 'k9' does not exist")
    ask_directory(api, DeleteTenant("gone", TENANT, "hl_1", 0))
    status, reason = refused(api, replace(CREATE_TENANT, command_id="t3"))
    assert (status, reason[:24]) == (409, "tenant 'acme' was delete")


def test_a_creation_repeated_after_the_deletion_is_a_conflict(api: Api) -> None:
    """It made an endpoint once, which is gone: 409, not the deleted one, and no new one either."""
    command = create(api)
    ask(api, command)
    ask(api, DeleteEndpoint("d", TENANT, "hl_1", 0, "ep_1"))
    with pytest.raises(Problem, match="deleted since: choose a new Idempotency-Key") as caught:
        ask(api, command)
    assert caught.value.status_code == 409
    assert api.services.configuration.of_tenant(TENANT) == {}


def test_a_change_repeated_after_the_deletion_finds_nothing(api: Api) -> None:
    """404; the deletion itself, repeated, is done."""
    ask(api, create(api))
    update = UpdateEndpoint(
        "u", TENANT, "hl_1", 0, "ep_1", ("description",), replace(SETTINGS, description="d")
    )
    delete = DeleteEndpoint("d", TENANT, "hl_1", 0, "ep_1")
    assert ask(api, update).settings.description == "d"
    assert ask(api, delete).deleted
    with pytest.raises(Problem, match="was deleted meanwhile") as caught:
        ask(api, update)
    assert caught.value.status_code == 404
    assert ask(api, delete).deleted


def test_a_rotation_is_answered_with_the_time_it_takes_effect(api: Api) -> None:
    """Never with the announcement that comes before; a repeat rotates nothing."""
    ask(api, create(api))
    sealed = api.services.configuration.keyring.seal_command(TENANT, "ep_1", 0, "whsec_bmV3")
    rotate = RotateSecret("rot", TENANT, "hl_1", 0, "ep_1", sealed, 0)
    answered, repeated = ask(api, rotate), ask(api, rotate)
    assert not answered.rotating
    assert [secret.version for secret in answered.secrets] == [1, 2]
    assert answered.secrets[0].expires_at == answered.secrets[1].effective_at > 0
    assert repeated == answered
