"""How long the questions of docs/queries.md take: `python -m engine.dev.bench.queries [--attempts 10000000]`.

The history is made inside ClickHouse: 30 days, 5,000 endpoints of 50 tenants, a few of them with most of the
traffic, 1.2 attempts a delivery. Every question is asked of the last day and of all of it.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from engine.dev.bench.processes import machine
from engine.dev.bench.storage import Storage, storage
from engine.runtime.clock import SystemClock
from engine.runtime.history.adding import add_up

T = TypeVar("T")
BOOK = Path(__file__).parents[3] / "docs" / "queries.md"
DAYS = 30
PIECES = 4
"""Inserts a day: parts that FINAL has to bring together."""
PER_DELIVERY = 1.19
TIMES = 3
LONG_S = 2.0
"""What takes so long is asked once."""
_QUESTION = re.compile(r"^## (\d+)\. (.+?)\n.*?```sql\n(.+?)\n```", re.MULTILINE | re.DOTALL)

# What delivery number n is: its endpoint (few have most), when it was accepted, how many attempts it took.
_DELIVERY = """
SELECT number AS n, toUInt32(pow(cityHash64(n, 'e') / pow(2, 64), 3) * 5000) AS e,
       concat('tenant_', toString(e % 50)) AS tenant, concat('ep_', leftPad(toString(e), 4, '0')) AS endpoint_id,
       concat('m', toString(intDiv(n, 2))) AS message_id, lower(hex(sipHash128(n))) AS delivery_id,
       concat('type.', toString(e % 7)) AS event_type,
       toDateTime64({start:DateTime('UTC')}, 3, 'UTC') + toIntervalMillisecond(intDiv(n * {span_ms:UInt64}, {all:UInt64})) AS accepted_at,
       cityHash64(n, 'k') % 100 + if(e % 97 = 3, 8, 0) AS luck,
       multiIf(luck < 90, 1, luck < 95, 2, luck < 98, 3, 5) AS tries, luck >= 99 AS is_lost
FROM numbers({first:UInt64}, {count:UInt64})
"""  # noqa: E501
_ATTEMPTS = f"""
INSERT INTO attempts
SELECT tenant, endpoint_id, message_id, delivery_id, attempt, 'scheduled', event_type, accepted_at,
       accepted_at + toIntervalMillisecond(100 + n % 50 + if(attempt = 1, 0, pow(4, attempt) * 1250)),
       exp(randCanonical(n) * 4 + 2) + if(tries > 1, 100, 0), if(is_success, 'success', 'failure'),
       if(is_success, 200, if(e % 3 = 0, 0, 503)), if(is_success, '', if(e % 3 = 0, 'timeout', 'http_5xx')),
       if(is_success, '', 'HTTP 503'), multiIf(is_success, 'delivered', attempt < tries, 'retry', 'failed'),
       if(is_lost AND attempt = tries, 'exhausted', ''), NULL, 400 + n % 800, if(is_success, 'ok', 'busy'),
       '', 'dispatcher-0', n % 8, n, 1
FROM (SELECT *, attempt = tries AND NOT is_lost AS is_success FROM
      (SELECT *, arrayJoin(range(1, toUInt32(tries + 1))) AS attempt FROM ({_DELIVERY})))
"""  # noqa: S608
_DELIVERIES = f"""
INSERT INTO deliveries
SELECT tenant, endpoint_id, message_id, delivery_id, event_type,
       multiIf(is_lost, 'failed', cityHash64(n, 's') % 1000 = 0, 'pending', 'delivered') AS status,
       if(is_lost, 'exhausted', ''), if(is_lost, 'http_5xx', ''), if(is_lost, 503, 200), tries, accepted_at,
       accepted_at + toIntervalSecond(tries), if(status = 'pending', accepted_at + toIntervalHour(2), NULL),
       '', n % 8, intDiv(n, 2), n % 8, n, 1
