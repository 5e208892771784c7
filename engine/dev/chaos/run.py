"""One chaos run: a stack under load, a plan of trouble, and the verdict when all is quiet again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from engine.dev.chaos import mutants
from engine.dev.chaos.books import Endpoint, Published, Request, Verdict, judge
from engine.dev.chaos.cast import SUBSCRIBERS, TIERS, message_id
from engine.dev.chaos.customers import EARLY, Customers, changing, customers, lost_change
from engine.dev.chaos.facts import Attempt, Facts, LogFollower
from engine.dev.chaos.plan import Step
from engine.dev.chaos.report import Result, lines
from engine.dev.chaos.troubles import TroubleError, Troublemaker
from engine.dev.process import spawn, stop, tail
from engine.dev.stack import FREE_PORTS, Stack
from engine.dev.supervisor import SupervisorError

_PREFIX = "hooklog."
_STOP_S = 150.0
_STILL_S, _MUTANT_STILL_S = 45.0, 20.0
"""So long without a new record, and nothing more will come: longer than any retry or open circuit waits."""
_QUIET_S = 300.0
_RECONCILE_S = 90.0
_COMMAND_S = 60.0


class ChaosError(RuntimeError):
    """The run itself went wrong; the message says how."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to run; `mutant` breaks a rule in the dispatcher."""

    seed: int
    length_s: float
    rate: float
    plan: Sequence[Step]
    folder: Path | None = None
    mutant: str = ""


@dataclass(slots=True)
class Run:
    """What belongs to one run; `created` is when each endpoint was, Unix ns, `endpoints` their ids."""

    stack: Stack
    customers: Customers
    folder: Path
    name: str
    endpoints: dict[str, str] = field(default_factory=dict)
    created: dict[str, int] = field(default_factory=dict)

    def create(self, name: str) -> None:
        """Create the endpoint of a subscriber."""
        subscriber = next(one for one in SUBSCRIBERS if one.name == name)
        self.endpoints[name] = self.customers.create(subscriber)
        self.created[name] = time.time_ns()


def run_chaos(options: Options, say: Callable[[str], None]) -> bool:
    """Run it and print the report; whether everything agrees. The folder stays if it does not."""
    folder = _empty(options.folder)
    ok = _judged(options, folder, say)
    if ok and options.folder is None:
        shutil.rmtree(folder)
    elif not ok:
        say(f"kept for looking into: {folder} (logs of every process, ledger, broker, store)")
    return ok


def _judged(options: Options, folder: Path, say: Callable[[str], None]) -> bool:
    """Run and report; a stack that does not come back is red too, except a mutant's, which must be judged."""
    try:
        result, books = _run(options, folder, say)
    except (TroubleError, SupervisorError) as error:
        if options.mutant:
            raise
        say(f"WRONG {error}")
        return False
    for line in lines(result, books):
        say(line)
    return result.ok


def _empty(folder: Path | None) -> Path:
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="hooklog-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ChaosError(f"{folder} is not empty: a run starts from nothing, give it another folder")
    return folder


def _run(
    options: Options, folder: Path, say: Callable[[str], None]
) -> tuple[Result, Mapping[str, Sequence[Request]]]:
    group = mutants.GROUP
    entries = {group: mutants.entry(options.mutant, group)} if options.mutant else {}
    with (
        Stack(folder / "stack", FREE_PORTS, {"HOOKLOG_TIERS": TIERS}, say, entries) as stack,
        customers(stack.api, stack.key, folder) as people,
    ):
        run = Run(stack, people, folder, f"c{options.seed:x}")
        for subscriber in EARLY:
            run.create(subscriber.name)
        return _under_load(options, run, say)


def _under_load(
    options: Options, run: Run, say: Callable[[str], None]
) -> tuple[Result, Mapping[str, Sequence[Request]]]:
    people = run.customers
    maker = Troublemaker(run.stack, people.set_mode, run.create, people.count, say, Random(options.seed))  # noqa: S311
    with changing(people, run.endpoints["changing"]) as changes, _publishing(run, options) as publisher:
        start = time.monotonic()
        late = maker.carry_out(options.plan, start, lambda: _check(publisher, run))
        _wait(start + options.length_s + late, lambda: _check(publisher, run))
    published = read_ledger(run)
    say(f"{published.count} messages published; waiting until all is quiet")
    run.stack.wait_ready()
    began = time.monotonic()
    with LogFollower(run.stack.kafka, _PREFIX) as log:
        follow_to_the_end(log, run, published, _MUTANT_STILL_S if options.mutant else _STILL_S)
        quiet_s = time.monotonic() - began
        books, facts = people.books(), log.facts
    faults = [] if options.mutant else _reconcile(run.stack)
    if wrong := lost_change(people, run.endpoints["changing"], changes):
        faults.append(wrong)
    forked = sum(len(causes) > 1 for causes in facts.scheduled.values())
    verdicts = _judge(run, published, books, facts, maker)
    _keep(run.folder, books, verdicts)
    result = Result(
        published, maker.kills, maker.outages, verdicts, books["healthy"], quiet_s, faults, forked
    )
    return result, books


