"""Reads what a survey folds, step by step: `routings`, `attempts` and, of what failed, `dead-letters`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping

from engine.core.model import AttemptFinished, RoutedBatch
from engine.core.replay import Only, ResentBatch, source_topic
from engine.core.routing import partition_of
from engine.core.survey import Survey
from engine.ports import Clock, Log, Reader, Record, TopicPartition
from engine.runtime.replaying.scan import Scan
from engine.runtime.topics import partitions_of
from schemas.codec import Codec, UndecodableError

POLL_MAX = 20
"""Records at a time: a RoutedBatch may hold hundreds of routings."""
ROUTED_WITHIN_S = 2.0
"""What was accepted before the end is routed within this time, or the router is away and will route it."""


def frozen_ends(log: Log, reader: Reader, only: Only, until: int, now: int) -> tuple[int, ...]:
    """Offsets that a replay ends before, on each partition of what it reads bodies from."""
    all_of = partitions_of(log, source_topic(only))
    found = reader.since(all_of, until) if 0 < until < now else reader.ends(all_of)
    return tuple(found[at] for at in all_of)


class Surveying:
    """One survey under way; `step` until it is done."""

    def __init__(self, log: Log, codec: Codec, clock: Clock, survey: Survey) -> None:
        self._log = log
        self._codec = codec
        self._clock = clock
        self._reader = log.reader()
        self.survey = survey
        self._keys = {endpoint.encode() for endpoint in survey.subscribers}
        self._timeout = 0.0
        self._steps = self._run()
        self.done = False

    def step(self, timeout: float = 0) -> None:
        """Fold what has been fetched, a few records at most."""
        self._timeout = timeout
        self.done = next(self._steps, True)

    def _run(self) -> Generator[bool]:
        """Stage after stage; yields False until all is folded."""
        yield from self._routings()
        yield from self._stage(self._of_endpoints("attempts"), self._attempt)
        self.survey.conclude()
        if self.survey.wanted.only == "failed":
            at = self._of_endpoints("dead-letters")
            ends = {each: self.survey.wanted.ends[each[1]] for each in at}
            yield from self._stage(at, self._dead, ends)

    def _of_endpoints(self, topic: str) -> list[TopicPartition]:
        if topic == "attempts" and self.survey.wanted.only == "all":
            return []
        count = self._log.partitions(topic)
        return [(topic, n) for n in sorted({partition_of(e, count) for e in self.survey.subscribers})]

    def _routings(self) -> Iterator[bool]:
        """Read on until all that was accepted before the end is routed."""
        at = partitions_of(self._log, "routings")
        deadline = self._clock.monotonic() + ROUTED_WITHIN_S
        starts = self._starts(at)
        while True:
            ends = self._reader.ends(at)
            yield from self._stage(at, self._routing, ends, starts)
            if self._is_routed() or self._clock.monotonic() >= deadline:
                return
            starts = ends
            yield False

    def _is_routed(self) -> bool:
        wanted, frontiers = self.survey.wanted, self.survey.frontiers
        return wanted.only == "failed" or all(frontiers[n] >= end for n, end in enumerate(wanted.ends))

    def _starts(self, at: list[TopicPartition]) -> dict[TopicPartition, int]:
        since, lowest = self._reader.since(at, self.survey.wanted.since), self._reader.starts(at)
        return {each: max(since[each], lowest[each]) for each in at}

    def _stage(
        self,
        at: list[TopicPartition],
        fold: Callable[[Record], None],
        ends: Mapping[TopicPartition, int] | None = None,
        starts: Mapping[TopicPartition, int] | None = None,
    ) -> Iterator[bool]:
        reached = dict(starts or self._starts(at))
        ends = self._reader.ends(at) if ends is None else ends
        scan = Scan(self._log, reached, ends)
        try:
            while not scan.done:
                for record in scan.poll(POLL_MAX, self._timeout):
                    self._fold(fold, record)
                yield False
        finally:
            scan.close()

    def _fold(self, fold: Callable[[Record], None], record: Record) -> None:
        try:
            fold(record)
        except UndecodableError:
            return  # whoever takes it in puts it on `invalid`

    def _routing(self, record: Record) -> None:
        match self._codec.decode(record.value):
            case RoutedBatch() as batch:
                self.survey.routed(batch)
            case ResentBatch() as batch:
                self.survey.resent(batch)

    def _attempt(self, record: Record) -> None:
        if record.key in self._keys:
            self.survey.attempted(self._codec.decode_as(AttemptFinished, record.value))

    def _dead(self, record: Record) -> None:
        if record.key in self._keys:
            attempt = self._codec.decode_as(AttemptFinished, record.value)
            self.survey.dead(attempt, record.partition, record.offset)

    def close(self) -> None:
        """Let go of the log."""
        self._steps.close()
        self._reader.close()