FROM ({_DELIVERY})
"""  # noqa: S608
_MESSAGES = f"""
INSERT INTO messages
SELECT tenant, message_id, event_type, accepted_at, 400 + n % 800, '', 2, 0, n % 8, intDiv(n, 2), n % 8, n, 1
FROM ({_DELIVERY}) WHERE n % 2 = 0
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Took:
    """What a question costs, of the last day and of all: seconds, and the store's memory beyond rest, MB."""

    number: str
    title: str
    day_s: float
    all_s: float
    memory_mb: float


def fill(store: Storage, attempts: int, start: datetime, tell: Callable[[str], None]) -> None:
    """Make the history, then its rollups."""
    deliveries, pieces = int(attempts / PER_DELIVERY), DAYS * PIECES
    for piece in range(pieces):
        first, end = (deliveries * n // pieces for n in (piece, piece + 1))
        asked = {
            "start": start,
            "span_ms": DAYS * 86_400_000,
            "all": deliveries,
            "first": first,
            "count": end - first,
        }
        for sql in (_ATTEMPTS, _DELIVERIES, _MESSAGES):
            store.client.command(sql, asked, settings={"max_insert_threads": 1})
    tell("attempts made")
    add_up(store.history, store.settings.clickhouse_database, 90, _once, lambda done, total: None)
    tell("rollups made")


def _once(call: Callable[[], T]) -> T:
    return call()


def questions() -> Iterator[tuple[str, str, str]]:
    """Number, title and SQL of every question."""
    for found in _QUESTION.finditer(BOOK.read_text(encoding="utf-8")):
        yield found[1], found[2], found[3]


def measure(store: Storage, start: datetime) -> Iterator[Took]:
    """Ask everything."""
    end = start + timedelta(days=DAYS)
    fixed = {"tenant": "tenant_7", "endpoint": "ep_0007", "message": "m7777", "until": end}
    for number, title, sql in questions():
        rest = resting_mb(store)
        day_s = asked_s(store, sql, {**fixed, "since": end - timedelta(days=1)})
        all_s = asked_s(store, sql, {**fixed, "since": start})
        yield Took(number, title, day_s, all_s, store.peak_mb() - rest)


def resting_mb(store: Storage) -> float:
    """What is resident while nothing is asked."""
    store.forget_peak()
    return store.peak_mb()


def asked_s(store: Storage, sql: str, parameters: dict[str, object]) -> float:
    """Median of a few times, the answer's way to the client included."""
    names = set(re.findall(r"\{(\w+):\w+\}", sql))
    taken: list[float] = []
    while len(taken) < TIMES and sum(taken) < LONG_S:
        began = time.perf_counter()
        store.history.query(sql, {name: parameters[name] for name in names})
        taken.append(time.perf_counter() - began)
    return median(taken)


def show(console: Console, taken: list[Took]) -> None:
    """Print a table."""
    table = Table("", "question", "last day, s", "all, s", "memory, MB")
    for each in taken:
        row = (f"{each.day_s:.3f}", f"{each.all_s:.3f}", f"{each.memory_mb:.0f}")
        table.add_row(each.number, each.title, *row)
    console.print(table)


def main() -> None:
    """Fill, ask, print."""
    parser = argparse.ArgumentParser(prog="queries", description=__doc__)
    parser.add_argument("--attempts", type=int, default=10_000_000)
    attempts = parser.parse_args().attempts
    console, began = Console(), time.monotonic()
    midnight = SystemClock().now() // 86_400_000_000 * 86_400
    start = datetime.fromtimestamp(midnight, UTC) - timedelta(days=DAYS)

    def tell(what: str) -> None:
        console.print(f"{time.monotonic() - began:6.0f} s  {what}; peak {store.peak_mb():.0f} MB")

    with storage() as store:
        fill(store, attempts, start, tell)
        tables = ("messages", "deliveries", "attempts", "health_1m", "health_1h")
        rows = {table: store.history.query(f"SELECT count() FROM {table}").rows[0][0] for table in tables}  # noqa: S608
        console.print(f"{machine()}; rows: {rows}")
        show(console, list(measure(store, start)))


if __name__ == "__main__":
    main()
