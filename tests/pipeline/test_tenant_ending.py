"""A tenant of very many endpoints ends in parts, and whole wherever control is killed in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest

from engine.core.change import CommandRejected, EndpointDeleted, UpdateEndpoint
from engine.core.directory import CreateKey, CreateTenant, DeleteTenant, KeyRevoked, TenantDeleted
from engine.core.model import Answer
from engine.ports import Consumer, Output, TopicPartition
from engine.runtime.configuration import decisions
from engine.runtime.memory import MemoryTransactions
from tests.pipeline.health_scene import Crash
from tests.pipeline.replays import facts
from tests.pipeline.world import TENANT, World, a_world

ENDPOINTS = 10
DELETE = DeleteTenant("delete", TENANT, "test", 0)


class Counted(MemoryTransactions):
    """Counts what is written, and ends the process after some transactions."""

    def __init__(self, world: World, last: int) -> None:
        super().__init__(world.log, "control-0")
        world.log._owners["control-0"] = self
        self.sizes: list[int] = []
        self._last = last

    def write(
        self, outputs: Sequence[Output], consumed: Mapping[TopicPartition, int], consumer: Consumer
    ) -> None:
        """Write it; the last one is the end."""
        super().write(outputs, consumed, consumer)
        self.sizes.append(len(outputs))
        if len(self.sizes) == self._last:
            raise Crash


def counted(world: World, last: int = 0) -> Counted:
    """Let control write so many transactions and be killed; 0: as many as it likes."""
    transactions = Counted(world, last)
    world.control._transactions = transactions
    return transactions


def ask_for_the_end(world: World) -> None:
    """A tenant of some endpoints and a key, changed for the last time, and then deleted."""
    for n in range(ENDPOINTS):
        world.create_endpoint(f"ep{n}")
    world.append("commands", TENANT, CreateKey("key", TENANT, "test", 0, "k", ("read",), b"", "", 0))
    world.run(1)
    settings = world.control.configuration.endpoints["ep0"].settings
    last = UpdateEndpoint("last", TENANT, "test", 0, "ep0", ("description",), settings)
    world.append("commands", TENANT, last)
    world.append("commands", TENANT, DELETE)


def check_ended(world: World) -> None:
    """Everything has ended once, before its tenant, and the change before is not lost."""
    ended = facts(world, EndpointDeleted, KeyRevoked, TenantDeleted)
    assert isinstance(ended[-1], TenantDeleted)
    assert Counter(type(each).__name__ for each in ended) == {
        "EndpointDeleted": ENDPOINTS,
        "KeyRevoked": 1,
        "TenantDeleted": 1,
    }
    known = world.control.configuration
    assert all(endpoint.deleted for endpoint in known.endpoints.values())
    assert known.endpoints["ep0"].version == 3
    assert known.tenants[TENANT].deleted
    assert known.keyring.of_tenant(TENANT) is None
    assert facts(world, CommandRejected) == []


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that parts are needed here."""
    monkeypatch.setattr(decisions, "ENDING_MAX", 3)


def test_it_ends_in_parts() -> None:
    """No transaction is larger than its parts allow."""
    with a_world(lambda path, seen: Answer(200)) as world:
        ask_for_the_end(world)
        transactions = counted(world)
        world.step("control")
        check_ended(world)
        assert len(transactions.sizes) == 4
        assert max(transactions.sizes) <= 2 * 3 + 3


@pytest.mark.parametrize("last", range(1, 5))
def test_cut_short_it_is_taken_up_again(last: int) -> None:
    """Killed after any of its transactions: the next owner ends the rest, and repeats nothing."""
    with a_world(lambda path, seen: Answer(200)) as world:
        ask_for_the_end(world)
        counted(world, last)
        with pytest.raises(Crash):
            world.step("control")
        world.kill("control")
        world.run(1)
        check_ended(world)


def test_a_deletion_that_was_decided_is_not_taken_up_again() -> None:
    """Neither one that is through, nor one that was refused before the tenant was there."""
    with a_world(lambda path, seen: Answer(200)) as world:
        world.append("commands", TENANT, DELETE)
        world.run(1)
        assert len(facts(world, CommandRejected)) == 1
        world.append("commands", TENANT, CreateTenant("create", TENANT, "test", 0, "Acme"))
        world.run(1)
        for _ in range(2):
            world.append("commands", TENANT, DELETE)
            world.run(1)
            world.kill("control")
        assert facts(world, TenantDeleted) == []
        other = DeleteTenant("other", TENANT, "test", 0)
        for _ in range(2):
            world.append("commands", TENANT, other)
            world.run(1)
            world.kill("control")
        assert len(facts(world, TenantDeleted)) == 1
        assert len(facts(world, CommandRejected)) == 1
