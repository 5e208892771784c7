"""Deliveries that are made again: one by hand (resend), many by range (replay), or to try an endpoint (test).

What was asked (commands), what happened (facts), and the snapshot of a replay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Literal

from engine.core.change import CommandBase, CommandRejected, FactBase, RejectionCode
from engine.core.model import Trigger

Only = Literal["failed", "missed", "all"]
ReplayStatus = Literal["running", "finished", "cancelled"]


@dataclass(frozen=True, slots=True)
class Resend(CommandBase):
    """Asks to make one delivery again."""

    endpoint_id: str
    delivery_id: str
    """The delivery as it was; the new one has it as its origin."""
    message_id: str
    source_partition: int
    source_offset: int
    failed_at: int
    """From when on its dead letter can be; 0: it has none."""


@dataclass(frozen=True, slots=True)
class SendTest(CommandBase):
    """Asks for one attempt with a payload of ours."""

    endpoint_id: str
    event_type: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class StartReplay(CommandBase):
    """Asks for a replay of what was accepted (of `failed`: what failed) from `since` to before `until`."""

    replay_id: str
    endpoint_id: str
    """Empty: every endpoint of the tenant."""
    since: int
    until: int
    only: Only
    event_types: tuple[str, ...]
    """Types and prefixes as in a subscription; empty: all."""
    rate: float
    """Deliveries a second; 0: as fast as the endpoints take them."""


@dataclass(frozen=True, slots=True)
class CancelReplay(CommandBase):
    """Asks to end a replay; what it has written is still delivered."""

    replay_id: str


@dataclass(frozen=True, slots=True)
class ReplayStarted(FactBase):
    """A replay began; `ends` are the offsets it ends before, by partition of what it reads."""

    replay_id: str
    endpoint_id: str
    since: int
    until: int
    only: Only
    event_types: tuple[str, ...]
    rate: float
    ends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReplayFinished(FactBase):
    """A replay ended by itself: it was through, or `reason` says why it could not go on."""

    replay_id: str
    endpoint_id: str
    reason: str
    deliveries: int
    missing: int
    skipped: int


@dataclass(frozen=True, slots=True)
class ReplayCancelled(FactBase):
    """A replay was ended by hand."""

    replay_id: str
    endpoint_id: str
    deliveries: int


@dataclass(frozen=True, slots=True)
class Replay:
    """Full snapshot of one replay."""

    id: str
    tenant: str
    actor: str = ""
    command_id: str = ""
    endpoint_id: str = ""
    since: int = 0
    until: int = 0
    only: Only = "all"
    event_types: tuple[str, ...] = ()
    rate: float = 0.0
    status: ReplayStatus = "running"
    reason: str = ""
    planned: int = 0
    """Deliveries it will make in all; 0 until it has looked."""
    deliveries: int = 0
    missing: int = 0
    """Messages whose bodies are past retention."""
    skipped: int = 0
    """Deliveries not made because their endpoint was disabled or deleted meanwhile, or the body too large."""
    started_at: int = 0
    updated_at: int = 0
    ended_at: int = 0
    partition: int = 0
    """Of its command on `commands`."""
    offset: int = 0
    ends: tuple[int, ...] = ()
    cursors: tuple[int, ...] = ()
    """Offsets below which all is done, by partition of what it reads."""
    positions: tuple[int, ...] = ()
    """Where what it wrote at or after the cursors begins on each partition it writes to."""
    made_ahead: int = 0
    """Of `deliveries`, those at or after the cursors: whoever resumes meets them again."""
    skipped_ahead: int = 0


@dataclass(frozen=True, slots=True)
class Resent:
    """A delivery of a message (or a test) that is not its first to this endpoint."""

    delivery_id: str
    endpoint_id: str
    message_id: str
    event_type: str
    trigger: Trigger
    origin: str
    accepted_at: int
    source_partition: int
    source_offset: int


@dataclass(frozen=True, slots=True)
class ResentBatch:
    """Deliveries that were written, so that everybody can count on them: no RoutedBatch names them."""

    command_id: str
    tenant: str
    actor: str
    at: int
    deliveries: tuple[Resent, ...]


ReplayCommand = Resend | SendTest | StartReplay | CancelReplay


def resent_id(made_by: str, topic: str, source: tuple[int, int], endpoint_id: str) -> str:
    """Id of the delivery that a command or replay makes of a message at (partition, offset) of a topic."""
    name = f"{made_by}:{topic}:{source[0]}:{source[1]}:{endpoint_id}"
    return "dlv_" + blake2b(name.encode(), digest_size=12).hexdigest()


def ping_id(command_id: str) -> str:
    """Id under which a test send goes out."""
    return "test_" + command_id.removeprefix("cmd_")


def source_topic(only: Only) -> str:
    """Topic that a replay reads bodies from."""
    return "dead-letters" if only == "failed" else "messages"


def started(command: StartReplay, now: int, ends: tuple[int, ...]) -> ReplayStarted:
    """Begin a replay; the end is frozen: what comes later is not its business."""
    base = (command.command_id, command.tenant, command.actor, now, command.replay_id, command.endpoint_id)
    wanted = (command.only, command.event_types, command.rate)
    return ReplayStarted(*base, command.since, command.until or now, *wanted, ends)


def begun(fact: ReplayStarted, command_at: tuple[int, int], positions: tuple[int, ...]) -> Replay:
    """Return the first snapshot; `command_at` is (partition, offset) of the command."""
    return Replay(
        *(fact.replay_id, fact.tenant, fact.actor, fact.command_id, fact.endpoint_id, fact.since, fact.until),
        fact.only,
        fact.event_types,
        fact.rate,
        started_at=fact.at,
        updated_at=fact.at,
        partition=command_at[0],
        offset=command_at[1],
        ends=fact.ends,
        cursors=(0,) * len(fact.ends),
        positions=positions,
    )


def ended(replay: Replay, fact: ReplayFinished | ReplayCancelled) -> Replay:
    """Fold the end into the snapshot; a replay ends once."""
    if replay.status != "running":
        return replay
    made = max(replay.deliveries, fact.deliveries)  # the snapshot is older than the fact, maybe
    changed = replace(replay, deliveries=made, updated_at=fact.at, ended_at=fact.at)
    if isinstance(fact, ReplayFinished):
        left = replace(changed, missing=fact.missing, skipped=fact.skipped)
        return replace(left, status="finished", reason=fact.reason)
    return replace(changed, status="cancelled")


def resumed(replay: Replay) -> Replay:
    """Count only what lies below the cursors: the rest is met again."""
    deliveries, skipped = replay.deliveries - replay.made_ahead, replay.skipped - replay.skipped_ahead
    return replace(replay, deliveries=deliveries, skipped=skipped, made_ahead=0, skipped_ahead=0)


def finish(replay: Replay, now: int, reason: str = "") -> ReplayFinished:
    """Say that a replay is over, with why if it is not through."""
    base = (replay.command_id, replay.tenant, replay.actor, now, replay.id, replay.endpoint_id)
    return ReplayFinished(*base, reason, replay.deliveries, replay.missing, replay.skipped)


def cancel(replay: Replay, command: CancelReplay, now: int) -> ReplayCancelled:
    """Say that somebody ended it."""
    base = (command.command_id, command.tenant, command.actor, now, replay.id, replay.endpoint_id)
    return ReplayCancelled(*base, replay.deliveries)


def reject(command: ReplayCommand, now: int, reason: str, code: RejectionCode) -> CommandRejected:
    """Say why a command changes nothing."""
    endpoint_id = "" if isinstance(command, CancelReplay) else command.endpoint_id
    base = (command.command_id, command.tenant, command.actor, now)
    return CommandRejected(*base, endpoint_id, type(command).__name__, reason, code)
