"""Messages from a file, through Kafka, to receivers that check everything."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from engine.dev.demo import books, publisher, report
from engine.dev.demo.books import Entry, Tally, Verdict
from engine.dev.demo.clients import Access, Row, Stack, access, count_finished, create_endpoint, read_rows
from engine.dev.demo.events import Message, read_messages
from engine.dev.demo.subscribers import RETRY_POLICY, SUBSCRIBERS, TIERS, Subscriber
from engine.dev.process import spawn, stop, tail, wait_until
from engine.dev.stack import FREE_PORTS, Ports, dashboard_line
from engine.dev.stack import Stack as EmbeddedStack

_PREFIX = "hooklog."
_MESSAGES_PER_S = 150
"""A steady stream: times then say what a request takes, not how long a heap of them is."""
_DEADLINE_S = 180
_START_S = 60
_STOP_S = 5
_LOOK_S = 0.5


class DemoError(RuntimeError):
    """The demo cannot run; the message says why."""


@dataclass(frozen=True, slots=True)
class Receivers:
    """Where the receivers' process listens, and the port at which nothing does."""

    url: str
    refusing_url: str


def run_demo(
    folder: Path | None = None, keep: bool = False, ports: Ports = FREE_PORTS, one_in: int = 1
) -> int:
    """Run it; the exit status. `one_in` n publishes every n-th message only."""
    console = Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops everything in order, as Ctrl-C does
    messages = list(read_messages())[::one_in]
    with (
        _demo_folder(folder) as place,
        _embedded(place, ports, console) as stack,
        access(stack) as to,
        _receivers(place) as receivers,
    ):
        status = _deliver(console, to, receivers, messages)
        if keep:
            _show_addresses(stack, receivers)
            _wait_for_interrupt()
    return status


@contextmanager
def _demo_folder(folder: Path | None) -> Iterator[Path]:
    """An empty folder: one of our own, removed in the end, or the one that was asked for."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="hooklog-demo-") as made:
            yield Path(made)
        return
    if folder.exists() and any(folder.iterdir()):
        raise DemoError(f"{folder} is not empty: the demo starts from nothing, give it another folder")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


@contextmanager
def _embedded(folder: Path, ports: Ports, console: Console) -> Iterator[Stack]:
    stack = EmbeddedStack(
        folder / "stack",
        ports,
        {"HOOKLOG_TIERS": TIERS},
        say=lambda line: console.print(line, highlight=False),
    )
    stack.start()
    try:
        yield stack
    finally:
        stack.stop()


@contextmanager
def _receivers(folder: Path) -> Iterator[Receivers]:
    """The customers' side, in a process of its own."""
    log = folder / "receivers.log"
    process = spawn([sys.executable, "-m", "engine.dev.demo.receivers"], log)
    try:
        if not wait_until(lambda: log.read_bytes().endswith(b"\n") or _ended(process), _START_S):
            raise DemoError("the receivers do not start")
        if _ended(process):
            raise DemoError(f"the receivers do not start:\n{tail(log)}")
        ports = json.loads(log.read_text().splitlines()[0])
        yield Receivers(f"http://127.0.0.1:{ports['port']}", f"http://127.0.0.1:{ports['refusing']}")
    finally:
        stop(process, _STOP_S)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None


def _deliver(console: Console, to: Access, receivers: Receivers, messages: Sequence[Message]) -> int:
    """Subscribe, publish, wait, judge."""
    endpoints = {one.name: _subscribe(to, receivers, one) for one in SUBSCRIBERS}
    should = {one.name: books.should_see(one, messages) for one in SUBSCRIBERS}
    expected = sum(map(len, should.values()))
    print(f"receivers: {receivers.url}/books", flush=True)
    seconds = _publish_and_wait(console, to, messages, expected)
    console.print(f"{len(messages):,} messages, {expected:,} deliveries, {seconds:.1f} s")
    found = read_rows(to)
    rows = {name: found.get(endpoint, Row()) for name, endpoint in endpoints.items()}
    verdicts = _judge(to, receivers, should)
    console.print(report.endpoints_table(rows))
    console.print(report.tiers_table(publisher.count_records(to.stack.kafka, f"{_PREFIX}retry.")))
    return _conclude(console, rows, verdicts, expected)


