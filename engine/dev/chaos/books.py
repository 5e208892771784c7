"""Whether what the receivers saw, what was published and what the log says agree.

Shares nothing with the product: the matching and the counts here are its own.
Times are Unix nanoseconds.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from engine.dev.chaos.cast import RETRY_POLICY, Subscriber, message_id, number_of

SECOND = 1_000_000_000
SETTLED_NS = 45 * SECOND
"""So long after its creation an endpoint must get everything, whatever froze meanwhile."""
UNACKNOWLEDGED_NS = 5 * SECOND
"""An attempt that ended longer before the kill has its record on the log, on the slowest machine too."""
OVERLAP_NS = 20 * SECOND
"""After a freeze or an outage, the old and the new owner may both be at work for so long."""
_SHOWN = 5
_SKEW_NS = 2_000_000
_ON_ITS_WAY_NS = SECOND // 2
"""What was written before the kill may be read so much later; nobody restarts in that time."""
_UNREACHED = ("connect", "dns", "blocked", "tls", "timeout")
_CUT_SHORT = frozenset({"gone", "circuit_open", "expired"})


class Request(NamedTuple):
    """One line of a receiver's book; `answered` is 0 while the receiver was still at it."""

    message: str
    arrived: int
    answered: int
    status: int
    fault: str

    @property
    def is_well(self) -> bool:
        """Answered as a delivery wants it."""
        return 200 <= self.status < 300


