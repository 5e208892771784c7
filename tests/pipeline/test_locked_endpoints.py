"""A key that is missing, or a secret that does not open, holds up its own endpoint and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from engine.core.directory import DataKey
from engine.core.endpoint import Endpoint
from engine.core.lane import EXPIRES_US
from engine.core.model import Answer, MessagePublished
from engine.core.replay import SendTest
from engine.ports import LogError, Output, Record
from engine.runtime.configuration.vault import AesVault
from tests.pipeline.test_lanes import open_inputs, snapshots
from tests.pipeline.world import CODEC, World, a_world

ELSEWHERE = AesVault(bytes([7]) * 32)
"""Has a master key that this dispatcher does not have."""
LOCKED = "mallory"


@pytest.fixture
def world() -> Iterator[World]:
    """Two tenants with an endpoint each."""
    with a_world(lambda path, seen: Answer(200), waiting=50) as made:
        made.create_endpoint("good")
        made.create_endpoint("locked", tenant=LOCKED)
        made.run(1)
        yield made


def data_key(world: World, tenant: str) -> tuple[Record, DataKey]:
    """The last record of a tenant's data key."""
    records = [each for each in world.records("directory") if (each.key or b"").startswith(b"data_key:")]
    keys = [(each, CODEC.decode_as(DataKey, each.value)) for each in records]
    return next(each for each in reversed(keys) if each[1].tenant == tenant)


def rewrap(world: World, tenant: str, master_key_id: str) -> None:
    """Say that another master key wraps it: a rotation that one process did not hear of."""
    record, key = data_key(world, tenant)
    value = CODEC.encode(replace(key, master_key_id=master_key_id))
    world.log.append(Output("directory", record.partition, record.key, value))


def publish(world: World, first: int, count: int) -> None:
    """Messages to both tenants."""
    for n in range(first, first + count):
        world.publish(f"m{n}")
        message = MessagePublished(LOCKED, f"l{n}", "room.ended", b"{}", world.clock.now())
        world.append("messages", f"l{n}", message)
    world.run(5)


def ended(world: World, endpoint: str) -> list[tuple[str, str, str]]:
    """(decision, reason, outcome) of its attempts."""
    return [
        (each.decision, each.reason, each.outcome)
        for each in world.attempts()
        if each.endpoint_id == endpoint
    ]


SENT = ("delivered", "", "success")


def test_one_data_key_that_no_master_key_opens_parks_its_lanes_only(world: World) -> None:
    """Nothing of it is lost or held: it is all delivered when the key is wrapped as before."""
    (_, before) = data_key(world, LOCKED)
    rewrap(world, LOCKED, ELSEWHERE.master_key_id)
    world.run(1)
    for start in (0, 40, 80):
        publish(world, start, 40)
    assert ended(world, "good") == [SENT] * 120
    assert ended(world, "locked") == []
    assert snapshots(world)["locked"].parked
    assert open_inputs(world) == 0
    assert world.lanes.places.waiting <= 1
    world.kill("dispatcher")
    publish(world, 120, 10)
    assert (ended(world, "good"), ended(world, "locked")) == ([SENT] * 130, [])
    rewrap(world, LOCKED, before.master_key_id)
    world.run_until(lambda: len(ended(world, "locked")) == 130, 30)
    assert ended(world, "locked") == [SENT] * 130
    messages = [r.headers["webhook-id"] for _, r in world.requests if r.url.endswith("locked")]
    assert sorted(messages) == sorted(f"l{n}" for n in range(130))


def test_a_secret_that_does_not_open_parks_its_lane_and_is_counted_once(world: World) -> None:
    """Its keys are all here, the ciphertext is broken: no attempt of anybody ends the group."""

    def failures() -> float:
        return REGISTRY.get_sample_value("hooklog_decrypt_failures_total", {"sealed": "secret"}) or 0

    endpoint = world.control.configuration.endpoints["locked"]
    broken = replace(endpoint.secrets[0], ciphertext=bytes(40))
    changed = replace(endpoint, secrets=(broken,), version=endpoint.version + 1)
    record = next(each for each in world.records("endpoints") if each.key == b"locked")
    world.log.append(Output("endpoints", record.partition, b"locked", CODEC.encode(changed)))
    before = failures()
    publish(world, 0, 20)
    publish(world, 20, 20)
    assert (ended(world, "good"), ended(world, "locked")) == ([SENT] * 40, [])
    assert snapshots(world)["locked"].parked
    assert failures() == before + 1
    mended: Endpoint = replace(endpoint, version=changed.version + 1)
    world.log.append(Output("endpoints", record.partition, b"locked", CODEC.encode(mended)))
    world.run_until(lambda: len(ended(world, "locked")) == 40, 30)


def test_what_waits_for_a_key_for_too_long_has_failed(world: World) -> None:
    """Before the log forgets it."""
    rewrap(world, LOCKED, ELSEWHERE.master_key_id)
    publish(world, 0, 3)
    world.clock.us += EXPIRES_US
    world.run_until(lambda: len(ended(world, "locked")) == 3, 10)
    assert ended(world, "locked") == [("failed", "expired", "none")] * 3


def test_a_test_send_that_nothing_can_sign_is_answered(world: World) -> None:
    """Whoever sent it is told, and its record holds no offset."""
    rewrap(world, LOCKED, ELSEWHERE.master_key_id)
    world.run(1)
    now = world.clock.now()
    world.append("commands", LOCKED, SendTest("cmd_t", LOCKED, "key", now, "locked", "ping", b"{}"))
    world.run(3)
    assert ended(world, "locked") == [("failed", "expired", "none")]
    (attempt,) = [each for each in world.attempts() if each.endpoint_id == "locked"]
    assert "cannot be opened" in attempt.error
    assert open_inputs(world) == 0


def test_a_dispatcher_that_can_open_nothing_halts(world: World) -> None:
    """A wrong HOOKLOG_MASTER_KEY: nothing fails, nothing is sent, and the error names the setting."""
    for tenant in ("acme", LOCKED):
        rewrap(world, tenant, ELSEWHERE.master_key_id)
    world.run(1)
    with pytest.raises(LogError, match="HOOKLOG_MASTER_KEY"):
        publish(world, 0, 1)
    assert world.attempts() == []
