"""`hooklog rebuild`: ClickHouse's tables from the log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from engine.cli.output import Format, Output, print_json, print_table, stopped_by_signal
from engine.cli.settings import read_settings

_LINE_EVERY_S = 5.0
Tell = Callable[[str, int, int], None]


def rebuild(
    discard: Annotated[
        bool,
        typer.Option("--discard", help="Though ClickHouse has rows of another log, which are then gone."),
    ] = False,
    output: Output = Format.text,
) -> None:
    """Make ClickHouse's tables anew from the log; everything may go on running meanwhile.

    Rows older than the log are kept. The new tables replace the old ones when they are complete, not before.
    """
    from dataclasses import asdict  # noqa: PLC0415

    from engine.runtime.clock import SystemClock  # noqa: PLC0415
    from engine.runtime.history.rebuild import Options  # noqa: PLC0415
    from engine.runtime.history.rebuild import rebuild as make_anew  # noqa: PLC0415
    from engine.runtime.kafka import KafkaLog  # noqa: PLC0415

    settings = read_settings()
    with stopped_by_signal() as stop, _shown() as tell:
        options = Options(stop, tell, discard=discard)
        report = make_anew(KafkaLog(settings), settings, options, SystemClock().now())
    if output is Format.json:
        print_json(asdict(report))
        return
    rows = [(table, n.before, n.after, n.carried) for table, n in report.tables.items()]
    print_table(("table", "rows before", "rows now", "older than the log"), rows)
    print(f"{report.records} records read, {report.undecodable} undecodable; `hooklog reconcile` proves it")


@contextmanager
def _shown() -> Iterator[Tell]:
    """A bar on a terminal, else a line now and then; on standard error, as the result is on the other one."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task("")
        yield lambda phase, done, total: bar.update(shown, description=phase, completed=done, total=total)


def _lines() -> Tell:
    last = ("", 0.0)

    def tell(phase: str, done: int, total: int) -> None:
        nonlocal last
        if phase != last[0] or time.monotonic() - last[1] >= _LINE_EVERY_S:
            last = (phase, time.monotonic())
            print(f"{phase}: {done} of {total}", file=sys.stderr, flush=True)

    return tell
