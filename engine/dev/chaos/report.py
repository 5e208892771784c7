"""The chaos test's report, in lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from engine.dev.chaos.books import SECOND, Published, Request, Verdict
from engine.dev.chaos.cast import message_id
from engine.dev.chaos.troubles import Kill, Outage


@dataclass(frozen=True, slots=True)
class Result:
    """All that a run has found; `faults` are those of no single endpoint."""

    published: Published
    kills: Sequence[Kill]
    outages: Sequence[Outage]
    verdicts: Sequence[Verdict]
    healthy: Sequence[Request]
    quiet_s: float
    faults: Sequence[str]
    forked_records: int

    @property
    def ok(self) -> bool:
        """Whether everything agrees."""
        return not self.faults and not any(verdict.faults for verdict in self.verdicts)


def recovery_s(kill_at: int, healthy: Sequence[Request], published_at: Mapping[str, int]) -> float:
    """Seconds from a kill until the healthy receiver got a message published after it; 0 if none came."""
    arrived = [r.arrived for r in healthy if published_at.get(r.message, 0) >= kill_at]
    # a message may arrive before its acknowledgement does
    return max(min(arrived) - kill_at, 0) / SECOND if arrived else 0.0


def in_flight(kill: Kill, books: Mapping[str, Sequence[Request]]) -> int:
    """Requests that the receivers were still answering when the kill came."""
    return sum(
        r.arrived <= kill.at and (not r.answered or r.answered > kill.at)
        for book in books.values()
        for r in book
    )


def duplicates(verdicts: Sequence[Verdict]) -> Counter[str]:
    """Requests made again, by what explains them."""
    return Counter(cause or "nothing" for verdict in verdicts for cause, _ in verdict.lost)


def lines(result: Result, books: Mapping[str, Sequence[Request]]) -> Iterator[str]:
    """The report."""
    yield from _kill_lines(result, books)
    yield ""
    yield _row("endpoint", "expected", "requests", "delivered", "failed", "skipped", "copies")
    for v in result.verdicts:
        yield _row(v.name, v.expected, v.requests, v.delivered, v.failed, v.skipped, v.copies)
    yield ""
    yield from _sums(result, books)
    yield from _faults(result)


def _row(name: str, *columns: str | int) -> str:
    return f"{name:10}" + "".join(f"{column:>10}" for column in columns)


def _kill_lines(result: Result, books: Mapping[str, Sequence[Request]]) -> Iterator[str]:
    again, published = duplicates(result.verdicts), _published_at(result)
    yield f"{'kill':16}{'ready':>6}{'load':>6}{'in flight':>10}{'repeated':>9}{'recovered':>11}"
    for number, kill in enumerate(result.kills, 1):
        ready = "yes" if kill.was_ready else "-"
        repeated, recovered = again.get(f"kill {number}", 0), recovery_s(kill.at, result.healthy, published)
        flying = in_flight(kill, books)
        load = "yes" if kill.requests else "-"
        yield f"{number:>3} {kill.name:12}{ready:>6}{load:>6}{flying:>10}{repeated:>9}{recovered:>9.1f} s"
    for outage in result.outages:
        yield f"    {outage.name:12} away or frozen for {(outage.end - outage.begin) / SECOND:.1f} s"


def _published_at(result: Result) -> dict[str, int]:
    run = result.published.run
    return {message_id(run, number): at for number, at in result.published.acknowledged.items()}


def earliest_ms(result: Result) -> float:
    """Milliseconds before a kill at which the oldest request that it repeated had been answered."""
    kills = {f"kill {number}": kill.at for number, kill in enumerate(result.kills, 1)}
    lost = [each for verdict in result.verdicts for each in verdict.lost]
    ages = [kills[cause] - r.answered for cause, r in lost if cause in kills and r.answered]
    return max([0, *ages]) / 1e6


def _flights(result: Result, books: Mapping[str, Sequence[Request]]) -> int:
    return sum(in_flight(kill, books) for kill in result.kills if kill.name.startswith("dispatcher"))


def _sums(result: Result, books: Mapping[str, Sequence[Request]]) -> Iterator[str]:
    again = duplicates(result.verdicts)
    by_kills = {name: count for name, count in again.items() if name.startswith("kill ")}
    published = _published_at(result)
    slowest = max((recovery_s(kill.at, result.healthy, published) for kill in result.kills), default=0.0)
    groups = Counter(kill.name.partition(".")[0] for kill in result.kills)
    acknowledged, verdicts = len(result.published.acknowledged), result.verdicts
    yield f"published {result.published.count}, acknowledged by the broker {acknowledged}"
    yield f"received {sum(v.requests for v in verdicts)} requests"
    yield f"kills {len(result.kills)}: {', '.join(f'{n} {c}' for n, c in sorted(groups.items()))}"
    yield (
        f"repeated {again.total()} requests: {sum(by_kills.values())} after {groups['dispatcher']} kills of"
        f" dispatchers (at most {max(by_kills.values(), default=0)} after one),"
        f" {again.total() - sum(by_kills.values())} after freezes and outages;"
        f" {sum(v.copies for v in verdicts)} records of an attempt twice,"
        f" {sum(v.resent for v in verdicts)} resent on a connection that died,"
        f" {result.forked_records} retries scheduled twice"
    )
    yield (
        f"of the requests repeated after kills the earliest was answered {earliest_ms(result):.0f} ms before"
        f" its kill; in flight at kills of dispatchers: {_flights(result, books)}"
    )
    yield f"slowest recovery {slowest:.1f} s; quiet {result.quiet_s:.1f} s after the last message"


def _faults(result: Result) -> Iterator[str]:
    for fault in result.faults:
        yield f"WRONG {fault}"
    for verdict in result.verdicts:
        for kind, count in verdict.faults.items():
            yield f"WRONG {verdict.name}: {count} x {kind}, such as {', '.join(verdict.shown[kind])}"
