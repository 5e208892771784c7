"""Values of an endpoint's own headers: sealed wherever they are written, opened for the request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from engine.core.change import (
    CommandRejected,
    CreateEndpoint,
    DeleteEndpoint,
    EndpointSettings,
    SealedHeaders,
    SealedSecret,
    UpdateEndpoint,
)
from engine.core.directory import CreateTenant, DeleteTenant, RewrapDataKey
from engine.core.endpoint import Endpoint
from engine.core.model import Answer
from engine.runtime.configuration.decisions import UNSEALABLE
from engine.runtime.configuration.vault import COMMAND_KEY_ID, AesVault, Keyring
from engine.runtime.configuration.views import CONFIGURATION_TOPICS, Configuration, View
from tests.pipeline.world import CODEC, SECRET, TENANT, VAULT, World, a_world

TOKEN = "Bearer canary-8c1f"
HEADERS = {"Authorization": TOKEN, "X-Team": "canary-blue"}
PLACE = (TENANT, "ep")
TOPICS = ("commands", "changes", "endpoints", "directory")


@pytest.fixture
def world() -> Iterator[World]:
    """A world without endpoints."""
    with a_world(lambda path, seen: Answer(200)) as made:
        yield made


def keyring(world: World, vault: AesVault = VAULT) -> Keyring:
    """The keys that a process which starts now has."""
    configuration = Configuration(CODEC, Keyring(vault))
    view = View(world.log, CONFIGURATION_TOPICS, configuration.fold)
    view.load()
    view.close()
    return configuration.keyring


def settings(ring: Keyring, headers: dict[str, str] | None = None) -> EndpointSettings:
    """As the API writes them into a command."""
    clear = EndpointSettings("http://127.0.0.1/ep", headers=HEADERS if headers is None else headers)
    return ring.seal_command_headers(PLACE, clear)


def creation(ring: Keyring, given: EndpointSettings | None = None) -> CreateEndpoint:
    """As the API writes it."""
    sealed = ring.seal_command(*PLACE, 1, SECRET)
    return CreateEndpoint("c", TENANT, "test", 0, "ep", given or settings(ring), True, sealed)


def update(id: str, given: EndpointSettings, *fields: str) -> UpdateEndpoint:
    """As the API writes it."""
    return UpdateEndpoint(id, TENANT, "test", 0, "ep", fields, given)


def endpoint(world: World) -> Endpoint:
    """The newest snapshot."""
    return CODEC.decode_as(Endpoint, world.records("endpoints")[-1].value)


def in_clear(world: World, *topics: str) -> bool:
    """Whether a value can be read on the log."""
    values = [record.value or b"" for topic in topics for record in world.records(topic)]
    assert values
    return any(b"canary" in value for value in values)


def sent(world: World, message: str) -> dict[str, str]:
    """The endpoint's own headers of the one request of a message."""
    world.publish(message)
    world.run(2)
    (request,) = [r for _, r in world.requests if r.headers["webhook-id"] == message]
    return {name: value for name, value in request.headers.items() if name in {*HEADERS, "X-New"}}


def test_values_are_sealed_on_the_log_and_clear_in_the_request(world: World) -> None:
    """By the command key on `commands`, by the tenant's data key afterwards; names stay readable."""
    world.append("commands", TENANT, creation(keyring(world)))
    world.run(1)
    assert not in_clear(world, *TOPICS)
    kept = endpoint(world).settings
    assert kept.headers == dict.fromkeys(HEADERS, "")
    assert kept.sealed_headers is not None
    assert kept.sealed_headers.data_key_id in keyring(world).data_keys
    assert sent(world, "m") == HEADERS
    assert not in_clear(world, *TOPICS, "deliveries", "attempts")


def test_a_command_of_an_older_hooklog_is_sealed_by_control(world: World) -> None:
    """Its values are in the clear on `commands`; there they leave with retention, and come no further."""
    clear = EndpointSettings("http://127.0.0.1/ep", headers=HEADERS)
    world.append("commands", TENANT, creation(keyring(world), clear))
    world.run(1)
    assert in_clear(world, "commands")
    assert not in_clear(world, "changes", "endpoints")
    assert sent(world, "m") == HEADERS


def test_a_snapshot_of_an_older_hooklog_is_read_and_sealed_by_its_next_change(world: World) -> None:
    """Whatever the change is about."""
    world.append("commands", TENANT, creation(keyring(world)))
    world.run(1)
    old = endpoint(world).settings
    snapshot = replace(endpoint(world), settings=replace(old, headers=HEADERS, sealed_headers=None))
    world.append("endpoints", TENANT, snapshot)
    for group in ("control", "dispatcher"):
        world.kill(group)
    assert sent(world, "m1") == HEADERS
    world.append("commands", TENANT, update("u", replace(old, description="d"), "description"))
    world.run(1)
    assert endpoint(world).settings.sealed_headers is not None
    assert b"canary" not in (world.records("endpoints")[-1].value or b"")
    assert sent(world, "m2") == HEADERS


