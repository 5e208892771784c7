"""The demo's own arithmetic: who should see what, and what a book must say for a good verdict."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from engine.dev.demo.books import (
    Entry,
    Expected,
    Tally,
    closing_line,
    count_faults,
    digest,
    judge,
    should_see,
    subscribes,
)
from engine.dev.demo.events import FILE, MIX, Message, make_messages, read_messages
from engine.dev.demo.subscribers import SUBSCRIBERS, Subscriber

BY_NAME = {one.name: one for one in SUBSCRIBERS}
SHOULD = {f"m{n}": Expected("room.ended", digest(b"%d" % n)) for n in range(3)}


def message(tenant: str, event_type: str, payload: bytes = b"{}") -> Message:
    """A message that nothing but its addressing is known of."""
    return Message(tenant, "m0", event_type, payload, 0, None, {})


def entry(n: int, *, status: int = 200, ordinal: int = 1, fault: str = "") -> Entry:
    """A request for message `n` as it should be."""
    return Entry(f"m{n}", "room.ended", ordinal, status, digest(b"%d" % n), 0, fault)


def test_the_shipped_file_is_what_the_generator_makes() -> None:
    """The committed events are reproducible, so a reader can see where they come from."""
    assert list(read_messages()) == make_messages()


def test_the_shipped_file_is_real_input() -> None:
    """Over 2,000 distinct payloads of 200 B to 60 KB, mostly small, a tail of large ones, in 4 MB."""
    messages = list(read_messages())
    sizes = sorted(len(m.payload) for m in messages)
    assert len(messages) >= 2000
    assert len({m.payload for m in messages}) == len({(m.tenant, m.id) for m in messages}) == len(messages)
    assert sizes[0] >= 200
    assert sizes[len(sizes) * 9 // 10] <= 2048
    assert 50_000 <= sizes[-1] <= 60 * 1024
    assert FILE.stat().st_size <= 4 << 20
    assert Counter(m.tenant for m in messages) == {
        tenant: sum(count for count, _ in types.values()) for tenant, types in MIX.items()
    }


@pytest.mark.parametrize(
    ("wanted", "event_type", "expected"),
    [
        (None, "room.ended", True),
        (("room.ended",), "room.ended", True),
        (("room.ended",), "room.ended.late", False),
        (("room.*",), "room.ended", True),
        (("room.*",), "room", False),
        (("room.*",), "room.", False),
        (("room.*",), "rooms.ended", False),
        (("a.room.*",), "room.ended", False),
        (("room.*", "x"), "x", True),
        ((), "room.ended", False),
    ],
)
def test_a_subscription_covers_its_types(
    wanted: tuple[str, ...] | None, event_type: str, expected: bool
) -> None:
    """A list names types, `room.*` every type below it, None all of them."""
    subscriber = Subscriber("one", "t", "standard", wanted)
    assert subscribes(subscriber, message("t", event_type)) is expected
    assert not subscribes(subscriber, message("another", event_type))


def test_the_demo_covers_every_case() -> None:
    """Slow sees at most 100 events, gone more than its cap, and everybody something."""
    messages = list(read_messages())
    counts = {one.name: len(should_see(one, messages)) for one in SUBSCRIBERS}
    assert 1 <= counts["slow"] <= 100
    assert counts["gone"] > 64
    assert min(counts.values()) > 0
    assert sum(counts.values()) == 4450


def test_what_meeting_baas_receivers_see_is_what_javascript_prints() -> None:
    """Numbers and keys as JSON.stringify has them, the wire name last in a completed meeting's data."""
    sent = message("meetingbaas", "meeting.completed", b'{"x": 2.0, "7": 1e21, "bot_id": "b"}')
    should = should_see(BY_NAME["meetingbaas"], [sent])
    body = b'{"7":1e+21,"x":2,"bot_id":"b","event":"complete"}'
    assert should == {"m0": Expected("complete", digest(body))}


BOOKS = [
    ("bedrud", [entry(0), entry(1), entry(2)], 0, ()),
    ("bedrud", [entry(0), entry(1)], 0, ("1 messages are missing",)),
    ("bedrud", [entry(0), entry(1), entry(2), entry(1, ordinal=2)], 1, ()),
    ("bedrud", [entry(0), entry(1), entry(2, status=503)], 0, ("1 messages are missing",)),
    ("bedrud", [entry(0), entry(1), entry(2, fault="forged")], 0, ("1 requests: forged",)),
    ("flaky", [entry(n, status=s) for n in range(3) for s in (503, 200)], 0, ()),
    ("gone", [entry(1, status=410)], 0, ()),
    ("gone", [], 0, ("saw 0 messages, not 1 to 64",)),
    ("refusing", [], 0, ()),
    ("refusing", [entry(0)], 0, ("1 requests where nothing listens",)),
]


@pytest.mark.parametrize(("name", "book", "duplicates", "faults"), BOOKS)
def test_a_book_is_judged(name: str, book: list[Entry], duplicates: int, faults: tuple[str, ...]) -> None:
    """Everything it should have and nothing else; duplicates are counted and are no fault."""
    verdict = judge(BY_NAME[name], SHOULD, book)
    assert (verdict.faults, verdict.duplicates, verdict.requests) == (faults, duplicates, len(book))


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (replace(entry(0), message_id="m9"), "a message that is not for this receiver"),
        (replace(entry(0), event_type="room.made"), "room.ended arrived as room.made"),
        (replace(entry(0), digest=digest(b"other")), "the payload is not what was published"),
    ],
)
def test_a_request_that_should_not_be_is_a_fault(wrong: Entry, fault: str) -> None:
    """Another's message, another type or another payload spoils the verdict."""
    book = [entry(0), entry(1), entry(2), wrong]
    assert judge(BY_NAME["bedrud"], SHOULD, book).faults == (f"1 requests: {fault}",)


@pytest.mark.parametrize(
    ("name", "tally", "faults"),
    [
        ("bedrud", Tally(delivered=100, attempts=100), []),
        ("bedrud", Tally(delivered=99, pending=1), ["99 delivered, not 100", "1 pending, not 0"]),
        ("refusing", Tally(failed=100, attempts=400), []),
        ("refusing", Tally(failed=100, attempts=15), []),
        ("refusing", Tally(failed=99, pending=1, attempts=15), ["99 failed, not 100", "1 pending, not 0"]),
        ("refusing", Tally(failed=100, attempts=401), ["401 attempts, not 1 to 400"]),
        ("gone", Tally(failed=3, skipped=97), []),
        ("gone", Tally(failed=65, skipped=35), ["65 failed, not 1 to 64"]),
        ("gone", Tally(failed=3, skipped=96), ["99 total, not 100"]),
    ],
)
def test_the_history_must_agree_with_the_receiver(name: str, tally: Tally, faults: list[str]) -> None:
    """Delivered where it answers well, failed where nothing listens, skipped after a 410."""
    assert count_faults(BY_NAME[name], 100, tally) == faults


def test_the_closing_line_adds_up() -> None:
    """What is in no state is unaccounted, and said so."""
    tallies = [Tally(delivered=5, failed=1), Tally(skipped=2, pending=1)]
    line = "accounted: 10 deliveries = 5 delivered + 1 failed + 2 skipped + 1 pending, 1 unaccounted"
    assert closing_line(10, tallies) == (line, 1)