class Made(Protocol):
    """What is asked of an attempt's record."""

    @property
    def number(self) -> int: ...  # noqa: D102
    @property
    def decision(self) -> str: ...  # noqa: D102
    @property
    def reason(self) -> str: ...  # noqa: D102
    @property
    def outcome(self) -> str: ...  # noqa: D102
    @property
    def error_class(self) -> str: ...  # noqa: D102
    @property
    def started(self) -> int: ...  # noqa: D102
    @property
    def ended(self) -> int: ...  # noqa: D102
    @property
    def cause(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that may repeat requests: a kill, or a freeze or an outage, which two owners may outlive."""

    name: str
    begin: int
    end: int
    overlaps: bool = False

    def excuses(self, request: Request) -> bool:
        """Whether a record of this request may have been lost by it."""
        ended = request.answered or self.end
        return request.arrived <= self.end + _ON_ITS_WAY_NS and ended >= self.begin - UNACKNOWLEDGED_NS

    def excuses_copy(self, made: Made) -> bool:
        """Whether two owners may both have made this attempt."""
        return self.overlaps and self.begin - SECOND <= made.ended <= self.end + OVERLAP_NS


@dataclass(frozen=True, slots=True)
class Published:
    """What the publisher handed over (`count`) and what the broker acknowledged, by number."""

    run: str
    count: int
    acknowledged: Mapping[int, int]


@dataclass(slots=True)
class Verdict:
    """One endpoint's: counts, and what is wrong, by kind."""

    name: str
    expected: int = 0
    delivered: int = 0
    failed: int = 0
    skipped: int = 0
    requests: int = 0
    copies: int = 0
    """Records of one attempt after the first."""
    resent: int = 0
    """Requests repeated inside one attempt, because a kept connection died."""
    lost: list[tuple[str, Request]] = field(default_factory=list)
    """(what explains it, request): requests whose record was lost, so that they were made again."""
    faults: Counter[str] = field(default_factory=Counter)
    shown: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def wrong(self, kind: str, message: str) -> None:
        """Note a fault, with the first messages it is about."""
        self.faults[kind] += 1
        if len(self.shown[kind]) < _SHOWN:
            self.shown[kind].append(message)


Attempts = Mapping[str, Sequence[Made]]
"""All records of attempts of one endpoint by message, copies too, in the order of the log."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """All that is known of one endpoint; `passed_over` are messages that the router skipped."""

    subscriber: Subscriber
    created: int
    requests: Sequence[Request]
    attempts: Attempts
    passed_over: frozenset[str] = frozenset()


def judge(endpoint: Endpoint, published: Published, troubles: Sequence[Trouble] = ()) -> Verdict:
    """Compare one receiver's book with what was published and what the log says."""
    subscriber = endpoint.subscriber
    verdict = Verdict(subscriber.name)
    book = _by_message(verdict, published, subscriber, endpoint.requests)
    must = _must_see(subscriber, endpoint.created, published)
    verdict.expected = len(must)
    for message in sorted(must | book.keys() | endpoint.attempts.keys()):
        seen, made = book.get(message, []), endpoint.attempts.get(message, [])
        if made:
            _judge_history(verdict, message, made)
            _judge_end(verdict, subscriber, message, made, seen)
            left = _pair(verdict, message, made, seen)
            _judge_copies(verdict, message, made, troubles)
            _judge_repeats(verdict, message, left, troubles)
        elif message in endpoint.passed_over and "skipped" in subscriber.may_end:
            verdict.skipped += 1
        elif message in must:
            verdict.wrong("never attempted", message)
        elif seen:
            verdict.wrong("received, and no attempt is on the log", message)
    return verdict


def _must_see(subscriber: Subscriber, created: int, published: Published) -> set[str]:
    since = created + SETTLED_NS if subscriber.is_late else 0
    return {
        message_id(published.run, number)
        for number, at in published.acknowledged.items()
        if subscriber.wants(number) and at >= since
    }


def _by_message(
    verdict: Verdict, published: Published, subscriber: Subscriber, requests: Iterable[Request]
) -> dict[str, list[Request]]:
    book: dict[str, list[Request]] = defaultdict(list)
    for request in requests:
        verdict.requests += 1
        number = number_of(published.run, request.message)
        if number is None or number >= published.count:
            verdict.wrong("received, and never published", request.message)
        elif not subscriber.wants(number):
            verdict.wrong("received, and not subscribed", request.message)
        elif request.fault:
            verdict.wrong(request.fault, request.message)
        book[request.message].append(request)
    for seen in book.values():
        seen.sort(key=lambda request: request.arrived)
    return book


def firsts(made: Sequence[Made]) -> list[Made]:
    """The records that count: of each number the first on the log."""
    found: dict[int, Made] = {}
    for one in made:
        found.setdefault(one.number, one)
    return list(found.values())


def _judge_history(verdict: Verdict, message: str, made: Sequence[Made]) -> None:
    """Numbers follow each other, nothing follows the end, no number has two causes."""
    counted = firsts(made)
    if [one.number for one in counted] != list(range(1, len(counted) + 1)):
        verdict.wrong("attempts out of order", message)
    if any(one.decision != "retry" for one in counted[:-1]):
        verdict.wrong("contradiction: attempted again after its end", message)
    causes = {(one.number, one.cause) for one in made}
    if len(causes) > len(counted):
        verdict.wrong("a retry was forked: one attempt made for two records", message)


def _judge_end(
    verdict: Verdict, subscriber: Subscriber, message: str, made: Sequence[Made], seen: Sequence[Request]
) -> None:
    last = firsts(made)[-1]
    if last.decision == "retry":
        verdict.wrong(f"forgotten: attempt {last.number + 1} was never made", message)
        return
    name = last.decision
    setattr(verdict, name, getattr(verdict, name) + 1)
    if name not in subscriber.may_end:
        verdict.wrong(f"ended {name} ({last.reason})", message)
    if name == "delivered" and not any(request.is_well for request in seen):
        verdict.wrong("delivered, says the log, and the receiver never answered well", message)
    used_up = last.number == len(RETRY_POLICY) + 1
    if name == "failed" and not used_up and last.reason not in _CUT_SHORT:
        verdict.wrong(f"failed ({last.reason}) with attempts left", message)


def _pair(verdict: Verdict, message: str, made: Sequence[Made], seen: Sequence[Request]) -> list[Request]:
    """Pair attempts with the requests they are about; the requests that are left over.

    Who ended first chooses first: the attempt of a frozen owner spans those of the next one.
    """
    left = list(seen)
    for one in sorted((each for each in made if each.outcome != "none"), key=lambda each: each.ended):
        paired = [r for r in left if one.started - _SKEW_NS <= r.arrived <= one.ended + _SKEW_NS]
        if paired:
            left.remove(paired[0])
            verdict.resent += _resent(left, paired)
        elif one.error_class not in _UNREACHED:
            verdict.wrong("attempted, says the log, and the receiver did not see it", message)
    return left


def _judge_copies(verdict: Verdict, message: str, made: Sequence[Made], troubles: Sequence[Trouble]) -> None:
    """One attempt has one record, unless two owners were at work for a moment."""
    numbers: set[int] = set()
    for one in made:
        if one.number in numbers:
            verdict.copies += 1
            if not any(trouble.excuses_copy(one) for trouble in troubles):
                verdict.wrong("attempted twice, and nothing explains it", message)
        numbers.add(one.number)


def _judge_repeats(
    verdict: Verdict, message: str, left: Sequence[Request], troubles: Sequence[Trouble]
) -> None:
    """A request that no record is about was repeated, and something must explain it."""
    for request in left:
        cause = next((trouble.name for trouble in troubles if trouble.excuses(request)), "")
        verdict.lost.append((cause, request))
        if not cause:
            verdict.wrong("repeated although its record was long on the log", message)


def _resent(left: list[Request], paired: Sequence[Request]) -> int:
    """Requests of the same attempt after one that the receiver cut off: taken out of what is left."""
    again = paired[1:] if paired[0].status == 0 else []
    for request in again:
        left.remove(request)
    return len(again)
