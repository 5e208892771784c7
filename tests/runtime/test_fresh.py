"""Freshness: as of when a view is complete, by what the broker said and how far the view is."""

from __future__ import annotations

from engine.dev.process import wait_until
from engine.ports import LogError, Output, TopicPartition
from engine.runtime.clock import SystemClock
from engine.runtime.configuration.fresh import NEVER, Freshness
from engine.runtime.configuration.views import View
from engine.runtime.memory import MemoryLog

PARTITIONS = 2
HERE = ("endpoints", 0)


class Steps:
    """ports.Clock that goes on a second each time it is asked."""

    def __init__(self) -> None:
        self.at = 0

    def now(self) -> int:
        """Microseconds."""
        return self.at * 1_000_000

    def monotonic(self) -> float:
        """Seconds."""
        self.at += 1
        return float(self.at)


def appended(log: MemoryLog, at: TopicPartition = HERE) -> None:
    """Write something."""
    log.append(Output(*at, b"key", b"value"))


def test_a_view_is_complete_as_of_the_last_question_whose_answer_it_has_reached() -> None:
    """Not as of the answer; and a newer question, whose answer it has not reached, takes nothing away."""
    log, reached = MemoryLog(PARTITIONS, SystemClock()), {HERE: 0, ("endpoints", 1): 0}
    fresh = Freshness(log, Steps(), "endpoints", reached.__getitem__)
    assert fresh.as_of(0) == NEVER
    fresh.ask()
    assert fresh.as_of(0) == 1.0
    appended(log)
    fresh.ask()
    assert (fresh.as_of(0), fresh.as_of(1)) == (1.0, 2.0)
    reached[HERE] = 1
    assert fresh.as_of(0) == 2.0
    fresh.stop()


def test_a_view_that_stays_behind_is_complete_as_of_nothing_recent() -> None:
    """What it reached long ago is forgotten."""
    log = MemoryLog(PARTITIONS, SystemClock())
    fresh = Freshness(log, Steps(), "endpoints", lambda at: 0)
    fresh.ask()
    appended(log)
    for _ in range(10):
        fresh.ask()
    assert fresh.as_of(0) == NEVER
    fresh.stop()


def test_a_view_keeps_itself_fresh() -> None:
    """From its loading on, and no more once it is closed."""
    log, clock = MemoryLog(PARTITIONS, SystemClock()), SystemClock()
    appended(log)
    view = View(log, ("endpoints",), lambda record: None)
    fresh = view.keep_fresh("endpoints", clock)
    view.load()
    started = clock.monotonic()
    assert wait_until(lambda: fresh.as_of(0) > started, 60, 0.01)
    appended(log)
    view.advance()
    later = clock.monotonic()
    assert wait_until(lambda: fresh.as_of(0) > later, 60, 0.01)
    view.close()
    assert fresh._asking is not None
    fresh._asking.join(60)
    assert not fresh._asking.is_alive()


class Away(Freshness):
    """A broker that does not answer at first."""

    left = 3

    def ask(self) -> None:
        """An error, three times."""
        self.left -= 1
        if self.left >= 0:
            raise LogError("the ends could not be listed: Local: Unknown partition")
        super().ask()


def test_a_broker_that_is_away_confirms_nothing_and_ends_nothing() -> None:
    """Nothing is signed meanwhile; when it answers again the view is fresh again."""
    log, clock = MemoryLog(PARTITIONS, SystemClock()), SystemClock()
    view = View(log, ("endpoints",), lambda record: None)
    view.freshness = away = Away(log, clock, "endpoints", view.reached)
    assert away.as_of(0) == NEVER
    view.load()
    assert wait_until(lambda: away.as_of(0) > NEVER, 60, 0.01)
    assert away.left < 0
    view.close()
