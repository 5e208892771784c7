"""`hooklog topics` and `hooklog migrate`: what must be there before anything runs."""

from __future__ import annotations

import typer

from engine.cli.errors import FAILED
from engine.cli.output import Format, Output, print_json
from engine.cli.settings import read_settings

app = typer.Typer(help="The topics on Kafka.", no_args_is_help=True)


@app.command()
def create(output: Output = Format.text) -> None:
    """Create the topics that are missing, and the first offsets of every group."""
    from engine.runtime.kafka import KafkaAdmin  # noqa: PLC0415

    created = KafkaAdmin(read_settings()).create()
    if output is Format.json:
        print_json({"created": created})
    else:
        print(f"created {', '.join(created)}" if created else "all topics are there")


@app.command()
def check(output: Output = Format.text) -> None:
    """Say what is wrong with the topics; exit status 1 if anything is."""
    from engine.runtime.kafka import KafkaAdmin  # noqa: PLC0415

    wrong = KafkaAdmin(read_settings()).check()
    if output is Format.json:
        print_json({"ok": not wrong, "wrong": wrong})
    else:
        print("\n".join(wrong) if wrong else "the topics are as they must be")
    if wrong:
        raise typer.Exit(FAILED)


def migrate(output: Output = Format.text) -> None:
    """Create and update ClickHouse's tables."""
    from engine.runtime.history.clickhouse import connect  # noqa: PLC0415
    from engine.runtime.history.migration import migrate as apply  # noqa: PLC0415

    settings = read_settings()
    client = connect(settings)
    try:
        applied = apply(client, settings)
    finally:
        client.close()
    if output is Format.json:
        print_json({"applied": applied})
    else:
        print(f"applied {', '.join(applied)}" if applied else "the tables are up to date")
