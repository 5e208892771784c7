"""What the dashboard's live views cost the pipeline: `python -m engine.dev.bench.live [--viewers 5]`.

Each viewer keeps three live views open, and asks for them as often as the pages' scripts do: the overview,
the tail of deliveries, and the overview of one tenant. Runs with and without viewers take turns.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from threading import Event
from urllib.parse import urlsplit

from engine.dev.bench.figures import Figures
from engine.dev.bench.processes import machine
from engine.dev.bench.report import describe
from engine.dev.bench.scenario import TENANT, Bench, Scenario, measure, receiver, subscribe
from engine.dev.bench.visitor import Visitor
from engine.dev.demo.clients import access
from engine.dev.stack import FREE_PORTS, Stack

VIEWS: Mapping[str, float] = {"overview": 5, "deliveries?live=1": 3, f"overview?tenant={TENANT}": 5}
"""What is asked for, and every how many seconds."""
_WARM_UP = Scenario("warm-up", 0, 1, 20_000)
_SATURATED = Scenario("saturated", 0, 1, 60_000)
_STEADY = Scenario("300/s", 300, 1, 6_000)


@contextmanager
def viewing(stack: Stack, viewers: int) -> Iterator[None]:
    """So many people look, each from a thread of its own, until the block ends."""
    over = Event()
    with ThreadPoolExecutor(max(viewers, 1)) as pool:
        looking = [pool.submit(_look, stack, number / max(viewers, 1), over) for number in range(viewers)]
        try:
            yield
        finally:
            over.set()
        for each in looking:
            each.result()


def _look(stack: Stack, phase: float, over: Event) -> None:
    """Ask for every view whenever it is due; `phase` (0 to 1) keeps viewers from asking all at once."""
    address = urlsplit(stack.api)
    visitor = Visitor(address.hostname or "", address.port or 80)
    visitor.log_in(stack.key)
    due = {path: time.monotonic() + phase * every for path, every in VIEWS.items()}
    while not over.wait(max(0.0, min(due.values()) - time.monotonic())):
        path = min(due, key=lambda each: due[each])
        visitor.get(path, **{"HX-Request": "true"})
        due[path] += VIEWS[path]
    visitor.close()


def compare(bench: Bench, stack: Stack, scenario: Scenario, viewers: int, repeats: int) -> None:
    """Run a scenario with and without viewers, in turns, and print what they cost."""
    alone: list[Figures] = []
    watched: list[Figures] = []
    for _ in range(repeats):
        for runs, count in ((alone, 0), (watched, viewers)):
            with viewing(stack, count):
                runs.append(measure(bench, scenario, f"live{time.time_ns():x}"))
            print(f"  {count} viewers: {describe(runs[-1])}", flush=True)
    ratios = [w.per_second / a.per_second for a, w in zip(alone, watched, strict=True)]
    print(
        f"{scenario.name}: {viewers} viewers leave {median(ratios):.1%} of the throughput (median of pairs)"
    )
    for name in ("api", "store"):
        print(
            f"  {name}: {_cores(alone, name):.3f} cores alone, {_cores(watched, name):.3f} watched",
            flush=True,
        )


def _cores(runs: Sequence[Figures], name: str) -> float:
    """CPU seconds a second of one process, while deliveries went on."""
    return median(run.cpu_us.get(name, 0) * run.per_second / 1e6 for run in runs)


def main() -> None:
    """Start everything, measure, print."""
    parser = argparse.ArgumentParser(prog="live", description=__doc__)
    parser.add_argument("--viewers", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hooklog-bench-") as made, receiver(Path(made)) as url:
        folder = Path(made)
        with Stack(folder / "stack", FREE_PORTS) as stack, access(stack) as to:
            bench = Bench(to, os.getpid(), url, folder)
            subscribe(bench, 1)
            print(machine(), flush=True)
            measure(bench, _WARM_UP, f"warm{time.time_ns():x}")
            for scenario in (_STEADY, _SATURATED):
                compare(bench, stack, scenario, chosen.viewers, chosen.repeats)


if __name__ == "__main__":
    main()
