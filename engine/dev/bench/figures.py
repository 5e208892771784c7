"""From notes of when each message was sent and each request arrived to the figures that are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

_SETTLING = 0.1
"""The part of a saturated run, from its start, that its throughput leaves out."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One run; times in milliseconds, CPU in microseconds a delivery, memory in MB, both by process."""

    deliveries: int
    missing: int
    duplicates: int
    per_second: float
    p50: float
    p95: float
    p99: float
    largest: float
    projected_s: float = 0
    """From the last request to the last row in ClickHouse, seconds."""
    cpu_us: Mapping[str, float] = field(default_factory=dict)
    rss_mb: Mapping[str, float] = field(default_factory=dict)


def quantile(ordered: Sequence[float], q: float) -> float:
    """The smallest value that at least a part `q` of all does not exceed; 0 of none."""
    if not ordered:
        return 0
    rank = -int(-q * len(ordered) // 1)
    return ordered[max(rank, 1) - 1]


def throughput(arrivals: Sequence[int]) -> float:
    """Requests a second (arrivals in nanoseconds, ascending), without the settling part."""
    skipped = int(len(arrivals) * _SETTLING)
    if len(arrivals) - skipped < 2:
        return 0
    return (len(arrivals) - skipped - 1) / ((arrivals[-1] - arrivals[skipped]) / 1e9 or 1e-9)


def summarize(sent: Sequence[int], arrived: Sequence[tuple[int, int]], fan_out: int) -> Figures:
    """Compare `sent` (nanoseconds, by message number) with what arrived: (nanoseconds, message number)."""
    latencies = sorted((at - sent[number]) / 1e6 for at, number in arrived)
    times: dict[int, int] = {}
    for _, number in arrived:
        times[number] = times.get(number, 0) + 1
    return Figures(
        deliveries=len(arrived),
        missing=sum(max(fan_out - times.get(number, 0), 0) for number in range(len(sent))),
        duplicates=sum(max(count - fan_out, 0) for count in times.values()),
        per_second=throughput(sorted(at for at, _ in arrived)),
        p50=quantile(latencies, 0.5),
        p95=quantile(latencies, 0.95),
        p99=quantile(latencies, 0.99),
        largest=latencies[-1] if latencies else 0,
    )


def medians(runs: Sequence[Figures]) -> Figures:
    """Median of every figure; missing and duplicates are summed, so that none is hidden."""
    return Figures(
        deliveries=int(median(run.deliveries for run in runs)),
        missing=sum(run.missing for run in runs),
        duplicates=sum(run.duplicates for run in runs),
        per_second=median(run.per_second for run in runs),
        p50=median(run.p50 for run in runs),
        p95=median(run.p95 for run in runs),
        p99=median(run.p99 for run in runs),
        largest=median(run.largest for run in runs),
        projected_s=median(run.projected_s for run in runs),
        cpu_us=_by_name([run.cpu_us for run in runs]),
        rss_mb=_by_name([run.rss_mb for run in runs]),
    )


def _by_name(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = sorted({name for one in values for name in one})
    return {name: median([one.get(name, 0) for one in values]) for name in names}
