"""What a neighbour's trouble costs: slow and dead endpoints, a long backlog, many retries.

`python -m engine.dev.bench.trouble` starts the embedded stack and prints a figure a line.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from engine.dev.bench.figures import Figures, medians, summarize
from engine.dev.bench.processes import machine, sampling, snapshot, trends
from engine.dev.bench.report import describe
from engine.dev.bench.scenario import Bench, Scenario, arrived, count_requests, publisher, receiver
from engine.dev.demo.clients import access, create_endpoint, query
from engine.dev.process import free_port, stop, wait_until
from engine.dev.stack import FREE_PORTS, Stack

HEALTHY = Scenario("healthy", 100, 1, 3_000)
_WARM_UP = Scenario("warm-up", 0, 1, 20_000)
_LIMIT_S = 1_800
_RETRIES = 1_000
"""Retries a second."""
_RETRY_S = 30
_LATENESS = """
SELECT quantileExact(0.5)(late) AS p50, quantileExact(0.99)(late) AS p99, max(late) AS most, count() AS n,
       dateDiff('millisecond', min(tried), max(tried)) / 1000 AS took_s
FROM (SELECT minIf(next_attempt_at, attempt = 1) AS due, minIf(attempted_at, attempt = 2) AS tried,
             dateDiff('millisecond', due, tried) AS late
      FROM delivery_attempts WHERE tenant = '{tenant}' GROUP BY delivery_id HAVING count() = 2)"""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Somebody else's traffic, while the healthy endpoint is measured."""

    scenario: Scenario
    url: str
    retry_policy: Sequence[str] | None = None


def subscribe(bench: Bench, neighbour: Neighbour) -> None:
    """Create the neighbour's endpoint."""
    wanted = {
        "tenant": neighbour.scenario.tenant,
        "url": neighbour.url,
        "event_types": [neighbour.scenario.event_type],
        "retry_policy": neighbour.retry_policy,
    }
    create_endpoint(bench.to, {name: value for name, value in wanted.items() if value is not None})


