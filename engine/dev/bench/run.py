"""The benchmark: what the whole pipeline does on this machine, and what it costs."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from engine.dev.bench import report
from engine.dev.bench.figures import Figures, medians
from engine.dev.bench.processes import machine, sampling, trends
from engine.dev.bench.report import describe
from engine.dev.bench.scenario import Bench, Scenario, measure, receiver, subscribe
from engine.dev.demo.clients import Stack, access
from engine.dev.stack import FREE_PORTS
from engine.dev.stack import Stack as EmbeddedStack

_FAN_OUTS = (1, 10)
_WARM_UP = 20_000
"""Messages; Kafka's JVM compiles itself during the first seconds of load, at our cost."""
_WIDTH = 110
_QUICK_PART = 5
_WRK_S = 4
_SOAK_RATE = 300
_SOAK_LOOK_S = 5
_WRK_SCRIPT = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["webhook-id"] = "wrk-0"
wrk.body = string.rep("x", 700)
"""


@dataclass(frozen=True, slots=True)
class Given:
    """A stack that runs already, and the process that everything of it runs below."""

    api: str
    kafka: str
    clickhouse: str
    key: str
    pid: int


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """`given` None starts a stack; `soak_s` > 0 watches memory that long instead of the scenarios."""

    folder: Path | None = None
    given: Given | None = None
    repeats: int = 5
    quick: bool = False
    soak_s: float = 0
    out: Path | None = None


def scenarios(quick: bool) -> list[Scenario]:
    """Given rates, then saturated, to one endpoint and to ten."""
    part = _QUICK_PART if quick else 1
    return [
        Scenario("100/s", 100, 1, 2_000 // part),
        Scenario("300/s", 300, 1, 6_000 // part),
        Scenario("saturated", 0, 1, 30_000 // part),
        Scenario("30/s to 10", 30, 10, 600 // part),
        Scenario("saturated to 10", 0, 10, 4_000 // part),
    ]


def run_bench(options: BenchOptions) -> int:
    """Run it, print the table, write the JSON; 1 if a message went missing."""
    console = Console(width=max(Console().width, _WIDTH))
    with (
        _bench_folder(options) as folder,
        receiver(folder) as url,
        _stack(options, folder) as stack,
        access(stack) as to,
    ):
        root = options.given.pid if options.given else os.getpid()
        bench = Bench(to, root, url, folder)
        for fan_out in _FAN_OUTS:
            subscribe(bench, fan_out)
        with console.status("warming up"):
            warm_up = Scenario("warm-up", 0, 1, _WARM_UP // (_QUICK_PART if options.quick else 1))
            measure(bench, warm_up, f"warm{time.time_ns():x}")
        if options.soak_s:
            return _soak(console, bench, options)
        results = _run_all(console, bench, options)
        limit = receiver_limit(url, folder)
    report.show(console, results, limit)
    _write(options.out, {"machine": machine(), "receiver_limit": limit, "scenarios": _plain(results)})
    return 1 if any(figures.missing for figures in results.values()) else 0


@contextmanager
def _bench_folder(options: BenchOptions) -> Iterator[Path]:
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        yield options.folder
        return
    with tempfile.TemporaryDirectory(prefix="hooklog-bench-") as made:
        yield Path(made)


@contextmanager
def _stack(options: BenchOptions, folder: Path) -> Iterator[Stack]:
    if options.given is not None:
        yield options.given
        return
    stack = EmbeddedStack(folder / "stack", FREE_PORTS)
    stack.start()
    try:
        yield stack
    finally:
        stack.stop()


def _run_all(console: Console, bench: Bench, options: BenchOptions) -> dict[str, Figures]:
    """Interleaved, so that a slow minute of the machine meets every scenario once."""
    runs: dict[str, list[Figures]] = {one.name: [] for one in scenarios(options.quick)}
    for repeat in range(1 if options.quick else options.repeats):
        for one in scenarios(options.quick):
            with console.status(f"{one.name}, run {repeat + 1}"):
                figures = measure(bench, one, f"run{time.time_ns():x}")
            runs[one.name].append(figures)
            console.print(f"{one.name} #{repeat + 1}: {describe(figures)}", highlight=False)
    return {name: medians(several) for name, several in runs.items()}


def receiver_limit(url: str, folder: Path) -> float | None:
    """Requests a second that wrk gets from the receiver over one core's client; None without wrk."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return None
    script = folder / "post.lua"
    script.write_text(_WRK_SCRIPT)
    command = [wrk, "-t1", "-c64", f"-d{_WRK_S}s", "-s", str(script), f"{url}/limit"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    found = re.search(r"Requests/sec:\s+([0-9.]+)", told)
    return float(found[1]) if found else None


def _plain(results: Mapping[str, Figures]) -> dict[str, object]:
    return {name: asdict(figures) for name, figures in results.items()}


def _write(out: Path | None, figures: Mapping[str, object]) -> None:
    if out is not None:
        out.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")


def _soak(console: Console, bench: Bench, options: BenchOptions) -> int:
    """Publish steadily and watch every process's memory."""
    load = Scenario("soak", _SOAK_RATE, 1, int(options.soak_s * _SOAK_RATE))
    with sampling(bench.root, _SOAK_LOOK_S) as samples:
        figures = measure(bench, load, f"soak{time.time_ns():x}")
    console.print(f"{_SOAK_RATE}/s for {options.soak_s:.0f} s: {describe(figures)}", highlight=False)
    memory = trends(samples)
    console.print(report.memory_table(memory))
    _write(
        options.out,
        {
            "machine": machine(),
            "soak": asdict(figures),
            "memory_mb": {n: asdict(m) for n, m in memory.items()},
        },
    )
    return 1 if figures.missing else 0


def main() -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where data and logs go; a temporary folder otherwise")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each scenario; medians are printed")
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    parser.add_argument("--soak", type=float, default=0, metavar="SECONDS", help="watch memory that long")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    chosen = parser.parse_args()
    return run_bench(BenchOptions(chosen.folder, None, chosen.repeats, chosen.quick, chosen.soak, chosen.out))


if __name__ == "__main__":
    raise SystemExit(main())
