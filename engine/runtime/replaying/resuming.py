"""What a replayer finds of its own on the log when partitions come to it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from engine.core.change import CommandRejected
from engine.core.directory import directory_key
from engine.core.model import DeliveryScheduled
from engine.core.replay import Replay, ReplayCancelled, ReplayStarted, Resent
from engine.ports import Output, Reader, Record
from engine.runtime.owned import Input, Owned
from engine.runtime.replaying.remade import resent_of
from schemas.codec import Codec

_REPLAYS = directory_key("replay", "").encode()


def snapshots_of(reader: Reader, partition: int) -> list[Record]:
    """Return the last record of each replay of a partition that is not forgotten."""
    records = reader.read(reader.starts([("directory", partition)]))
    latest = {r.key: r for r in records if (r.key or b"").startswith(_REPLAYS)}
    return [record for record in latest.values() if record.value is not None]


def tombstone_of(record: Record) -> Output:
    """What lets compaction take a snapshot away."""
    return Output(record.topic, record.partition, record.key, None, {})


@dataclass(slots=True)
class Outputs:
    """What was read back of a command's outputs."""

    written: Resent | None = None
    is_done: bool = False
    started: ReplayStarted | None = None
    cancelled: ReplayCancelled | None = None


@dataclass(slots=True)
class Chain:
    """Outputs that are written one after the other is acknowledged; then the input is done."""

    taken: Input
    outputs: deque[Output]
    begins: Replay | None = None
    """The replay that is under way from then on."""
    is_waiting: bool = field(default=False)

    def acknowledged(self) -> None:
        """The next one may go."""
        self.is_waiting = False


def is_done(found: object) -> bool:
    """Whether what was read back is all that a command owes."""
    return isinstance(found, Outputs) and found.is_done


def recover(codec: Codec, owned: Owned, offset: int, output: Record) -> None:
    """Note a found output of a command."""
    found = owned.found.setdefault(offset, Outputs())
    assert isinstance(found, Outputs)
    if output.topic == "deliveries":
        found.written = resent_of(codec.decode_as(DeliveryScheduled, output.value))
    elif output.topic != "changes":
        found.is_done = True
    else:
        match codec.decode(output.value):
            case ReplayStarted() as fact:
                found.started = fact
            case ReplayCancelled() as fact:
                found.cancelled = fact
            case CommandRejected():
                found.is_done = True
