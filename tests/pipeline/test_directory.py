"""control and the directory: tenants, keys, event types, and what is left of a tenant that was deleted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from consumers.control import Control
from engine.core.change import (
    CommandBase,
    CommandRejected,
    CreateEndpoint,
    EndpointSettings,
    RotateSecret,
)
from engine.core.directory import (
    CreateKey,
    CreateTenant,
    DataKeyRewrapped,
    DeleteEventType,
    DeleteTenant,
    PutEventType,
    RevokeKey,
    RewrapDataKey,
)
from engine.core.endpoint import Endpoint
from engine.core.model import Answer
from engine.core.replay import CancelReplay
from engine.core.routing import partition_of
from engine.ports import Output
from engine.runtime.clock import SystemClock
from engine.runtime.configuration.decisions import NOT_THE_SAME
from engine.runtime.configuration.rewrapping import RewrapError, rewrap
from engine.runtime.configuration.vault import COMMAND_KEY_ID, AesVault, Keyring, new_data_key
from engine.runtime.configuration.views import CONFIGURATION_TOPICS, Configuration, View
from engine.runtime.context import Context
from engine.runtime.memory import MemoryLog
from engine.runtime.settings import Settings, SettingsError
from tests.pipeline.world import CODEC, PARTITIONS, PROFILES, SECRET, TENANT, VAULT, World, a_world

OLD, NEW = VAULT, AesVault(b"n" * 32, bytes(32))
"""The vault of before, and that of a process which has the new master key and knows the old one."""


@pytest.fixture
def world() -> Iterator[World]:
    """A world without endpoints."""
    with a_world(lambda path, seen: Answer(200)) as made:
        yield made


def seen_by(log: MemoryLog, vault: AesVault = VAULT) -> Configuration:
    """The configuration as a process that starts now has it."""
    configuration = Configuration(CODEC, Keyring(vault))
    view = View(log, CONFIGURATION_TOPICS, configuration.fold)
    view.load()
    view.close()
    return configuration


def give(world: World, *commands: CommandBase) -> None:
    """Have control decide."""
    for command in commands:
        world.append("commands", command.tenant, command)
    world.step("control")


def facts(world: World, *left_out: str) -> list[str]:
    """Kinds of facts, in order; a rejection's with its reason."""
    decoded = [CODEC.decode(record.value) for record in world.records("changes")]
    named = [f"rejected: {f.reason}" if isinstance(f, CommandRejected) else type(f).__name__ for f in decoded]
    return [name for name in named if name not in left_out]


def new_key(id: str, tenant: str = TENANT) -> CreateKey:
    """A command."""
    return CreateKey(f"key-{id}", tenant, "hl_1", 0, id, ("read",), b"digest", "for tests", 0)


DELETE = DeleteTenant("delete", TENANT, "hl_1", 0)


def test_the_directory_is_what_was_decided(world: World) -> None:
    """Another process reads what control has in memory."""
    give(world, CreateTenant("t", TENANT, "hl_1", 0, "Acme"), new_key("k1"), new_key("k2"), new_key("p", ""))
    put = PutEventType("put", "", "hl_1", 0, "room.ended", "A room ended", "{}", "")
    give(
        world,
        put,
        replace(put, command_id="put-2", name="room.begun"),
        RevokeKey("r", TENANT, "hl_1", 0, "k1"),
    )
    give(world, DeleteEventType("d", "", "hl_1", 0, "room.begun"))
    seen, decided = seen_by(world.log), world.control.configuration
    assert (seen.tenants, seen.keys, seen.event_types) == (decided.tenants, decided.keys, decided.event_types)
    assert seen.tenants[TENANT].name == "Acme"
    assert {key.id: bool(key.revoked_at) for key in seen.keys.values()} == {
        "k1": True,
        "k2": False,
        "p": False,
    }
    assert list(seen.event_types) == ["room.ended"]


def test_a_repeated_command_is_one_fact(world: World) -> None:
    """By its id: within a batch, later, and for a control that was started since."""
    give(world, CreateTenant("t", TENANT, "hl_1", 0, ""), new_key("k1"), new_key("k1"))
    give(world, new_key("k1"))
    world.kill("control")
    give(world, new_key("k1"), RevokeKey("r", TENANT, "hl_1", 0, "k9"))
    assert facts(world) == ["TenantCreated", "KeyCreated", "rejected: API key 'k9' does not exist"]


