"""control: each command is decided once, and none is passed over that a newer hooklog wrote."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from consumers.control import Control
from engine.core.change import (
    CommandRejected,
    CreateEndpoint,
    DisableEndpoint,
    EndpointCreated,
    EndpointDisabled,
    EndpointSettings,
    SealedSecret,
)
from engine.core.endpoint import Endpoint
from engine.core.model import Answer, InvalidRecord
from engine.core.routing import partition_of
from engine.ports import Output
from engine.runtime.configuration.decisions import UNSEALABLE
from engine.runtime.configuration.vault import COMMAND_KEY_ID, AesVault, Keyring
from engine.runtime.configuration.views import NewerRecordError
from schemas.codec import PREFIX_BYTES, Codec
from tests.pipeline.world import CODEC, PARTITIONS, TENANT, VAULT, World, a_world

HERE = partition_of(TENANT, PARTITIONS)
OTHER = next(t for t in ("globex", "initech", "umbrella", "hooli") if partition_of(t, PARTITIONS) != HERE)
"""A tenant of the other partition."""
SECRET = "whsec_" + base64.b64encode(bytes(24)).decode()


@pytest.fixture
def world() -> Iterator[World]:
    """A world without endpoints."""
    with a_world(lambda path, seen: Answer(200)) as made:
        yield made


def create(id: str, tenant: str = TENANT, vault: AesVault = VAULT) -> CreateEndpoint:
    """A command with its secret sealed for control."""
    empty = SealedSecret(1, COMMAND_KEY_ID, b"", b"")
    sealed = Keyring(vault).seal(COMMAND_KEY_ID, (tenant, id), empty, SECRET)
    settings = EndpointSettings(f"http://127.0.0.1/{id}")
    return CreateEndpoint(f"create-{id}", tenant, "test", 0, id, settings, True, sealed)


DISABLE = DisableEndpoint("disable-ep_1", TENANT, "test", 0, "ep_1", "by hand")


def without(record: type, sample: object) -> Codec:
    """The codec of an older hooklog, which does not know a record."""
    assert isinstance(sample, record)
    older = Codec()
    del older._readers[CODEC.encode(sample)[2:PREFIX_BYTES]]
    return older


def start_older(world: World, codec: Codec) -> None:
    """Replace control by one of an older hooklog."""
    world.kill("control")
    world.control.close()
    world.control = Control(replace(world.context(), codec=codec))


def changes(world: World) -> list[tuple[str, str]]:
    """(kind, endpoint) of each fact about an endpoint."""
    facts = [CODEC.decode(record.value) for record in world.records("changes")]
    return [(type(fact).__name__, id) for fact in facts if (id := getattr(fact, "endpoint_id", ""))]


def committed(world: World, partition: int) -> int:
    """Where the group would go on."""
    at = ("commands", partition)
    position = world.control.member.consumer.committed([at])[at]
    return position.offset if position else 0


def counted(name: str, label: str, value: str) -> float:
    """A metric."""
    return REGISTRY.get_sample_value(name, {label: value}) or 0.0


def test_a_command_counts_once(world: World) -> None:
    """Written twice, or met again by a new process: one fact, one snapshot."""
    for _ in range(2):
        world.append("commands", TENANT, create("ep_1"))
    world.step("control")
    world.kill("control")
    world.append("commands", TENANT, create("ep_1"))
    world.step("control")
    assert changes(world) == [("EndpointCreated", "ep_1")]
    assert len(world.records("endpoints")) == 1
    assert committed(world, HERE) == 3


def test_a_secret_that_cannot_be_opened_is_a_rejection(world: World) -> None:
    """It is on the log as one, and counted as one; nothing else is made."""
    before = counted("hooklog_commands_total", "result", "rejected")
    world.append("commands", TENANT, create("ep_1", vault=AesVault(b"x" * 32)))
    world.step("control")
    (record,) = world.records("changes")
    assert CODEC.decode_as(CommandRejected, record.value).reason == UNSEALABLE
    assert world.records("endpoints") == world.records("directory") == []
    assert counted("hooklog_commands_total", "result", "rejected") == before + 1


@pytest.mark.parametrize("value", [b"noise", CODEC.encode(Endpoint("ep", TENANT, EndpointSettings("")))])
def test_what_is_no_command_is_invalid(world: World, value: bytes) -> None:
    """It goes to `invalid` and holds nobody up."""
    world.log.append(Output("commands", HERE, b"acme", value))
    world.append("commands", TENANT, create("ep_1"))
    world.step("control")
    (record,) = world.records("invalid")
    assert CODEC.decode_as(InvalidRecord, record.value).value == value
    assert changes(world) == [("EndpointCreated", "ep_1")]


def test_a_command_of_a_newer_hooklog_is_waited_before(world: World) -> None:
    """Its partition stops there, uncommitted; the other goes on; after the upgrade all is decided."""
    before = counted("hooklog_unknown_schema_records_total", "group", "control")
    start_older(world, without(DisableEndpoint, DISABLE))
    for command in (create("ep_1"), DISABLE, create("ep_2")):
        world.append("commands", TENANT, command)
    world.step("control")
    world.append("commands", TENANT, create("ep_3"))
    world.append("commands", OTHER, create("ep_4", OTHER))
    world.step("control")
    assert sorted(changes(world)) == [("EndpointCreated", "ep_1"), ("EndpointCreated", "ep_4")]
    assert (committed(world, HERE), committed(world, 1 - HERE)) == (1, 1)
    assert counted("hooklog_unknown_schema_records_total", "group", "control") == before + 1
    world.kill("control")
    world.step("control")
    assert [change for change in changes(world) if change[1] != "ep_4"] == [
        ("EndpointCreated", "ep_1"),
        ("EndpointDisabled", "ep_1"),
        ("EndpointCreated", "ep_2"),
        ("EndpointCreated", "ep_3"),
    ]
    assert committed(world, HERE) == 4


def test_a_fact_of_a_newer_hooklog_holds_its_commands(world: World) -> None:
    """What was decided there is not known, so nothing more is decided there, from the first record on."""
    for command in (create("ep_1"), DISABLE):
        world.append("commands", TENANT, command)
    world.step("control")
    fact = EndpointDisabled("", "", "", 0, "", 1, "")
    start_older(world, without(EndpointDisabled, fact))
    world.append("commands", TENANT, create("ep_2"))
    world.append("commands", OTHER, create("ep_3", OTHER))
    world.step("control")
    assert ("EndpointCreated", "ep_3") in changes(world)
    assert ("EndpointCreated", "ep_2") not in changes(world)
    assert committed(world, HERE) == 2
    world.kill("control")
    world.step("control")
    assert ("EndpointCreated", "ep_2") in changes(world)


def test_configuration_of_a_newer_hooklog_halts(world: World) -> None:
    """Without it every decision would be a guess."""
    world.append("commands", TENANT, create("ep_1"))
    world.step("control")
    start_older(world, without(Endpoint, Endpoint("ep", TENANT, EndpointSettings(""))))
    with pytest.raises(NewerRecordError, match=r"endpoints/\d offset 0: .*upgrade"):
        world.step("control")


def test_a_created_fact_holds_no_secret(world: World) -> None:
    """Sealed by the tenant's key, not by the one it came under."""
    world.append("commands", TENANT, create("ep_1"))
    world.step("control")
    record = world.records("changes")[-1]
    fact = CODEC.decode_as(EndpointCreated, record.value)
    assert fact.secret.data_key_id.startswith("dk_")
    assert world.control.configuration.keyring.open(TENANT, "ep_1", fact.secret) == SECRET
