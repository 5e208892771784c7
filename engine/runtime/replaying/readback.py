"""Reads back what replays wrote before their partitions came to us: one pass for all, step by step.

From where its snapshot says to the end can be days of `deliveries`, so that nobody waits for it: polling
and every other command go on, and the replays when their outputs are known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from engine.core.model import DeliveryScheduled
from engine.core.replay import Replay, ReplayFinished, ResentBatch
from engine.ports import Clock, Log, Reader, Record, TopicPartition, TrimmedError
from engine.runtime import telemetry
from engine.runtime.context import Context
from engine.runtime.replaying.candidates import Found, outputs_of
from engine.runtime.replaying.remade import resent_of
from engine.runtime.replaying.scan import Scan
from schemas import headers
from schemas.codec import Codec

GROUP = "replayer"
POLL_MAX = 500
"""Records at a time."""


class Resuming(NamedTuple):
    """A replay, from where on its outputs can be, and what was found of them."""

    replay: Replay
    positions: dict[TopicPartition, int]
    found: Found


class ReadBack:
    """One pass over the outputs of replays that were taken up together."""

    def __init__(self, log: Log, codec: Codec, reader: Reader, replays: Iterable[Replay]) -> None:
        self._log = log
        self._codec = codec
        self._reader = reader
        partitions = log.partitions("deliveries")
        self._by_cause: dict[bytes, Resuming] = {}
        for replay in replays:
            at = outputs_of(replay.partition, partitions)
            positions = dict(zip(at, replay.positions, strict=True))
            cause = headers.cause("commands", replay.partition, replay.offset)
            self._by_cause[cause] = Resuming(replay, positions, Found())
        self._scan = self._open()

    def _open(self) -> Scan:
        """Begin at the lowest of their positions that the log still has; end where it ends now."""
        lowest: dict[TopicPartition, int] = {}
        for each in self._by_cause.values():
            for at, position in each.positions.items():
                lowest[at] = min(lowest.get(at, position), position)
        starts, ends = self._reader.starts(list(lowest)), self._reader.ends(list(lowest))
        return Scan(self._log, {at: max(start, lowest[at]) for at, start in starts.items()}, ends)

    @property
    def replays(self) -> list[Replay]:
        """Those that wait for it."""
        return [each.replay for each in self._by_cause.values()]

    def step(self, clock: Clock, seconds: float) -> Sequence[Resuming]:
        """Read on for about so long; return the replays, with what was found, once all is read."""
        deadline = clock.monotonic() + seconds
        while not self._scan.done:
            records = self._poll()
            telemetry.READ_BACK.labels(GROUP).inc(len(records))
            for record in records:
                self._note(record)
            if not records or clock.monotonic() >= deadline:
                break
        return list(self._by_cause.values()) if self._scan.done else ()

    def _poll(self) -> list[Record]:
        try:
            return self._scan.poll(POLL_MAX)
        except TrimmedError:  # retention was faster: what is left is read anew
            self._scan.close()
            self._scan = self._open()
            return []

    def _note(self, record: Record) -> None:
        each = self._by_cause.get(record.headers.get(headers.CAUSE, b""))
        if each is None or record.offset < each.positions[record.topic, record.partition]:
            return
        match self._codec.decode(record.value):
            case DeliveryScheduled() as delivery:
                each.found.written[delivery.delivery_id] = resent_of(delivery)
            case ResentBatch() as batch:
                each.found.named.update(resent.delivery_id for resent in batch.deliveries)
            case ReplayFinished() as fact:
                each.found.end = fact

    def forget(self, partition: int) -> None:
        """Somebody else owns the replays of a partition."""
        for cause, each in list(self._by_cause.items()):
            if each.replay.partition == partition:
                del self._by_cause[cause]

    def close(self) -> None:
        """Let go of the log."""
        self._scan.close()


class ReadBacks:
    """Replays that were taken up and go on when their outputs are known."""

    def __init__(self, context: Context, reader: Reader) -> None:
        self._context = context
        self._reader = reader
        self._taken_up: list[Replay] = []
        self._under_way: list[ReadBack] = []

    def take_up(self, replay: Replay) -> None:
        """Go on with a replay where its last owner was; nothing is read yet, since members wait for us."""
        self._taken_up.append(replay)

    @property
    def replays(self) -> list[Replay]:
        """Those that wait for it."""
        return [*self._taken_up, *(replay for each in self._under_way for replay in each.replays)]

    def step(self, seconds: float) -> list[Resuming]:
        """Read on for about so long; return the replays that may go on, with what was found of them."""
        context, resumed = self._context, list[Resuming]()
        if self._taken_up:
            self._under_way.append(ReadBack(context.log, context.codec, self._reader, self._taken_up))
            self._taken_up = []
        for each in list(self._under_way):
            found = each.step(context.clock, seconds)
            resumed += found
            if found or not each.replays:
                each.close()
                self._under_way.remove(each)
        return resumed

    def forget(self, partition: int) -> None:
        """Somebody else owns the replays of a partition."""
        self._taken_up = [replay for replay in self._taken_up if replay.partition != partition]
        for each in self._under_way:
            each.forget(partition)

    def close(self) -> None:
        """Let go of the log."""
        for each in self._under_way:
            each.close()
