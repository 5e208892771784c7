"""The benchmark's tables."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from engine.dev.bench.figures import Figures
from engine.dev.bench.processes import Trend, machine
from engine.dev.demo.report import table

_SPEED = (
    "scenario",
    "deliveries",
    "per s",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "max ms",
    "twice",
    "missing",
    "rows +s",
)


def describe(figures: Figures) -> str:
    """One line about one run."""
    times = f"p50 {figures.p50:.2f} p95 {figures.p95:.2f} p99 {figures.p99:.2f} max {figures.largest:.1f} ms"
    lost = f", {figures.missing} missing" if figures.missing else ""
    return f"{figures.deliveries:,} deliveries, {figures.per_second:,.0f}/s, {times}{lost}"


def show(console: Console, results: Mapping[str, Figures], limit: float | None) -> None:
    """Print everything that was measured."""
    console.print(f"\n{machine()}; medians; latency is produce() to request at the receiver")
    console.print(_speed_table(results))
    console.print(_cost_table("CPU, µs a delivery", {n: f.cpu_us for n, f in results.items()}))
    console.print(_cost_table("Resident memory, MB", {n: f.rss_mb for n, f in results.items()}))
    told = "wrk is not installed" if limit is None else f"{limit:,.0f} requests/s (wrk)"
    console.print(f"the receiver's own limit: {told}", highlight=False)


def _speed_table(results: Mapping[str, Figures]) -> Table:
    rows = [
        (
            name,
            f.deliveries,
            f"{f.per_second:,.0f}",
            *(f"{ms:.2f}" for ms in (f.p50, f.p95, f.p99, f.largest)),
            f.duplicates,
            f.missing,
            f"{f.projected_s:.1f}",
        )
        for name, f in results.items()
    ]
    return table("Deliveries", _SPEED, rows)


def _cost_table(title: str, costs: Mapping[str, Mapping[str, float]]) -> Table:
    """A row a process, those in brackets being the benchmark's own, and the sum of the others."""
    processes = sorted({process for one in costs.values() for process in one})
    rows = [(p, *(f"{one.get(p, 0):,.0f}" for one in costs.values())) for p in processes]
    own = [sum(cost for p, cost in one.items() if not p.startswith("(")) for one in costs.values()]
    return table(title, ("process", *costs), [*rows, ("all of hooklog", *(f"{cost:,.0f}" for cost in own))])


def memory_table(memory: Mapping[str, Trend]) -> Table:
    """Resident memory over time, by process."""
    rows = [
        (name, *(f"{mb:,.1f}" for mb in (m.first_mb, m.last_mb, m.largest_mb, m.growth_mb)))
        for name, m in memory.items()
    ]
    columns = ("process", "first tenth MB", "last tenth MB", "largest MB", "growth MB/10 min")
    return table("Resident memory", columns, rows)
