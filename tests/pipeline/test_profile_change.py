"""A profile is changed while deliveries in the old dialect wait, or a secret of the old one is in force."""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Iterator, Mapping

import pytest

from engine.core.change import EndpointSettings, RotateSecret, SealedSecret, UpdateEndpoint
from engine.core.model import Answer
from engine.runtime.configuration.vault import COMMAND_KEY_ID, Keyring
from tests.pipeline.world import SECRET, TENANT, VAULT, World, a_world

PLAIN = "no base64 at all"
"""A secret that the profile standard has no key for."""


@pytest.fixture
def world() -> Iterator[World]:
    """A world in which the first tries of `again` fail; a bystander shares the dispatcher."""
    with a_world(lambda path, seen: Answer(500 if path == "again" and seen == 0 else 200)) as made:
        made.create_endpoint("bystander", ("other.*",))
        yield made


def rotate(world: World, id: str, clear: str) -> None:
    """Ask control for a new secret."""
    empty = SealedSecret(0, COMMAND_KEY_ID, b"", b"")
    sealed = Keyring(VAULT).seal(COMMAND_KEY_ID, (TENANT, id), empty, clear)
    world.append("commands", TENANT, RotateSecret(f"rotate-{clear}", TENANT, "test", 0, id, sealed, 0))


def change(world: World, id: str, profile: str, headers: Mapping[str, str] | None = None) -> None:
    """Ask control for another profile, and for headers of the endpoint's own."""
    given = EndpointSettings("", profile=profile, headers=headers or {})
    fields = ("profile", "headers")
    sealed = Keyring(VAULT).seal_command_headers((TENANT, id), given)
    world.append("commands", TENANT, UpdateEndpoint(f"to-{profile}", TENANT, "test", 0, id, fields, sealed))


def requests(world: World, message: str) -> list[dict[str, str]]:
    """Headers of each request of a message."""
    return [dict(r.headers) for _, r in world.requests if r.headers["webhook-id"] == message]


def test_a_retry_in_the_old_dialect_is_signed_with_the_new_secret(world: World) -> None:
    """Although that dialect would not have accepted it: the bytes of the text are the key."""
    world.create_endpoint("again", ("room.*",))
    world.run(1)
    world.publish("m")
    world.run_until(lambda: len(requests(world, "m")) == 1, 5)
    change(world, "again", "bedrud")
    rotate(world, "again", PLAIN)
    world.run_until(lambda: len(requests(world, "m")) == 2, 10)
    retried = next(r for _, r in reversed(world.requests) if r.headers["webhook-id"] == "m")
    signed = f"m.{retried.headers['webhook-timestamp']}.".encode() + retried.body
    digest = hmac.digest(PLAIN.encode(), signed, "sha256")
    assert retried.headers["webhook-signature"] == f"v1,{b64encode(digest).decode()}"


def test_a_secret_of_the_old_dialect_that_is_still_known_halts_nothing(world: World) -> None:
    """It signs until the new one is in force; others get theirs all the time."""
    world.create_endpoint("ep", ("room.*",), profile="bedrud")
    world.run(1)
    rotate(world, "ep", PLAIN)
    world.run(1)
    rotate(world, "ep", SECRET)
    change(world, "ep", "standard")
    world.publish("m")
    world.publish("bystander's", "other.one")
    world.run_until(lambda: bool(requests(world, "m") and requests(world, "bystander's")), 5)
    assert "webhook-signature" in requests(world, "m")[0]


def test_an_own_header_never_stands_next_to_the_dialects_own(world: World) -> None:
    """The new profile leaves the name free; a retry in the old one sends its own header once."""
    world.create_endpoint("again", ("room.*",), profile="bedrud")
    world.run(1)
    world.publish("m")
    world.run_until(lambda: len(requests(world, "m")) == 1, 5)
    change(world, "again", "standard", {"x-bedrud-event": "mine", "X-Team": "blue"})
    world.run_until(lambda: len(requests(world, "m")) == 2, 10)
    first, second = requests(world, "m")
    named = [(name, value) for name, value in second.items() if name.lower() == "x-bedrud-event"]
    assert named == [("X-Bedrud-Event", first["X-Bedrud-Event"])]
    assert second["X-Team"] == "blue"
