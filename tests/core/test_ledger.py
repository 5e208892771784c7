"""The continuous accounting: what is pending, what is covered, which minutes agree."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.accounting import Range
from engine.core.ledger import Attempted, Books, Ledger, Pending, key_of, split
from engine.core.minutes import Agreement, Found, Minute
from engine.core.model import RoutedBatch, Routing, Skipped
from engine.core.routing import delivery_id
from engine.core.tiling import Tiling

TOPIC = "hooklog.messages"
SECOND = 1_000_000
NOW = 1_760_000_000 * SECOND
DUE = NOW + 30 * SECOND
KEY = key_of(delivery_id(TOPIC, 0, 7, "ep1"))


def ended(number: int, key: bytes = KEY, at: int = NOW) -> Attempted:
    """An attempt after which nothing follows."""
    return Attempted(key, "ep1", number, 0, at)


def retried(number: int, key: bytes = KEY) -> Attempted:
    """An attempt after which a retry follows."""
    return Attempted(key, "ep1", number, DUE, NOW)


def everything(ledger: Ledger) -> list[Pending]:
    """All that is pending."""
    return ledger.overdue(1 << 60)


def fold(*facts: Attempted | str) -> Ledger:
    """Fold attempts, and `matched` where the RoutedBatch comes."""
    ledger = Ledger()
    for fact in facts:
        if isinstance(fact, Attempted):
            ledger.attempted(fact)
        else:
            ledger.matched(KEY, "ep1", NOW)
    return ledger


@pytest.mark.parametrize(
    ("facts", "awaited", "due"),
    [
        (["matched"], 1, NOW),
        (["matched", retried(1)], 2, DUE),
        ([retried(1), "matched"], 2, DUE),
        (["matched", retried(1), retried(1)], 2, DUE),
        (["matched", retried(1), ended(1)], 2, DUE),
        (["matched", retried(1), retried(2)], 3, DUE),
        ([retried(3)], 4, DUE),
    ],
)
def test_what_is_pending_awaits_its_next_attempt(
    facts: list[Attempted | str], awaited: int, due: int
) -> None:
    """The first record of each attempt counts, in whatever order batch and attempts are read."""
    assert everything(fold(*facts)) == [Pending(KEY, "ep1", awaited, due)]


@pytest.mark.parametrize(
    "facts",
    [
        ["matched", ended(1)],
        [ended(1), "matched"],
        [retried(1), ended(2), "matched"],
        ["matched", retried(1), ended(2), retried(1), retried(2)],
        ["matched", ended(1), retried(1)],
        [ended(4)],
    ],
)
def test_what_has_ended_is_not_pending(facts: list[Attempted | str]) -> None:
    """Copies of earlier records, and a batch that comes last, bring nothing back."""
    ledger = fold(*facts)
    assert everything(ledger) == []
    assert not ledger.contradictions


@pytest.mark.parametrize("facts", [["matched", ended(2)], ["matched", ended(1), retried(2)]])
def test_an_attempt_that_cannot_be_is_told(facts: list[Attempted | str]) -> None:
    """One was left out, or one came after the end."""
    ledger = fold(*facts)
    assert [pending.key for _, pending in ledger.contradictions] == [KEY]
    assert everything(ledger) == []


def test_known_deliveries_go_on_from_their_number() -> None:
    """What was pending before the fold began ends with the attempt that it awaited."""
    ledger = Ledger()
    ledger.known(Pending(KEY, "ep1", 3, DUE))
    ledger.attempted(retried(2))
    assert everything(ledger) == [Pending(KEY, "ep1", 3, DUE)]
    ledger.attempted(ended(3))
    ledger.matched(KEY, "ep1", NOW)
    assert everything(ledger) == []


def test_what_ended_early_is_kept_until_its_message_is_routed() -> None:
    """However late the batch, it finds what ended; only when all are routed by then is it forgotten."""
    ledger = fold(ended(1))
    ledger.settle(NOW, 0)
    ledger.matched(KEY, "ep1", NOW)
    assert everything(ledger) == []
    ledger = fold(ended(1))
    ledger.settle(NOW + 1, 0)
    ledger.matched(KEY, "ep1", NOW)
    assert len(everything(ledger)) == 1


def test_overdue_is_by_due_time_and_parked_lanes_are_excused() -> None:
    """Due before the limit; of a lane that is parked, or was until just now, nothing is late."""
    ledger = Ledger()
    keys = [key_of(f"dlv_{n:024x}") for n in range(4)]
    for n, key in enumerate(keys):
        ledger.matched(key, f"ep{n}", NOW + n * SECOND)
    assert [p.endpoint for p in ledger.overdue(NOW + 2 * SECOND)] == ["ep0", "ep1"]
    late, parked = split(ledger.overdue(NOW + 9 * SECOND), {"ep0": 1 << 62, "ep1": NOW, "ep2": NOW + 1}, NOW)
    assert ([p.endpoint for p in late], parked) == (["ep1", "ep3"], 2)


def test_contradictions_are_forgotten_after_a_while() -> None:
    """The figure comes back to zero when the window has passed."""
    ledger = fold("matched", ended(2))
    ledger.settle(0, NOW)
    assert len(ledger.contradictions) == 1
    ledger.settle(0, NOW + 1)
    assert len(ledger.contradictions) == 0


@pytest.mark.parametrize("text", ["dlv_" + "0a" * 12, "dlv_" + "zz" * 12, "other", "dlv_short"])
def test_a_key_is_twelve_bytes_whatever_the_id(text: str) -> None:
    """Ids of the router are spelled by their key, others hashed."""
    assert len(key_of(text)) == 12
    assert (f"dlv_{key_of(text).hex()}" == text) == (text == "dlv_" + "0a" * 12)


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[list[Attempted | bytes]], set[bytes]]:
    """Two topics' records in order, copies among them, and the keys that stay pending."""
    attempts: list[Attempted | bytes] = []
    batches: list[Attempted | bytes] = []
    pending = set()
    for number in range(draw(st.integers(0, 6))):
        key = bytes([number]) * 12
        batches.append(key)
        tries: list[Attempted | bytes] = [retried(n, key) for n in range(1, draw(st.integers(0, 4)) + 1)]
        if draw(st.booleans()):
            tries.append(ended(len(tries) + 1, key))
        else:
            pending.add(key)
        copies = draw(st.lists(st.sampled_from(tries), max_size=2)) if tries else []
        attempts += [*tries, *copies]
    return [batches, attempts], pending


