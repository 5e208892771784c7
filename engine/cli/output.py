"""What commands print: tables for people, JSON for scripts."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer

from engine.cli.errors import JSON


class Format(StrEnum):
    """How to print."""

    text = "text"
    json = "json"


def _noted(context: typer.Context, chosen: Format) -> Format:
    """Errors are told as the answer would be."""
    context.meta[JSON] = chosen is Format.json
    return chosen


Output = Annotated[
    Format,
    typer.Option(
        "--output", "-o", help="text for people, json for scripts (errors on stderr too).", callback=_noted
    ),
]


def print_json(value: object) -> None:
    """One line of JSON, at once."""
    import orjson  # noqa: PLC0415  (commands that print no JSON start without it)

    sys.stdout.buffer.write(orjson.dumps(value, default=str) + b"\n")
    sys.stdout.buffer.flush()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table on a terminal; tab-separated lines where it is read by another program."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            print("\t".join(_cell(value) for value in row))
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    Console().print(table)


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("\t", " ").replace("\n", "\\n")


@contextmanager
def stopped_by_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that a command ends cleanly."""
    event = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: event.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