@contextmanager
def _publishing(run: Run, options: Options) -> Iterator[subprocess.Popen[bytes]]:
    """The publisher's process; in the end it waits for every acknowledgement."""
    argv = [sys.executable, "-m", "engine.dev.chaos.publisher", "--kafka", run.stack.kafka]
    argv += ["--topic", f"{_PREFIX}messages", "--run", run.name, "--rate", str(options.rate)]
    process = spawn([*argv, "--ledger", str(run.folder / "ledger")], run.folder / "publisher.log")
    try:
        yield process
    finally:
        status = stop(process, _STOP_S)
    if status:
        raise ChaosError(f"the publisher ended badly:\n{tail(run.folder / 'publisher.log')}")


def _check(publisher: subprocess.Popen[bytes], run: Run) -> None:
    if publisher.poll() is not None:
        raise ChaosError(f"the publisher ended:\n{tail(run.folder / 'publisher.log')}")


def _wait(until: float, check: Callable[[], None]) -> None:
    while time.monotonic() < until:
        check()
        time.sleep(0.2)


def read_ledger(run: Run) -> Published:
    """What the publisher wrote down; it acknowledges all it hands over, or ends badly."""
    pairs = (line.split() for line in (run.folder / "ledger").read_text().splitlines())
    acknowledged = {int(number): int(at) for number, at in pairs}
    return Published(run.name, len(acknowledged), acknowledged)


def follow_to_the_end(log: LogFollower, run: Run, published: Published, still_s: float) -> None:
    """Read the log until every delivery has ended, or nothing has come for so many seconds."""
    now = time.monotonic()
    end, still_at = now + _QUIET_S, now + still_s
    while time.monotonic() < min(end, still_at):
        if log.follow(0.5):
            still_at = time.monotonic() + still_s
        elif has_ended(log.facts, run, published):
            return


def has_ended(facts: Facts, run: Run, published: Published) -> bool:
    """Whether every delivery the router tells of, and every one we know must be, has ended."""
    if facts.matched - facts.ended:
        return False
    done = facts.ended | facts.passed_over
    return all(
        (run.endpoints[one.name], message_id(published.run, number)) in done
        for one in EARLY
        for number in published.acknowledged
        if one.wants(number)
    )


def _judge(
    run: Run,
    published: Published,
    books: Mapping[str, Sequence[Request]],
    facts: Facts,
    maker: Troublemaker,
) -> list[Verdict]:
    made: defaultdict[str, dict[str, Sequence[Attempt]]] = defaultdict(dict)
    for attempts in facts.attempts.values():
        made[attempts[0].endpoint][attempts[0].message] = attempts
    skipped: defaultdict[str, set[str]] = defaultdict(set)
    for where, message in facts.passed_over:
        skipped[where].add(message)
    verdicts = []
    for one in SUBSCRIBERS:
        if one.name in run.endpoints:
            name, created = run.endpoints[one.name], run.created[one.name]
            endpoint = Endpoint(one, created, books[one.name], made[name], frozenset(skipped[name]))
            verdicts.append(judge(endpoint, published, maker.excuses()))
    return verdicts


def _keep(folder: Path, books: Mapping[str, Sequence[Request]], verdicts: Sequence[Verdict]) -> None:
    """What was judged, for whoever has to find out: the books, and the requests that were repeated."""
    (folder / "books.json").write_text(json.dumps(books))
    repeated = {verdict.name: verdict.lost for verdict in verdicts}
    (folder / "repeated.json").write_text(json.dumps(repeated, indent=1))


def _reconcile(stack: Stack) -> list[str]:
    """`hooklog reconcile`, until it agrees and nothing moves any more; else what it says."""
    end = time.monotonic() + _RECONCILE_S
    while True:
        argv = [sys.executable, "-m", "engine.cli.main", "reconcile", "-o", "json"]
        told = subprocess.run(
            argv, env=stack.env, capture_output=True, text=True, timeout=_COMMAND_S, check=False
        )
        report = json.loads(told.stdout) if told.stdout.startswith("{") else {}
        if told.returncode == 0 and _is_settled(report):
            return []
        if time.monotonic() > end:
            words = told.stdout if report else f"{told.stdout}{told.stderr}"
            return [f"hooklog reconcile: exit status {told.returncode}\n{words[-3000:]}"]


def _is_settled(report: Mapping[str, object]) -> bool:
    account = report.get("account")
    pending = account.get("pending") if isinstance(account, dict) else None
    return report.get("moving") == 0 and report.get("unrouted") == 0 and pending == 0
