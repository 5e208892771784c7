"""One run of the benchmark: publish, wait until all has arrived and is projected, count what it cost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from engine.dev.bench.figures import Figures, summarize
from engine.dev.bench.processes import Usage, cpu_between, snapshot
from engine.dev.bench.publisher import number_of
from engine.dev.demo.clients import Access, create_endpoint, query
from engine.dev.process import spawn, stop, tail, wait_until

TENANT = "bench"
_TOPIC = "hooklog.messages"
_START_S = 60
_STALL_S = 30
_PROJECTION_S = 120
_LOOK_S = 0.25
_PUBLISH_S = 120


class BenchError(RuntimeError):
    """The benchmark cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """`count` messages, `rate` a second (0: as fast as it goes), to `fan_out` endpoints each."""

    name: str
    rate: float
    fan_out: int
    count: int
    tenant: str = TENANT

    @property
    def event_type(self) -> str:
        """What the endpoints of this fan-out subscribe to."""
        return f"bench.to{self.fan_out}"


@dataclass(frozen=True, slots=True)
class Bench:
    """Where things are: the stack, the process everything of it runs below, the receiver, our files."""

    to: Access
    root: int
    receiver: str
    folder: Path


@contextmanager
def receiver(folder: Path, port: int = 0) -> Iterator[str]:
    """Start a receiver at a port (0: any free one); its URL."""
    log = folder / f"receiver.{port}.log"
    process = spawn([sys.executable, "-m", "engine.dev.bench.receiver", str(port)], log)
    try:
        started = wait_until(lambda: log.read_bytes().endswith(b"\n"), _START_S)
        if not started or process.poll() is not None:
            raise BenchError(f"the receiver does not start:\n{tail(log)}")
        yield f"http://127.0.0.1:{int(log.read_text())}"
    finally:
        stop(process, 5)


def subscribe(bench: Bench, fan_out: int) -> None:
    """Create the endpoints of a fan-out."""
    for number in range(fan_out):
        url = f"{bench.receiver}/to{fan_out}/{number}"
        create_endpoint(bench.to, {"tenant": TENANT, "url": url, "event_types": [f"bench.to{fan_out}"]})


def measure(bench: Bench, scenario: Scenario, run: str) -> Figures:
    """Run a scenario once; `run` names its messages and must be new."""
    bench.to.http.get(f"{bench.receiver}/notes")
    before, rows = snapshot(bench.root), _attempts(bench)
    sent, publishing_s = _publish(bench, scenario, run)
    expected = scenario.count * scenario.fan_out
    _wait_for_requests(bench, expected)
    projected_s = _wait_for_rows(bench, rows + expected)
    after = snapshot(bench.root)
    figures = summarize(sent, arrived(bench, run), scenario.fan_out)
    return _with_costs(replace(figures, projected_s=projected_s), before, after, publishing_s)


def _publish(bench: Bench, scenario: Scenario, run: str) -> tuple[array[int], float]:
    """Publish in another process; when each message was sent (nanoseconds), and its CPU seconds."""
    out = bench.folder / f"{run}.sent"
    used = sum(os.times()[2:4])
    limit = _PUBLISH_S + (scenario.count / scenario.rate if scenario.rate else 0)
    subprocess.run(publisher(bench, scenario, run, out), check=True, timeout=limit)
    return array("q", out.read_bytes()), sum(os.times()[2:4]) - used


def publisher(bench: Bench, scenario: Scenario, run: str, out: Path) -> list[str]:
    """Return the command that publishes a scenario's messages and writes down when each was sent."""
    options = {
        "kafka": bench.to.stack.kafka,
        "topic": _TOPIC,
        "tenant": scenario.tenant,
        "event-type": scenario.event_type,
        "run": run,
        "count": scenario.count,
        "rate": scenario.rate,
        "out": out,
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "engine.dev.bench.publisher", *arguments]


def count_requests(bench: Bench) -> int:
    """How many requests the receiver has had since its notes were read."""
    return int(bench.to.http.get(f"{bench.receiver}/count").text)


def _wait_for_requests(bench: Bench, expected: int) -> None:
    """Wait until the receiver has had them all; give up when none has come for a while."""
    count, changed = -1, time.monotonic()
    while count < expected and time.monotonic() - changed < _STALL_S:
        if (now := count_requests(bench)) != count:
            count, changed = now, time.monotonic()
        time.sleep(_LOOK_S)


def _attempts(bench: Bench) -> int:
    return int(query(bench.to, "SELECT count() AS n FROM delivery_attempts")[0]["n"])


def _wait_for_rows(bench: Bench, expected: int) -> float:
    """Seconds until ClickHouse has every attempt; BenchError if it does not get them."""
    start = time.monotonic()
    if not wait_until(lambda: _attempts(bench) >= expected, _PROJECTION_S, _LOOK_S):
        raise BenchError(f"ClickHouse has {_attempts(bench)} attempts of {expected}")
    return time.monotonic() - start


def arrived(bench: Bench, run: str) -> list[tuple[int, int]]:
    """When requests of this run came (nanoseconds), and for which message."""
    lines = bench.to.http.get(f"{bench.receiver}/notes").text.splitlines()
    notes = (line.split(" ", 1) for line in lines)
    numbered = ((int(at), number_of(run, name)) for at, name in notes)
    return [(at, number) for at, number in numbered if number is not None]


def _with_costs(
    figures: Figures, before: dict[str, Usage], after: dict[str, Usage], publishing_s: float
) -> Figures:
    cpu = cpu_between(before, after) | {"(publisher)": publishing_s}
    per_delivery = {name: s * 1e6 / max(figures.deliveries, 1) for name, s in cpu.items()}
    return replace(figures, cpu_us=per_delivery, rss_mb={n: u.rss / 2**20 for n, u in after.items()})
