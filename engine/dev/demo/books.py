"""What every receiver should have seen, worked out from the input file, and whether it did.

Shares nothing with the product: the matching, the bodies and the counts here are its own.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.dev.demo import javascript
from engine.dev.demo.events import Message
from engine.dev.demo.subscribers import IN_FLIGHT_CAP, RETRY_POLICY, Subscriber

_WIRE_NAMES = {
    "meeting.completed": "complete",
    "meeting.failed": "failed",
    "transcription.available": "transcription_complete",
}
Should = Mapping[str, "Expected"]
"""What a receiver should see, by message id."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a message must look like at a receiver; `digest` is of the payload inside the body."""

    event_type: str
    digest: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One request in a receiver's book; `ordinal` counts the requests of a message from 1."""

    message_id: str
    event_type: str
    ordinal: int
    status: int
    digest: str
    at_ns: int
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """What the history says about one endpoint."""

    delivered: int = 0
    failed: int = 0
    skipped: int = 0
    pending: int = 0
    attempts: int = 0

    @property
    def total(self) -> int:
        """Deliveries that the history knows."""
        return self.delivered + self.failed + self.skipped + self.pending


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one receiver's book compares with what it should say."""

    name: str
    expected: int
    seen: int
    requests: int
    duplicates: int
    faults: tuple[str, ...]


def subscribes(subscriber: Subscriber, message: Message) -> bool:
    """Whether the message is for this receiver."""
    if message.tenant != subscriber.tenant:
        return False
    if subscriber.event_types is None:
        return True
    return any(_covers(wanted, message.event_type) for wanted in subscriber.event_types)


def _covers(wanted: str, event_type: str) -> bool:
    if wanted.endswith(".*"):
        family, dot, rest = event_type.partition(wanted[:-1])
        return family == "" and dot != "" and rest != ""
    return wanted == event_type


def digest(data: bytes) -> str:
    """How books name a payload."""
    return hashlib.sha256(data).hexdigest()


def _expected(profile: str, message: Message) -> Expected:
    if profile != "meetingbaas":
        return Expected(message.event_type, digest(message.payload))
    wire_name = _WIRE_NAMES.get(message.event_type, message.event_type)
    data = javascript.parse(message.payload)
    if message.event_type == "meeting.completed":
        data["event"] = wire_name
    return Expected(wire_name, digest(javascript.stringify(data).encode()))


def should_see(subscriber: Subscriber, messages: Iterable[Message]) -> dict[str, Expected]:
    """Every message that is for this receiver, and what it must look like there."""
    return {m.id: _expected(subscriber.profile, m) for m in messages if subscribes(subscriber, m)}


def judge(subscriber: Subscriber, should: Should, book: Sequence[Entry]) -> Verdict:
    """Compare a receiver's book with what it should say."""
    seen = {entry.message_id for entry in book}
    faults = [*_entry_faults(should, book), *_coverage_faults(subscriber, should, book)]
    return Verdict(subscriber.name, len(should), len(seen), len(book), _duplicates(book), tuple(faults))


def _is_final(entry: Entry) -> bool:
    return 200 <= entry.status < 300 or entry.status == 410


def _duplicates(book: Sequence[Entry]) -> int:
    """Requests for a message that had had its final answer."""
    final = Counter(entry.message_id for entry in book if _is_final(entry))
    return final.total() - len(final)


def _entry_faults(should: Should, book: Sequence[Entry]) -> list[str]:
    kinds = Counter(fault for entry in book if (fault := _fault(should, entry)))
    return [f"{count} requests: {fault}" for fault, count in kinds.items()]


def _fault(should: Should, entry: Entry) -> str:
    if entry.fault:
        return entry.fault
    expected = should.get(entry.message_id)
    if expected is None:
        return "a message that is not for this receiver"
    if entry.event_type != expected.event_type:
        return f"{expected.event_type} arrived as {entry.event_type}"
    return "" if entry.digest == expected.digest else "the payload is not what was published"


def _coverage_faults(subscriber: Subscriber, should: Should, book: Sequence[Entry]) -> list[str]:
    if subscriber.status == 0:
        return [f"{len(book)} requests where nothing listens"] if book else []
    seen = {entry.message_id for entry in book if _is_final(entry)}
    if not subscriber.succeeds:
        in_range = 1 <= len(seen) <= IN_FLIGHT_CAP
        return [] if in_range else [f"saw {len(seen)} messages, not 1 to {IN_FLIGHT_CAP}"]
    missing = len(should.keys() - seen)
    return [f"{missing} messages are missing"] if missing else []


def count_faults(subscriber: Subscriber, expected: int, tally: Tally) -> list[str]:
    """Compare what the history counts for an endpoint with how its receiver behaves."""
    if subscriber.succeeds:
        return _differences(tally, delivered=expected, failed=0, skipped=0, pending=0)
    if subscriber.status == 0:
        faults = _differences(tally, delivered=0, failed=expected, skipped=0, pending=0)
        most = expected * (len(RETRY_POLICY) + 1)
        if not 1 <= tally.attempts <= most:
            faults.append(f"{tally.attempts} attempts, not 1 to {most}")
        return faults
    faults = _differences(tally, delivered=0, pending=0, total=expected)
    if not 1 <= tally.failed <= IN_FLIGHT_CAP:
        faults.append(f"{tally.failed} failed, not 1 to {IN_FLIGHT_CAP}")
    return faults


def _differences(tally: Tally, **wanted: int) -> list[str]:
    return [
        f"{getattr(tally, name)} {name}, not {count}"
        for name, count in wanted.items()
        if getattr(tally, name) != count
    ]


def closing_line(expected: int, tallies: Iterable[Tally]) -> tuple[str, int]:
    """The sum over all endpoints, and how many deliveries nobody knows about."""
    rows = list(tallies)
    d, f, s, p = (
        sum(getattr(row, name) for row in rows) for name in ("delivered", "failed", "skipped", "pending")
    )
    unaccounted = expected - (d + f + s + p)
    line = f"accounted: {expected} deliveries = {d} delivered + {f} failed + {s} skipped + {p} pending"
    return f"{line}, {unaccounted} unaccounted", unaccounted