def test_nothing_is_left_of_a_deleted_tenant(world: World) -> None:
    """Endpoints without secrets, keys without digests, no data key: what was sealed opens no more."""
    world.create_endpoint("ep_1")
    world.create_endpoint("ep_2")
    give(world, new_key("k1"))
    sealed = world.control.configuration.endpoints["ep_1"].secrets[0]
    assert seen_by(world.log).keyring.open(TENANT, "ep_1", sealed) == SECRET
    give(world, DELETE)
    assert facts(world, "TenantCreated", "EndpointCreated", "KeyCreated") == [
        "EndpointDeleted",
        "EndpointDeleted",
        "KeyRevoked",
        "TenantDeleted",
    ]
    seen = seen_by(world.log)
    assert seen.of_tenant(TENANT) == {}
    assert all(each.deleted and not each.secrets for each in seen.endpoints.values())
    assert [(bool(key.revoked_at), key.digest) for key in seen.keys.values()] == [(True, b"")]
    assert seen.tenants[TENANT].deleted
    with pytest.raises(KeyError):
        seen.keyring.open(TENANT, "ep_1", sealed)
    with pytest.raises(KeyError):
        world.control.configuration.keyring.open(TENANT, "ep_1", sealed)


def test_a_tenant_that_was_deleted_stays_so(world: World) -> None:
    """By any command, for any control; its id is refused for ever: its messages are still on the log."""
    world.create_endpoint("ep_1")
    give(world, DELETE)
    world.kill("control")
    before = len(facts(world))
    world.create_endpoint("ep_2")
    secret = Keyring(VAULT).seal_command(TENANT, "ep_1", 0, SECRET)
    give(
        world,
        CreateTenant("again", TENANT, "hl_1", 0, "Again"),
        new_key("k1"),
        RotateSecret("rotate", TENANT, "hl_1", 0, "ep_1", secret, 0),
        replace(DELETE, command_id="delete-2"),
    )
    refusals = facts(world)[before:]
    assert [reason[:30] for reason in refusals] == [
        "rejected: tenant 'acme' was de",
        "rejected: tenant 'acme' was de",
        "rejected: tenant 'acme' does n",
        "rejected: endpoint 'ep_1' does",
        "rejected: tenant 'acme' does n",
    ]
    assert seen_by(world.log).keyring.of_tenant(TENANT) is None


def test_what_waits_for_a_deleted_tenant_is_skipped(world: World) -> None:
    """No request is made, and no secret is needed to know that."""
    world.create_endpoint("ep_1")
    world.run(1)
    world.publish("m")
    world.step("router")
    give(world, DELETE)
    world.run(2)
    assert world.requests == []
    assert [(attempt.decision, attempt.reason) for attempt in world.attempts()] == [("skipped", "deleted")]


def test_a_tenants_next_secrets_are_not_under_the_command_key(world: World) -> None:
    """Who has its data key seals by it: then a deleted tenant's commands open no more either."""
    world.create_endpoint("ep_1")
    world.step("control")
    keyring = seen_by(world.log).keyring
    sealed = keyring.seal_command(TENANT, "ep_2", 1, SECRET)
    assert sealed.data_key_id != COMMAND_KEY_ID
    settings = EndpointSettings("http://127.0.0.1/ep_2")
    give(world, CreateEndpoint("c", TENANT, "hl_1", 0, "ep_2", settings, True, sealed))
    made = world.control.configuration.endpoints["ep_2"]
    assert keyring.open(TENANT, "ep_2", made.secrets[0]) == SECRET
    give(world, DELETE)
    with pytest.raises(ValueError, match="cannot open"):
        Keyring(VAULT).open_command(TENANT, "ep_2", sealed)


def test_the_replayers_commands_are_not_ours(world: World) -> None:
    """They share the topic: no fact, no invalid record, and what follows is decided."""
    cancel = CancelReplay("cancel", TENANT, "hl_1", 0, "rpl_1")
    give(world, cancel, CreateTenant("t", TENANT, "hl_1", 0, ""))
    assert facts(world) == ["TenantCreated"]
    assert world.records("invalid") == []


# -- the master key ---------------------------------------------------------------------


