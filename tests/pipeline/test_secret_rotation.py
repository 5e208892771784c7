"""Rotation: from `effective_at` on nothing is signed with the old secret, whatever a dispatcher has seen."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256

import pytest

from engine.core.change import (
    CommandRejected,
    EndpointSettings,
    RotateSecret,
    SealedSecret,
    SecretRotated,
    UpdateEndpoint,
)
from engine.core.endpoint import ROTATES_AFTER_US, Endpoint
from engine.core.model import Answer
from engine.ports import Consumer, Follower, LogError, Output, Record, Request, TopicPartition, Transactions
from engine.runtime.configuration.vault import COMMAND_KEY_ID, AesVault, Keyring
from engine.runtime.delivering.attempt import FRESH_S, SIGNED_WITHIN_S
from tests.pipeline.world import CODEC, SECRET, TENANT, VAULT, World, a_world

NEW = "whsec_" + base64.b64encode(bytes(range(24, 48))).decode()
NAMES = {SECRET: "old", NEW: "new"}


@pytest.fixture
def world() -> Iterator[World]:
    """A world with one endpoint that is up; first tries of `again` fail."""
    with a_world(lambda path, seen: Answer(500 if path == "again" and seen == 0 else 200)) as made:
        made.create_endpoint("ep")
        made.run(1)
        yield made


class Behind:
    """A follower to which nothing gets through while it is `away`."""

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self.away = False

    def move(self, starts: Mapping[TopicPartition, int]) -> None:
        """Follow these instead."""
        self._follower.move(starts)

    def poll(self, timeout: float, limit: int) -> list[Record]:
        """Nothing while it is away."""
        return [] if self.away else self._follower.poll(timeout, limit)

    @property
    def reached(self) -> Mapping[TopicPartition, int]:
        """How far it is."""
        return self._follower.reached

    @property
    def caught_up(self) -> bool:
        """Whether it was at the end once."""
        return self._follower.caught_up

    def close(self) -> None:
        """Stop."""
        self._follower.close()


def rotate(world: World, overlap_us: int = 0, vault: AesVault = VAULT, id: str = "ep") -> None:
    """Ask control for the new secret."""
    empty = SealedSecret(0, COMMAND_KEY_ID, b"", b"")
    sealed = Keyring(vault).seal(COMMAND_KEY_ID, (TENANT, id), empty, NEW)
    world.append("commands", TENANT, RotateSecret(f"rotate-{id}", TENANT, "test", 0, id, sealed, overlap_us))


def signers(request: Request) -> list[str]:
    """Which secrets signed a request, in the header's order."""
    signed = (
        f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
    )
    by = {_signature(secret, signed): name for secret, name in NAMES.items()}
    return [by[each] for each in request.headers["webhook-signature"].split()]


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return "v1," + base64.b64encode(hmac.new(key, signed, sha256).digest()).decode()


def of(world: World, message: str) -> list[list[str]]:
    """Who signed each request of a message."""
    return [signers(request) for _, request in world.requests if request.headers["webhook-id"] == message]


def effective_at(world: World) -> int:
    """When the new secret takes over, by the fact."""
    return rotations(world)[0].secret.effective_at


def rotations(world: World) -> list[SecretRotated]:
    """The facts."""
    facts = [CODEC.decode(record.value) for record in world.records("changes")]
    return [fact for fact in facts if isinstance(fact, SecretRotated)]


def endpoint(world: World, id: str = "ep") -> Endpoint:
    """The endpoint as it stands on the log."""
    snapshots = [CODEC.decode_as(Endpoint, record.value) for record in world.records("endpoints")]
    return [snapshot for snapshot in snapshots if snapshot.id == id][-1]


def test_what_is_fresh_enough_is_so_for_shorter_than_a_rotation_takes() -> None:
    """Else a dispatcher could sign on with the old secret."""
    assert FRESH_S < SIGNED_WITHIN_S < ROTATES_AFTER_US / 1e6


def test_a_retry_is_signed_with_the_new_secret(world: World) -> None:
    """The first try came before, under the old one; an `effective_at` is never more than 200 ms away."""
    world.create_endpoint("again")
    world.run(1)
    world.publish("m")
    world.run_until(lambda: len(of(world, "m")) == 2, 5)
    rotate(world, id="again")
    asked_at = world.clock.now()
    world.step("control")
    assert asked_at < effective_at(world) <= asked_at + 200_000
    world.run_until(lambda: len(of(world, "m")) == 3, 10)
    assert of(world, "m") == [["old"], ["old"], ["new"]]


