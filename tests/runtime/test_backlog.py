"""Lag in seconds: how old the oldest record is that a member has not done."""

from __future__ import annotations

import pytest

from engine.ports import Record
from engine.runtime.backlog import Backlog
from engine.runtime.kafka.statistics import unread_of

AT = ("messages", 0)
OTHER = ("messages", 1)
NOW = 1_000_000_000


def record(offset: int, age_s: int, at: tuple[str, int] = AT) -> Record:
    """A record appended so long before NOW."""
    return Record(*at, offset, NOW - age_s * 1_000_000, None, None, {})


def test_the_oldest_record_not_done_counts() -> None:
    """Over all partitions of a topic; what is done counts no more."""
    backlog = Backlog(["messages", "commands"])
    backlog.gained([AT, OTHER])
    backlog.polled([record(0, 50), record(1, 40), record(7, 60, OTHER)])
    backlog.polled([record(2, 10)])
    assert backlog.ages_s(NOW) == {"messages": 60.0, "commands": 0.0}
    backlog.done({OTHER: 8})
    assert backlog.ages_s(NOW)["messages"] == 50.0
    backlog.done({AT: 2})
    assert backlog.ages_s(NOW)["messages"] == 10.0
    backlog.done({AT: 3})
    assert backlog.ages_s(NOW)["messages"] == 0.0


def test_what_is_in_the_middle_of_a_poll_never_looks_younger() -> None:
    """A poll is kept as one run: its age is that of its first record until all of it is done."""
    backlog = Backlog(["messages"])
    backlog.gained([AT])
    backlog.polled([record(0, 50), record(1, 40), record(2, 30)])
    backlog.done({AT: 2})
    assert backlog.ages_s(NOW)["messages"] == 50.0


def test_what_was_fetched_or_not_and_never_polled_counts_too() -> None:
    """Who polls nothing is behind since that is known; who catches up, since the last record."""
    backlog = Backlog(["messages"])
    backlog.gained([AT])
    backlog.unread([AT], NOW - 90_000_000)
    backlog.unread([AT], NOW - 5_000_000)
    assert backlog.ages_s(NOW)["messages"] == 90.0
    backlog.polled([record(0, 20)])
    backlog.done({AT: 1})
    assert backlog.ages_s(NOW)["messages"] == 20.0
    backlog.unread([], NOW)
    assert backlog.ages_s(NOW)["messages"] == 0.0


def test_a_partition_that_is_somebody_elses_has_no_age() -> None:
    """Neither what it left behind nor what the client still returns of it."""
    backlog = Backlog(["messages"])
    backlog.gained([AT])
    backlog.polled([record(0, 50)])
    backlog.gone([AT])
    backlog.polled([record(1, 50)])
    backlog.unread([AT], NOW - 90_000_000)
    assert backlog.ages_s(NOW) == {"messages": 0.0}


@pytest.mark.parametrize(
    ("partition", "is_unread"),
    [
        ({"next_offset": 5, "ls_offset": 5, "fetchq_cnt": 0}, False),
        ({"next_offset": 5, "ls_offset": 6, "fetchq_cnt": 0}, True),
        ({"next_offset": 5, "ls_offset": 5, "fetchq_cnt": 2}, True),
        ({"next_offset": -1001, "ls_offset": 5, "fetchq_cnt": 0}, False),
        ({"next_offset": 5, "ls_offset": -1001, "fetchq_cnt": 0}, False),
    ],
)
def test_the_librarys_statistics_say_what_is_unread(partition: dict[str, int], is_unread: bool) -> None:
    """Fetched and not polled, or known and not fetched; offsets that it does not know say nothing."""
    said = {"topics": {"h.messages": {"partitions": {"3": partition, "-1": partition}}}}
    assert list(unread_of(said)) == ([("h.messages", 3)] if is_unread else [])
