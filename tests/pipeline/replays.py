"""Asking for resends, tests and replays, and what the log says of them."""

from __future__ import annotations

from collections import Counter

from engine.core.change import CommandBase
from engine.core.model import Answer, AttemptFinished, DeliveryScheduled
from engine.core.replay import (
    Only,
    Replay,
    Resend,
    ResentBatch,
    StartReplay,
)
from tests.pipeline.world import CODEC, TENANT, World


class Receivers:
    """Everything is taken except at paths in `down`."""

    def __init__(self, *down: str) -> None:
        self.down = set(down)

    def __call__(self, path: str, seen: int) -> Answer:
        """500 while it is down."""
        return Answer(500 if path in self.down else 200)


def ask(world: World, command: CommandBase) -> None:
    """Write a command."""
    world.append("commands", TENANT, command)


def several(count: int) -> list[str]:
    """Ids of so many messages."""
    return [f"m{n}" for n in range(count)]


def have(world: World, *messages: str) -> None:
    """An endpoint `ok`, and messages that were routed to it."""
    world.create_endpoint("ok")
    world.run(1)
    for message in messages:
        world.publish(message)
    world.run(1)


def start(world: World, only: Only = "all", name: str = "r1", **more: object) -> None:
    """Ask for a replay."""
    wanted = {"endpoint_id": "ok", "since": 0, "until": 0, "event_types": (), "rate": 0.0} | more
    base = (f"start-{name}", TENANT, "test", world.clock.now(), name)
    ask(world, StartReplay(*base, only=only, **wanted))  # type: ignore[arg-type]


def replay_of(world: World, name: str = "r1") -> Replay:
    """The last snapshot of a replay."""
    key = f"replay:{name}".encode()
    values = [record.value for record in world.records("directory") if record.key == key]
    return CODEC.decode_as(Replay, values[-1])


def facts(world: World, *kinds: type) -> list[object]:
    """Facts of some kinds."""
    found = (CODEC.decode(record.value) for record in world.records("changes"))
    return [each for each in found if isinstance(each, kinds)]


def made_again(world: World) -> list[DeliveryScheduled]:
    """First tries of deliveries that are not first-time ones."""
    return [each for each in world.deliveries() if each.trigger != "scheduled" and each.attempt == 1]


def named(world: World) -> Counter[str]:
    """How often each delivery is named on `routings`."""
    batches = (CODEC.decode(record.value) for record in world.records("routings"))
    return Counter(
        each.delivery_id for batch in batches if isinstance(batch, ResentBatch) for each in batch.deliveries
    )


def first_of(world: World, message: str) -> DeliveryScheduled:
    """The delivery of a message."""
    return next(each for each in world.deliveries() if each.message_id == message)


def resend(world: World, message: str, command_id: str = "again") -> None:
    """Ask to make the delivery of a message again."""
    old = first_of(world, message)
    failed_at = 1 if any(a.decision == "failed" for a in world.attempts()) else 0
    ask(
        world,
        Resend(
            *(command_id, TENANT, "test", 0, old.endpoint_id, old.delivery_id, message),
            *(old.source_partition, old.source_offset, failed_at),
        ),
    )


def attempts_of(world: World, trigger: str) -> list[AttemptFinished]:
    """Attempts with a trigger."""
    return [attempt for attempt in world.attempts() if attempt.trigger == trigger]
