"""A plain fold of attempts into minutes and hours, and the rollups to hold against it."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from consumers.projector import Projector
from engine.core.model import AttemptFinished
from engine.ports import Output, Position, Record
from engine.runtime.history import projection
from engine.runtime.history.projection import Batch, Projection
from engine.runtime.memory import MemoryLog
from tests.integration.history_fixtures import (
    CODEC,
    NOW,
    SECOND,
    Hand,
    Store,
    attempt,
    context_of,
)

MINUTE, HOUR, DAY = 60, 3_600, 86_400
BASE = (NOW // SECOND // DAY - 2) * DAY
"""A midnight of the days before yesterday, so that all is in the past."""
PROJECTION = Projection("hooklog.")
LEVELS = (0.5, 0.95, 0.99)
Key = tuple[str, int, str, str]
"""Endpoint, minute or hour, outcome, error class."""
Figures = tuple[int, int, int, list[float]]
"""Attempts, bytes, microseconds, p50/p95/p99."""


@dataclass(frozen=True, slots=True)
class Made:
    """An attempt as a test tells it: seconds since BASE."""

    offset: int
    endpoint: str
    number: int
    accepted_s: int
    attempted_s: int
    duration_us: int = 1_234
    success: bool = True


def finished(made: Made) -> AttemptFinished:
    """Its record."""
    plain = attempt(made.offset, made.endpoint, made.number, "delivered" if made.success else "retry")
    return replace(
        plain,
        accepted_at=(BASE + made.accepted_s) * SECOND,
        attempted_at=(BASE + made.attempted_s) * SECOND,
        duration_us=made.duration_us,
    )


def microseconds(duration_us: int) -> int:
    """What a duration in milliseconds, a float of 32 bits, makes of it."""
    (milliseconds,) = struct.unpack(">f", struct.pack(">f", duration_us / 1_000))
    return round(float(milliseconds) * 1_000)


def bfloat16(duration_us: int) -> float:
    """What quantiles are of: that float's first 16 bits."""
    (bits,) = struct.unpack(">I", struct.pack(">f", duration_us / 1_000))
    (kept_of_it,) = struct.unpack(">f", struct.pack(">I", bits & 0xFFFF0000))
    return float(kept_of_it)


def quantile(values: Sequence[float], level: float) -> float:
    """The least value that so large a share is not above."""
    ordered = sorted(values)
    return next(v for n, v in enumerate(ordered, 1) if n >= level * len(ordered))


def folded(attempts: Sequence[AttemptFinished], span_s: int) -> dict[Key, Figures]:
    """Attempts by endpoint, span, outcome and class: the first record of each counts."""
    firsts: dict[tuple[str, int], AttemptFinished] = {}
    for each in attempts:
        if each.outcome != "none":
            firsts.setdefault((each.delivery_id, each.attempt), each)
    groups: dict[Key, list[AttemptFinished]] = defaultdict(list)
    for each in firsts.values():
        span = each.attempted_at // SECOND // span_s * span_s
        groups[each.endpoint_id, span, each.outcome, each.error_class].append(each)
    return {key: figures(of_key) for key, of_key in groups.items()}


def figures(attempts: Sequence[AttemptFinished]) -> Figures:
    """What a rollup says of some attempts."""
    durations = [bfloat16(a.duration_us) for a in attempts]
    return (
        len(attempts),
        sum(a.request_bytes for a in attempts),
        sum(microseconds(a.duration_us) for a in attempts),
        [quantile(durations, level) for level in LEVELS],
    )


def found(store: Store, view: str, time: str) -> dict[Key, Figures]:
    """What a view says, spans that have several rows added up."""
    rows = store.history.query(
        f"SELECT endpoint_id, toUnixTimestamp({time}), outcome, error_class, sum(attempts), sum(bytes),"
        f" sum(duration_us), quantilesBFloat16Merge(0.5, 0.95, 0.99)(durations) FROM {view}"
        " GROUP BY 1, 2, 3, 4"
    ).rows
    by_key = {}
    for endpoint, span, outcome, error_class, *sums, quantiles in rows:
        assert isinstance(quantiles, list)
        count, size, duration = (int(str(n)) for n in sums)
        by_key[str(endpoint), int(str(span)), str(outcome), str(error_class)] = (
            count,
            size,
            duration,
            quantiles,
        )
    return by_key


def check(store: Store, attempts: Sequence[AttemptFinished]) -> None:
    """Both rollups say what the fold says."""
    assert found(store, "endpoint_minutes", "minute") == folded(attempts, MINUTE)
    assert found(store, "endpoint_hours", "hour") == folded(attempts, HOUR)


def log_of(attempts: Sequence[AttemptFinished]) -> MemoryLog:
    """A log of one partition that holds these."""
    log = MemoryLog(1, Hand())
    for each in attempts:
        log.append(Output("attempts", 0, None, CODEC.encode(each)))
    return log


def member(
    log: MemoryLog, store: Store, target: projection.RowTarget | None = None
) -> tuple[Projector, Hand]:
    """A projector that has joined, and its clock."""
    clock = Hand()
    return Projector(context_of(store, log, clock), target or store.history), clock


def project(log: MemoryLog, store: Store) -> None:
    """Read all there is from where the group stands, write and commit."""
    projector, _ = member(log, store)
    projector.step(0)
    projector.close()


def committed(projector: Projector) -> Position | None:
    """How far the group is on `attempts`."""
    return projector.consumer.committed([("attempts", 0)])["attempts", 0]


def write(store: Store, records: Sequence[Record]) -> Batch:
    """One batch of rows; the rollups do not know of it yet."""
    gathered = Batch(0)
    for read in records:
        gathered.add(read, PROJECTION.rows(read))
    gathered.insert_into(store.history, "hooklog.")
    return gathered


SOME = [
    finished(Made(n, f"ep{n % 3}", 1, n * 40, n * 40 + n % 5, 1_000 + n * 777, success=n % 4 != 0))
    for n in range(60)
]
RETRIES = [
    finished(Made(n, f"ep{n % 3}", 2, n * 40, n * 40 + delay, 5_000_000, success=n % 8 != 0))
    for n, delay in zip(range(0, 60, 4), [5, 35, 7_000, DAY] * 4, strict=False)
]
COPIES = [replace(each, attempted_at=each.attempted_at + 200 * SECOND, duration_us=7) for each in SOME[::7]]
HISTORY = [*SOME, *RETRIES, *COPIES]