def test_a_change_of_headers_replaces_them_and_no_other_change_does(world: World) -> None:
    """All of them, as one field; to none with an empty object."""
    world.append("commands", TENANT, creation(keyring(world)))
    world.run(1)
    plain = EndpointSettings("http://127.0.0.1/ep", timeout_ms=900)
    world.append("commands", TENANT, update("u1", plain, "timeout_ms"))
    assert sent(world, "m1") == HEADERS
    world.append("commands", TENANT, update("u2", settings(keyring(world), {"X-New": "canary"}), "headers"))
    assert sent(world, "m2") == {"X-New": "canary"}
    assert not in_clear(world, *TOPICS)
    world.append("commands", TENANT, update("u3", settings(keyring(world), {}), "headers"))
    assert sent(world, "m3") == {}
    assert endpoint(world).settings.sealed_headers is None


def test_sealed_headers_are_no_setting_of_their_own(world: World) -> None:
    """A command that names them is refused: they change with `headers`."""
    world.append("commands", TENANT, creation(keyring(world)))
    world.append("commands", TENANT, update("u", settings(keyring(world)), "sealed_headers"))
    world.run(1)
    refused = CODEC.decode_as(CommandRejected, world.records("changes")[-1].value)
    assert refused.reason == "there is no setting sealed_headers"


@pytest.mark.parametrize("of_creation", [True, False])
def test_values_that_cannot_be_opened_are_refused(world: World, of_creation: bool) -> None:
    """Sealed under another master key, or for another endpoint: control says so, and nothing changes."""
    other = Keyring(AesVault(b"o" * 32))
    if of_creation:
        given = creation(keyring(world), settings(other))
        world.append("commands", TENANT, given)
    else:
        world.append("commands", TENANT, creation(keyring(world)))
        clear = EndpointSettings("", headers={"X-New": "x"})
        elsewhere = Keyring(VAULT).seal_command_headers((TENANT, "ep_2"), clear)
        world.append("commands", TENANT, update("u", elsewhere, "headers"))
    world.run(1)
    refused = CODEC.decode_as(CommandRejected, world.records("changes")[-1].value)
    assert refused.reason == UNSEALABLE
    assert len(world.records("endpoints")) == (0 if of_creation else 1)


def test_a_deleted_endpoint_keeps_no_header(world: World) -> None:
    """As it keeps no secret."""
    world.append("commands", TENANT, creation(keyring(world)))
    world.append("commands", TENANT, DeleteEndpoint("d", TENANT, "test", 0, "ep"))
    world.run(1)
    left = endpoint(world)
    assert (left.deleted, left.settings.headers, left.settings.sealed_headers) == (True, {}, None)


def test_another_master_key_opens_them_once_the_data_key_is_wrapped_anew(world: World) -> None:
    """What the data key sealed stays as it is."""
    world.append("commands", TENANT, creation(keyring(world)))
    world.run(1)
    (key,) = keyring(world).data_keys.values()
    new = AesVault(b"n" * 32)
    both = keyring(world, AesVault(b"n" * 32, bytes(32)))
    fact = RewrapDataKey("r", TENANT, "test", 0, VAULT.master_key_id, both.rewrapped(key))
    assert keyring(world, AesVault(b"n" * 32, bytes(32))).headers(PLACE, endpoint(world).settings) == HEADERS
    rewrapped = Keyring(new)
    rewrapped.put(fact.data_key)
    assert rewrapped.headers(PLACE, endpoint(world).settings) == HEADERS


def sealed_on(world: World) -> list[SealedSecret | SealedHeaders]:
    """Everything sealed that the log holds."""
    found: list[SealedSecret | SealedHeaders] = []
    for record in (r for topic in ("commands", "changes", "endpoints") for r in world.records(topic)):
        value = CODEC.decode(record.value)
        given = getattr(value, "settings", None)
        if given is not None and given.sealed_headers is not None:
            found.append(given.sealed_headers)
        found += [*getattr(value, "secrets", ()), *filter(None, [getattr(value, "secret", None)])]
    return found


def test_nothing_of_a_deleted_tenant_opens_any_more(world: World) -> None:
    """Its first secret and headers neither: a tenant has its data key from its creation on."""
    world.append("commands", TENANT, CreateTenant("t", TENANT, "test", 0, ""))
    world.run(1)
    ring = keyring(world)
    world.append("commands", TENANT, creation(ring))
    world.append("commands", TENANT, update("u", settings(ring), "headers"))
    world.run(1)
    sealed = sealed_on(world)
    assert len(sealed) >= 8
    assert COMMAND_KEY_ID not in {each.data_key_id for each in sealed}
    world.append("commands", TENANT, DeleteTenant("d", TENANT, "test", 0))
    world.run(1)
    left = keyring(world)
    for each in sealed:
        with pytest.raises(KeyError):
            _open(left, each)


def _open(ring: Keyring, each: SealedSecret | SealedHeaders) -> None:
    """Try every way there is; the last raises KeyError without the data key."""
    if isinstance(each, SealedSecret):
        with pytest.raises(ValueError, match="cannot open"):
            ring.open_command(*PLACE, each)
        ring.open(*PLACE, each)
    else:
        held = EndpointSettings("", headers={}, sealed_headers=each)
        with pytest.raises(ValueError, match="cannot open"):
            ring.open_command_headers(PLACE, held)
        ring.headers(PLACE, held)