@contextmanager
def publishing(bench: Bench, scenarios: Sequence[Scenario]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Publish these side by side; whoever still publishes at the end is stopped."""
    with ExitStack() as left:
        running = []
        for one in scenarios:
            out = bench.folder / f"{one.name}.sent"
            running.append(subprocess.Popen(publisher(bench, one, one.name, out)))
            left.callback(stop, running[-1], 5)
        yield running


def healthy_among(bench: Bench, others: Sequence[Scenario], name: str) -> Figures:
    """Publish to the healthy endpoint among others; what came of it."""
    healthy = replace(HEALTHY, name=name)
    bench.to.http.get(f"{bench.receiver}/notes")
    with publishing(bench, [healthy, *others]) as running:
        running[0].wait(_LIMIT_S)
        got: list[tuple[int, int]] = []
        wait_until(lambda: _collect(bench, name, got) >= healthy.count, 30, 0.5)
    return summarize(array("q", (bench.folder / f"{name}.sent").read_bytes()), got, 1)


def _collect(bench: Bench, run: str, got: list[tuple[int, int]]) -> int:
    got += arrived(bench, run)
    return len(got)


def slow_neighbours(bench: Bench, repeats: int) -> None:
    """One neighbour's endpoint takes 5 s, another's refuses connections; 200 messages/s each."""
    closed = f"http://127.0.0.1:{free_port()}/closed"
    slow = Neighbour(Scenario("slow", 200, 2, 6_000, "bench-slow"), f"{bench.receiver}/slow/1")
    dead = Neighbour(Scenario("dead", 200, 3, 6_000, "bench-dead"), closed)
    for neighbour in (slow, dead):
        subscribe(bench, neighbour)
    alone, among = [], []
    for repeat in range(repeats):
        alone.append(healthy_among(bench, [], f"alone{repeat}"))
        others = [replace(n.scenario, name=f"{n.scenario.name}{repeat}") for n in (slow, dead)]
        among.append(healthy_among(bench, others, f"among{repeat}"))
        print(f"  alone: {describe(alone[-1])}\n  among: {describe(among[-1])}", flush=True)
    print(f"100/s alone:                        {describe(medians(alone))}")
    print(f"100/s, slow and refusing neighbour: {describe(medians(among))}", flush=True)


def waiting_backlog(bench: Bench, count: int) -> None:
    """So many messages wait for an endpoint that refuses connections; then it comes back."""
    port = free_port()
    dead = Neighbour(Scenario("backlog", 0, 4, count, "bench-backlog"), f"http://127.0.0.1:{port}/back")
    subscribe(bench, dead)
    log = _log_size(bench)
    with publishing(bench, [dead.scenario]) as running, sampling(bench.root, 2) as samples:
        during = healthy_among(bench, [], "during")
        print(f"100/s while {count:,} are published and routed: {describe(during)}", flush=True)
        running[0].wait(_LIMIT_S)
        wait_until(lambda: _routed(bench) >= count, _LIMIT_S, 2)
        waiting = healthy_among(bench, [], "waiting")
        print(f"100/s while {count:,} wait: {describe(waiting)}", flush=True)
    for name, trend in trends(samples).items():
        print(f"  {name:12} {trend.first_mb:6.0f} -> {trend.last_mb:6.0f} MB, at most {trend.largest_mb:.0f}")
    print(f"the log grew by {(_log_size(bench) - log) / count:,.0f} bytes a waiting message", flush=True)
    _come_back(bench, port, count)


def _come_back(bench: Bench, port: int, count: int) -> None:
    returned = time.monotonic()
    with receiver(bench.folder, port) as url:
        back = replace(bench, receiver=url)
        wait_until(lambda: count_requests(back) > 100, 120, 0.1)
        first_s = time.monotonic() - returned
        before, at = count_requests(back), time.monotonic()
        wait_until(lambda: count_requests(back) - before >= count // 2, _LIMIT_S, 0.5)
        rate = (count_requests(back) - before) / (time.monotonic() - at)
        print(f"back: deliveries again after {first_s:.1f} s, then {rate:,.0f} a second", flush=True)
        wait_until(lambda: _ended(bench) >= count, _LIMIT_S, 2)
        print(f"all {_ended(bench):,} ended after {time.monotonic() - returned:.0f} s", flush=True)
    use = {name: f"{usage.rss / 2**20:.0f}" for name, usage in snapshot(bench.root).items()}
    print(f"  resident, MB: {use}", flush=True)


def _routed(bench: Bench) -> int:
    return _number(bench, "SELECT count() AS n FROM deliveries FINAL WHERE tenant = 'bench-backlog'")


def _ended(bench: Bench) -> int:
    return _number(
        bench,
        "SELECT count() AS n FROM deliveries FINAL WHERE tenant = 'bench-backlog' AND status != 'pending'",
    )


def _number(bench: Bench, sql: str) -> int:
    return int(query(bench.to, sql)[0]["n"])


def _log_size(bench: Bench) -> int:
    """Bytes of all records of all topics on disk."""
    return sum(file.stat().st_size for file in (bench.folder / "stack" / "kafka").rglob("*.log"))


def many_retries(bench: Bench, repeats: int) -> None:
    """Every message fails once and is due again after 5 s: how late the second try is."""
    lateness = [_retries(bench, f"bench-retry{repeat}", repeat) for repeat in range(repeats)]
    p50, p99, rate = (median(figures) for figures in zip(*lateness, strict=True))
    print(f"retries at {rate:,.0f}/s: p50 {p50:.0f} ms, p99 {p99:.0f} ms after their due time (medians)")


def _retries(bench: Bench, tenant: str, repeat: int) -> tuple[float, float, float]:
    """(p50, p99 in ms after the due time, retries a second) of one run."""
    load = Scenario(f"retries{repeat}", _RETRIES, 5, _RETRIES * _RETRY_S, tenant)
    subscribe(bench, Neighbour(load, f"{bench.receiver}/fails-once/1", ["5s", "30s"]))
    lateness = _LATENESS.format(tenant=tenant)
    with publishing(bench, [load]) as running:
        running[0].wait(_LIMIT_S)
    wait_until(lambda: int(query(bench.to, lateness)[0]["n"]) >= load.count, 120, 1)
    found = query(bench.to, lateness)[0]
    rate = int(found["n"]) / (float(found["took_s"]) or 1)
    late = f"p50 {found['p50']} ms, p99 {found['p99']} ms, most {found['most']} ms"
    print(f"  {int(found['n']):,} retries, {rate:,.0f}/s: {late} after their due time", flush=True)
    return float(found["p50"]), float(found["p99"]), rate


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=["neighbours", "retries", "backlog"])
    parser.add_argument("--folder", type=Path, help="where data and logs go; a temporary folder otherwise")
    parser.add_argument(
        "--repeats", type=int, default=5, help="runs of each but the backlog; medians are printed"
    )
    parser.add_argument("--waiting", type=int, default=1_000_000, help="messages for the dead endpoint")
    chosen = parser.parse_args()
    with ExitStack() as held:
        folder = chosen.folder or Path(held.enter_context(tempfile.TemporaryDirectory(prefix="hooklog-")))
        folder.mkdir(parents=True, exist_ok=True)
        url = held.enter_context(receiver(folder))
        stack = held.enter_context(Stack(folder / "stack", FREE_PORTS))
        bench = Bench(held.enter_context(access(stack)), os.getpid(), url, folder)
        print(machine(), flush=True)
        subscribe(bench, Neighbour(HEALTHY, f"{url}/to1/0"))
        with publishing(bench, [_WARM_UP]):
            wait_until(lambda: count_requests(bench) >= _WARM_UP.count, 120, 0.5)
        if "neighbours" in chosen.what:
            slow_neighbours(bench, chosen.repeats)
        if "retries" in chosen.what:
            many_retries(bench, chosen.repeats)
        if "backlog" in chosen.what:
            waiting_backlog(bench, chosen.waiting)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