@given(logs(), st.randoms())
def test_any_order_of_reading_leaves_the_same_pending(
    log: tuple[list[list[Attempted | bytes]], set[bytes]], random: Random
) -> None:
    """Topics are read at their own pace: what is pending at the end is what never ended."""
    topics, pending = [list(records) for records in log[0]], log[1]
    ledger = Ledger()
    while any(topics):
        record = random.choice([records for records in topics if records]).pop(0)
        if isinstance(record, Attempted):
            ledger.attempted(record)
        else:
            ledger.matched(record, "ep1", NOW)
    assert {each.key for each in everything(ledger)} == pending
    assert not ledger.contradictions


# -- what batches cover ------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), min_size=1, max_size=12))
def test_tiling_is_set_arithmetic(ranges: list[tuple[int, int]]) -> None:
    """Fresh is what was not covered; missing is what is left out below the highest offset."""
    tiling, covered = Tiling(0), set[int]()
    for first, more in ranges:
        offsets = set(range(first, first + more + 1))
        fresh = {o for r in tiling.cover(Range(first, first + more)) for o in range(r.first, r.last + 1)}
        assert fresh == offsets - covered
        covered |= offsets
        assert tiling.missing == len(set(range(max(covered) + 1)) - covered)
        assert tiling.frontier == max(covered) + 1


def test_the_first_batch_that_is_read_begins_the_tiling() -> None:
    """What came before the window is not missing."""
    tiling = Tiling()
    assert tiling.cover(Range(100, 109)) == [Range(100, 109)]
    assert (tiling.missing, tiling.frontier) == (0, 110)


def routed(*offsets: int, endpoints: tuple[str, ...] = ("ep1",)) -> RoutedBatch:
    """A batch of partition 0, one message an offset, all accepted in one minute."""
    passed = (Skipped("ep9", "disabled"),)
    routings = tuple(
        Routing(o, "acme", f"m{o}", "a", NOW, matched=endpoints, skipped=passed) for o in offsets
    )
    return RoutedBatch(0, offsets[0], offsets[-1], (), routings)


