"""What a replayer finds of its own on the log when partitions come to it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from engine.core.change import CommandRejected
from engine.core.directory import parse_directory_key
from engine.core.model import DeliveryScheduled
from engine.core.replay import Replay, ReplayCancelled, ReplayFinished, ReplayStarted, Resent, ResentBatch
from engine.ports import Output, Reader, Record
from engine.runtime.owned import Input, Owned
from engine.runtime.replaying.candidates import Found, outputs_of
from engine.runtime.replaying.remade import resent_of
from schemas import headers
from schemas.codec import Codec


def snapshots(reader: Reader, partition: int) -> list[Record]:
    """Return the last record of each replay of a partition of `directory`, if it is not a tombstone."""
    records = reader.read(reader.starts([("directory", partition)]))
    latest = {record.key: record for record in records if _is_of_replay(record)}
    return [record for record in latest.values() if record.value is not None]


def _is_of_replay(record: Record) -> bool:
    entry = parse_directory_key((record.key or b"").decode())
    return entry is not None and entry[0] == "replay"


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


def read_back(codec: Codec, reader: Reader, replay: Replay, partitions: int) -> Found:
    """Read what a replay wrote at or after its snapshot's cursors."""
    at = outputs_of(replay.partition, partitions)
    lowest, ends = reader.starts(at), reader.ends(at)
    starts = {each: max(p, lowest[each]) for each, p in zip(at, replay.positions, strict=True)}
    found, cause = Found(), headers.cause("commands", replay.partition, replay.offset)
    for record in reader.read({each: start for each, start in starts.items() if start < ends[each]}):
        if record.headers.get(headers.CAUSE) == cause:
            _note(codec, found, record)
    return found


def _note(codec: Codec, found: Found, record: Record) -> None:
    match codec.decode(record.value):
        case DeliveryScheduled() as delivery:
            found.written[delivery.delivery_id] = resent_of(delivery)
        case ResentBatch() as batch:
            found.named.update(each.delivery_id for each in batch.deliveries)
        case ReplayFinished() as fact:
            found.end = fact
