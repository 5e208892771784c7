"""The demo's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from engine.dev.demo.books import Verdict
from engine.dev.demo.clients import Row


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table whose first column is a name and whose others are figures."""
    made = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for number, column in enumerate(columns):
        made.add_column(column, justify="right" if number else "left")
    for row in rows:
        made.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    return made


def endpoints_table(rows: Mapping[str, Row]) -> Table:
    """Read from ClickHouse: what became of every delivery, by receiver."""
    columns = ("endpoint", "delivered", "failed", "skipped", "pending", "attempts", "p50 ms", "p99 ms")
    cells = [(name, *row[:5], f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}") for name, row in rows.items()]
    return table("Deliveries, as ClickHouse has them (times: of a request)", columns, cells)


def tiers_table(counts: Mapping[str, int]) -> Table:
    """Read from Kafka: how many records waited in each delay topic."""
    return table("Delay topics, as Kafka has them", ("topic", "records passed"), list(counts.items()))


def verdicts_table(verdicts: Sequence[Verdict], faults: Mapping[str, Sequence[str]]) -> Table:
    """From the receivers' own books: what they should have seen and what they saw."""
    columns = ("receiver", "should see", "saw", "requests", "duplicates", "verdict")
    cells = [
        (v.name, v.expected, v.seen, v.requests, v.duplicates, "; ".join(faults[v.name]) or "as it should be")
        for v in verdicts
    ]
    return table("Receivers, by their own books", columns, cells)
