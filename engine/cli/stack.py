"""`hooklog dev`, `demo` and `bench`: the whole system on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def dev(
    folder: Annotated[Path, typer.Option("--dir", help="Everything it keeps is in this folder.")] = Path(
        ".hooklog"
    ),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Of the API; 0 is any free one.")] = 8080,
    kafka_port: Annotated[int, typer.Option(min=0, max=65_535)] = 9092,
    clickhouse_port: Annotated[int, typer.Option(min=0, max=65_535)] = 8123,
) -> None:
    """Run everything with nothing installed but Python: Kafka, ClickHouse's engine, all groups, the API.

    Endpoints at http:// and on this machine are allowed here, unlike in `hooklog run`.
    """
    from engine.dev.stack import Ports, Stack, run_until_stopped  # noqa: PLC0415

    run_until_stopped(Stack(folder, Ports(port, kafka_port, clickhouse_port)))


def demo(
    folder: Annotated[
        Path | None, typer.Option("--dir", help="An empty folder; a temporary one if left out.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running until Ctrl-C.")] = False,
) -> None:
    """Deliver 2,300 events to receivers that check everything; exit status 0 if all is right."""
    from engine.dev.demo.run import run_demo  # noqa: PLC0415

    raise typer.Exit(run_demo(folder, keep=keep))


def bench(
    folder: Annotated[
        Path | None, typer.Option("--dir", help="For data and logs; a temporary one if left out.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each scenario; medians are printed.")] = 5,
    quick: Annotated[bool, typer.Option("--quick", help="One short run of each.")] = False,
    soak: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Watch memory that long instead.")
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the figures there, as JSON.")] = None,
) -> None:
    """Measure deliveries a second and latency, publish to receiver, on the real pipeline."""
    from engine.dev.bench.run import BenchOptions, run_bench  # noqa: PLC0415

    raise typer.Exit(run_bench(BenchOptions(folder, None, repeats, quick, soak, out)))