def test_with_an_overlap_both_sign_until_it_is_over(world: World) -> None:
    """The newest first, both in the one header."""
    rotate(world, overlap_us=3_000_000)
    world.run(1)
    world.publish("within")
    world.run(4)
    world.publish("after")
    world.run(1)
    assert of(world, "within") == [["new", "old"]]
    assert of(world, "after") == [["new"]]


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_dispatcher_whose_view_lags_does_not_sign(world: World, *, is_asked: bool) -> None:
    """Whether the broker tells it that it lags or tells it nothing: a retry waits for the new secret."""
    world.create_endpoint("again")
    world.run(1)
    world.publish("m")
    world.run_until(lambda: len(of(world, "m")) == 2, 5)
    world.intake.view._follower = follower = Behind(world.intake.view._follower)
    follower.away = True
    world.is_asking = is_asked
    rotate(world, id="again")
    world.step("control")
    world.run(20)
    assert of(world, "m") == [["old"], ["old"]]
    world.is_asking = True
    follower.away = False
    world.run(1)
    assert of(world, "m") == [["old"], ["old"], ["new"]]


def test_a_view_that_lags_holds_up_nobody_while_nothing_changes(world: World) -> None:
    """It has all there is, and the broker says so."""
    world.intake.view._follower = follower = Behind(world.intake.view._follower)
    follower.away = True
    world.run(20)
    world.publish("m")
    world.run(1)
    assert of(world, "m") == [["old"]]


class Dies:
    """Transactions of a control that is killed after one of them."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._left = 1

    def write(
        self, outputs: Sequence[Output], consumed: Mapping[TopicPartition, int], consumer: Consumer
    ) -> None:
        """Write the first; LogError for any other."""
        if not self._left:
            raise LogError("killed")
        self._left -= 1
        self._transactions.write(outputs, consumed, consumer)


def test_a_rotation_that_was_announced_is_decided_by_the_next_control(world: World) -> None:
    """Meanwhile nothing is signed; afterwards there is one fact, and the new secret takes over."""
    world.control._transactions = Dies(world.control._transactions)
    rotate(world)
    with pytest.raises(LogError):
        world.step("control")
    assert endpoint(world).rotating
    world.publish("m")
    for group in ("router", "dispatcher", "scheduler") * 40:
        world.step(group)
        world.clock.us += 25_000
    assert of(world, "m") == []
    world.kill("control")
    world.run(1)
    assert (len(rotations(world)), endpoint(world).rotating) == (1, False)
    world.publish("later")
    world.run(1)
    assert of(world, "m") == [["old"]]
    assert of(world, "later") == [["new"]]
    assert all(at < effective_at(world) for at, request in world.requests if signers(request) == ["old"])


def test_a_rotation_that_is_refused_ends_its_announcement(world: World) -> None:
    """The old secret signs on."""
    rotate(world, vault=AesVault(b"x" * 32))
    world.run(1)
    rejected = CODEC.decode(world.records("changes")[-1].value)
    assert isinstance(rejected, CommandRejected)
    assert not endpoint(world).rotating
    world.publish("m")
    world.run(1)
    assert of(world, "m") == [["old"]]


def test_a_rotation_of_what_is_not_there_announces_nothing(world: World) -> None:
    """It is refused, and no snapshot is written."""
    before = world.records("endpoints")
    rotate(world, id="nobody")
    world.run(1)
    assert world.records("endpoints") == before


def test_other_changes_of_the_same_moment_are_kept(world: World) -> None:
    """An announcement shows what was decided before the batch, never a part of it."""
    settings = EndpointSettings("http://127.0.0.1/moved", timeout_ms=5_000)
    update = UpdateEndpoint("update", TENANT, "test", 0, "ep", ("timeout_ms",), settings)
    world.append("commands", TENANT, update)
    rotate(world)
    world.step("control")
    snapshots = [CODEC.decode_as(Endpoint, record.value) for record in world.records("endpoints")]
    seen = [(each.version, each.rotating, each.settings.timeout_ms, len(each.secrets)) for each in snapshots]
    assert seen[-3:] == [(1, True, None, 1), (2, False, 5_000, 1), (3, False, 5_000, 2)]
