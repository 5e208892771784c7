"""The product with one of the three rules of docs/design.md broken: each mutant must turn the chaos test red.

`python -m engine.dev.chaos.mutants NAME GROUP` breaks the rule in this process and then does what
`hooklog run GROUP` does. The product has no switch for any of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any

from consumers.main import run
from engine.dev.chaos.plan import Step, repeated, scaled
from engine.ports import Output, Record, TopicPartition
from engine.runtime import owned, processor, progress
from engine.runtime.settings import load_settings
from engine.runtime.topics import tier_topic
from schemas import headers

Break = Callable[[], None]


class StaleMutantError(RuntimeError):
    """What a mutant breaks is not there any more: bring the mutant up to date."""


def _replace(owner: type, name: str, new: Callable[..., Any]) -> Callable[..., Any]:
    """Replace a method by one with the same parameters; the old one."""
    old = owner.__dict__.get(name)
    if old is None or list(signature(old).parameters) != list(signature(new).parameters):
        raise StaleMutantError(f"{owner.__name__}.{name} is not what engine/dev/chaos/mutants.py expects")
    setattr(owner, name, new)
    found: Callable[..., Any] = old
    return found


def commit_early() -> None:
    """Commit before acknowledgement: an input counts as done as soon as its work has begun."""

    def begin(self: owned.Input) -> bool:
        self.done = old(self)
        return self.done

    old = _replace(owned.Input, "begin", begin)


def no_read_back() -> None:
    """A new owner does not look for outputs of inputs above the commit."""

    def _recognise(
        self: progress.Progress, new: Mapping[TopicPartition, owned.Owned], output: Record
    ) -> None:
        self.acknowledged((output.topic, output.partition), output.offset)

    _replace(progress.Progress, "_recognise", _recognise)


def commit_highest() -> None:
    """Commit the highest offset seen, whatever is still open below it."""

    def committable(self: owned.Owned, ends: Mapping[TopicPartition, int]) -> tuple[int, owned.Positions]:
        return self.next, self.positions(self.next, ends)

    _replace(owned.Owned, "committable", committable)


def ignore_revoke() -> None:
    """Drain nothing, commit nothing, and go on as if the partitions were still ours."""

    def revoked(self: progress.Progress, partitions: Sequence[TopicPartition]) -> None:
        pass

    _replace(progress.Progress, "revoked", revoked)


def two_records() -> None:
    """Outcome and decision are two records: the retry is written by itself, with the next commit."""
    undecided: list[tuple[processor.Processor, owned.Input, Output]] = []

    def finish(self: processor.Processor, taken: owned.Input, output: Output) -> None:
        if output.topic == "attempts" and output.headers.get(headers.DECISION) == b"retry":
            outcome = output._replace(headers={**output.headers, headers.DECISION: b"delivered"})
            decision = _as_retry(output)
            self.send(outcome, lambda: undecided.append((self, taken, decision)))
        else:
            old(self, taken, output)

    def commit(self: progress.Progress, **how: Any) -> None:
        for each, taken, decision in undecided:
            each.send(decision, partial(processor.settle, taken))
        undecided.clear()
        old_commit(self, **how)

    old = _replace(processor.Processor, "finish", finish)
    old_commit = progress.Progress.commit
    setattr(progress.Progress, "commit", commit)  # noqa: B010


def _as_retry(output: Output) -> Output:
    """The record that the scheduler would make of a decision."""
    found = output.headers
    kept = {
        headers.CAUSE: found[headers.CAUSE],
        headers.DELIVERY: found[headers.DELIVERY],
        headers.ATTEMPT: b"%d" % (int(found[headers.ATTEMPT]) + 1),
        headers.DUE: found[headers.DUE],
    }
    value = (output.value or b"")[-int(found[headers.LENGTH]) :]
    return Output(tier_topic(1_000_000), output.partition, output.key, value, kept)


GROUP = "dispatcher"
_KILLS = repeated(GROUP, 6, 4.0)
MUTANTS: Mapping[str, tuple[Break, Sequence[Step]]] = {
    "commit-before-acknowledgement": (commit_early, _KILLS),
    "no-read-back": (no_read_back, _KILLS),
    "commit-the-highest-seen": (commit_highest, _KILLS),
    "revoke-ignored": (ignore_revoke, scaled(GROUP, (2, 1, 2, 1), 6.0)),
    "two-records-an-attempt": (two_records, _KILLS),
}
"""What each breaks, and the plan that shows it."""


def entry(name: str, group: str) -> tuple[str, ...]:
    """The command that runs a group with a mutant."""
    return (sys.executable, "-m", "engine.dev.chaos.mutants", name, group)


def main() -> int:
    """Break the rule, run the group."""
    name, group = sys.argv[1:]
    MUTANTS[name][0]()
    return run([group], load_settings())


if __name__ == "__main__":
    raise SystemExit(main())
