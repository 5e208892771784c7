"""Freshness: as of when a view is known to be complete (docs/adr/0011)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from engine.ports import Clock, Log, LogError, TopicPartition
from engine.runtime import telemetry
from engine.runtime.topics import partitions_of

EVERY_S = 0.075
_KEPT = 8
"""Answers that are remembered: a view may reach the end of an older one first."""
NEVER = float("-inf")

Reached = Callable[[TopicPartition], int]
_LOG = telemetry.logger("fresh")


class Freshness:
    """Asks the broker now and then where a topic ends; `ask` and `as_of` may be called on any thread."""

    def __init__(self, log: Log, clock: Clock, topic: str, reached: Reached) -> None:
        """`reached` says how far a view is: the offset below which nothing is missing."""
        self._clock = clock
        self._reached = reached
        self._reader = log.reader()
        self._partitions = partitions_of(log, topic)
        self._answers: tuple[tuple[float, Mapping[TopicPartition, int]], ...] = ()
        self._began = NEVER
        self._stopped = threading.Event()
        self._asking: threading.Thread | None = None

    def as_of(self, partition: int) -> float:
        """As of when the view lacks nothing of a partition (monotonic seconds)."""
        at = self._partitions[partition]
        reached = self._reached(at)
        return next((asked for asked, ends in self._answers if ends[at] <= reached), NEVER)

    def age_s(self) -> float:
        """For how long the view is not known to be complete, seconds; at first since `start`."""
        now = self._clock.monotonic()
        return now - max(self._began, min(map(self.as_of, range(len(self._partitions)))))

    def ask(self) -> None:
        """Ask once; blocks until the broker answers."""
        asked = self._clock.monotonic()
        ends = self._reader.tails(self._partitions)
        self._answers = ((asked, ends), *self._answers[: _KEPT - 1])

    def start(self) -> None:
        """Ask from now on, on a thread of its own."""
        self._began = self._clock.monotonic()
        self._asking = threading.Thread(target=self._run, name="fresh", daemon=True)
        self._asking.start()
        telemetry.VIEW_AGE.set_function(self.age_s)  # when it is asked: it grows while a question hangs too

    def _run(self) -> None:
        is_told = False
        while not self._stopped.is_set():
            try:
                self.ask()
                is_told = False
            except LogError as error:  # nothing is confirmed meanwhile, so nothing is signed
                if not is_told:
                    _LOG.warning("view.unconfirmed", error=str(error))
                is_told = True
            self._stopped.wait(EVERY_S)
        self._reader.close()

    def stop(self) -> None:
        """Ask no more."""
        self._stopped.set()
        if self._asking is None:
            self._reader.close()