@contextmanager
def controlled(vault: AesVault) -> Iterator[Context]:
    """A log with a control group of this vault, and endpoints of two tenants made under the old one."""
    log = MemoryLog(PARTITIONS, SystemClock())
    context = Context(Settings(partitions=PARTITIONS), log, SystemClock(), CODEC, PROFILES, OLD, "test")
    for tenant in ("acme", "globex"):
        sealed = Keyring(OLD).seal_command(tenant, f"ep_{tenant}", 1, SECRET)
        settings = EndpointSettings("http://127.0.0.1/")
        command = CreateEndpoint(tenant, tenant, "test", 0, f"ep_{tenant}", settings, True, sealed)
        at = partition_of(tenant, PARTITIONS)
        log.append(Output("commands", at, tenant.encode(), CODEC.encode(command)))
    control = Control(context)
    control.step(0)
    control.close()
    stop = threading.Event()
    running = threading.Thread(target=_run, args=(replace(context, vault=vault), stop))
    running.start()
    try:
        yield context
    finally:
        stop.set()
        running.join()


def _run(context: Context, stop: threading.Event) -> None:
    control = Control(context)
    while not stop.is_set():
        control.step(0.01)
    control.close()


def until(seconds: float) -> float:
    """A deadline."""
    return SystemClock().monotonic() + seconds


def test_the_master_key_is_changed() -> None:
    """Afterwards the new one alone opens every secret, the old one none; again, there is nothing to do."""
    with controlled(NEW) as context:
        ours = replace(context, vault=NEW)
        report = rewrap(ours, until(60), threading.Event())
        again = rewrap(ours, until(60), threading.Event())
    assert isinstance(context.log, MemoryLog)
    assert (report.rewrapped, report.current) == (2, 0)
    assert (again.rewrapped, again.current) == (0, 2)
    after = seen_by(context.log, AesVault(b"n" * 32))
    before = seen_by(context.log, OLD)
    for endpoint in after.endpoints.values():
        assert after.keyring.open(endpoint.tenant, endpoint.id, endpoint.secrets[0]) == SECRET
        with pytest.raises(ValueError, match=f"wrapped by the master key with the id {NEW.master_key_id}"):
            before.keyring.open(endpoint.tenant, endpoint.id, endpoint.secrets[0])
    decoded = [CODEC.decode(r.value) for n in range(PARTITIONS) for r in context.log.records(("changes", n))]
    assert sum(isinstance(fact, DataKeyRewrapped) for fact in decoded) == 2


def test_a_master_key_that_is_missing_is_named() -> None:
    """Whoever has only the new one can rewrap nothing, and changes nothing."""
    with controlled(NEW) as context:
        ours = replace(context, vault=AesVault(b"n" * 32))
        with pytest.raises(SettingsError, match=f"{OLD.master_key_id}.*HOOKLOG_PREVIOUS_MASTER_KEY"):
            rewrap(ours, until(60), threading.Event())
    assert isinstance(context.log, MemoryLog)
    seen = seen_by(context.log)
    assert {key.master_key_id for key in seen.keyring.data_keys.values()} == {OLD.master_key_id}


def test_control_puts_no_wrapping_in_force_that_it_cannot_open() -> None:
    """Else all of a tenant's secrets would be lost to it."""
    with controlled(OLD) as context, pytest.raises(RewrapError, match=NOT_THE_SAME):
        rewrap(replace(context, vault=NEW), until(60), threading.Event())


def test_control_puts_no_other_key_in_force(world: World) -> None:
    """A wrapping must hold the same data key."""
    world.create_endpoint("ep_1")
    world.step("control")
    (known,) = world.control.configuration.keyring.data_keys.values()
    other = new_data_key(VAULT, known.id, TENANT, 5)
    give(world, RewrapDataKey("rewrap", TENANT, "hl_1", 0, known.master_key_id, other))
    assert facts(world)[-1] == f"rejected: {NOT_THE_SAME}"
    assert seen_by(world.log).keyring.data_keys == {known.id: known}


def test_commands_of_before_the_change_are_still_decided() -> None:
    """Their secrets were sealed by the old command key."""
    with a_world(lambda path, seen: Answer(200)) as world:
        world.kill("control")
        world.control.close()
        world.control = Control(replace(world.context(), vault=NEW))
        world.create_endpoint("ep_1")
        world.step("control")
        made = world.control.configuration.endpoints["ep_1"]
        assert isinstance(made, Endpoint)
        assert world.control.configuration.keyring.open(TENANT, "ep_1", made.secrets[0]) == SECRET