def test_a_copy_of_a_batch_counts_once() -> None:
    """Its deliveries were pending once; the minute's count is left to reconcile."""
    books = Books(TOPIC)
    books.routed(routed(0, 1), NOW + 5)
    assert books.minutes == {NOW // (60 * SECOND): Minute(4, NOW + 5)}
    books.ledger.attempted(ended(1, key_of(delivery_id(TOPIC, 0, 0, "ep1"))))
    books.routed(routed(0, 1, 2), NOW + 9)
    assert [p.key for p in everything(books.ledger)] == [
        key_of(delivery_id(TOPIC, 0, n, "ep1")) for n in (1, 2)
    ]
    assert books.minutes == {NOW // (60 * SECOND): Minute(6, NOW + 9, overlapped=True)}
    books.forget_before(NOW // (60 * SECOND) + 1)
    assert books.minutes == {}


def test_a_missing_batch_leaves_a_gap_that_a_late_one_fills() -> None:
    """And the deliveries of the late one are followed."""
    books = Books(TOPIC)
    books.routed(routed(0), NOW)
    books.routed(routed(2), NOW)
    assert books.tilings[0].gaps == [Range(1, 1)]
    books.routed(routed(1), NOW)
    assert (books.tilings[0].gaps, len(books.ledger), books.frontier(0)) == ([], 3, 3)


# -- which minutes agree -----------------------------------------------------------------


def judged(agreement: Agreement, minute: Minute, *found: Found) -> int:
    """Look at minute 5 once; how many differences that makes."""
    minutes = {5: minute}
    asked = agreement.open(minutes, range(5, 6), 1_000)
    agreement.judge(asked, minutes, {each.minute: each for each in found})
    return sum(agreement.differences.values())


@pytest.mark.parametrize(
    ("minute", "found", "differences"),
    [
        (Minute(3, 10), Found(5, 3, 4, 4), 0),
        (Minute(3, 10), Found(5, 2, 4, 4), 1),
        (Minute(3, 10), Found(5, 4, 4, 4), 1),
        (Minute(3, 10), Found(5, 3, 4, 2), 2),
        (Minute(3, 10), Found(5, 3, 4, 5), 1),
        (Minute(3, 10), None, 3),
        (Minute(0, 0), Found(5, 1, 0, 0), 1),
        (Minute(3, 10, overlapped=True), Found(5, 4, 4, 4), 0),
        (Minute(3, 10, overlapped=True), Found(5, 4, 4, 3), 1),
        (Minute(3, 1_000), Found(5, 2, 4, 4), 0),
    ],
)
def test_a_difference_counts_when_it_stays(minute: Minute, found: Found | None, differences: int) -> None:
    """Rows too many and too few; not what is seen once, nor what may not be projected yet."""
    agreement, rows = Agreement(), [] if found is None else [found]
    assert judged(agreement, minute, *rows) == 0
    assert judged(agreement, minute, *rows) == differences


def test_a_difference_goes_when_it_is_mended() -> None:
    """And one that changes from look to look is not counted: rows are on their way."""
    agreement, minute = Agreement(), Minute(3, 10)
    for rows, differences in ((2, 0), (2, 1), (3, 0), (1, 0), (2, 0), (2, 1)):
        agreement.again()
        assert judged(agreement, minute, Found(5, rows, 0, 0)) == differences


def test_what_agreed_is_asked_about_again_only_when_told_or_touched() -> None:
    """A minute is one cheap look until something is added to it."""
    agreement, minute = Agreement(), Minute(3, 10)
    judged(agreement, minute, Found(5, 3, 0, 0))
    assert agreement.open({5: minute}, range(5, 6), 1_000) == []
    assert agreement.open({5: Minute(4, 20)}, range(5, 6), 1_000) == [5]
    agreement.again()
    assert agreement.open({5: minute}, range(5, 6), 1_000) == [5]
    judged(agreement, minute)
    judged(agreement, minute)
    assert agreement.differences == {5: 3}
    assert agreement.open({}, range(6, 6), 1_000) == []
    assert agreement.differences == {}