def _subscribe(to: Access, receivers: Receivers, one: Subscriber) -> str:
    """Create a receiver's endpoint and give the receiver the secret; returns the endpoint's id."""
    settings = {
        "tenant": one.tenant,
        "url": f"{receivers.url if one.status else receivers.refusing_url}/{one.name}",
        "event_types": None if one.event_types is None else list(one.event_types),
        "profile": one.profile,
        "retry_policy": list(RETRY_POLICY),
        "timeout_ms": one.timeout_ms,
        "description": f"demo: {one.name}",
    }
    endpoint, secret = create_endpoint(to, settings | ({"secret": one.secret} if one.secret else {}))
    if one.status:
        to.http.put(f"{receivers.url}/secrets/{one.name}", content=secret.encode()).raise_for_status()
    return endpoint


def _publish_and_wait(console: Console, to: Access, messages: Sequence[Message], expected: int) -> float:
    """Publish and watch until every delivery has ended or the deadline is over; the seconds it took."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    start = time.monotonic()
    with Progress(*columns, console=console) as progress:
        sent = progress.add_task("published", total=len(messages))
        ended = progress.add_task("deliveries ended", total=expected)

        def settled() -> bool:
            count = count_finished(to)
            progress.update(ended, completed=count)
            return count >= expected

        with ThreadPoolExecutor(1) as pool:
            publishing = pool.submit(
                publisher.publish,
                to.stack.kafka,
                f"{_PREFIX}messages",
                messages,
                lambda: progress.advance(sent),
                _MESSAGES_PER_S,
            )
            wait_until(lambda: settled() and publishing.done(), _DEADLINE_S, _LOOK_S)
            publishing.result()
    return time.monotonic() - start


def _judge(to: Access, receivers: Receivers, should: Mapping[str, books.Should]) -> list[Verdict]:
    shown = to.http.get(f"{receivers.url}/books").raise_for_status().json()
    entries = {name: [Entry(**line) for line in lines] for name, lines in shown.items()}
    return [books.judge(one, should[one.name], entries.get(one.name, [])) for one in SUBSCRIBERS]


def _conclude(console: Console, rows: Mapping[str, Row], verdicts: Sequence[Verdict], expected: int) -> int:
    """Print the verdicts and the closing line; 0 only if nothing is wrong anywhere."""
    tallies = {name: Tally(*row[:5]) for name, row in rows.items()}
    faults = {
        v.name: [*v.faults, *books.count_faults(one, v.expected, tallies[v.name])]
        for one, v in zip(SUBSCRIBERS, verdicts, strict=True)
    }
    console.print(report.verdicts_table(verdicts, faults))
    line, unaccounted = books.closing_line(expected, tallies.values())
    pending = sum(tally.pending for tally in tallies.values())
    print(line, flush=True)
    return 1 if unaccounted or pending or any(faults.values()) else 0


def _show_addresses(stack: Stack, receivers: Receivers) -> None:
    print(f"kept: api={stack.api} kafka={stack.kafka} clickhouse={stack.clickhouse} key={stack.key}")
    print(dashboard_line(stack.api))
    print(f"receivers={receivers.url}/books; stop with Ctrl-C", flush=True)


def _wait_for_interrupt() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()


def main() -> int:
    """Run the demo from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="an empty folder; a temporary one otherwise")
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C")
    parser.add_argument("--one-in", type=int, default=1, help="publish every n-th message only")
    chosen = parser.parse_args()
    try:
        return run_demo(chosen.folder, chosen.keep, one_in=chosen.one_in)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
