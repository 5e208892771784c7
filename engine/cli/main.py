"""The command `hooklog`. A family of commands is a module; what a command needs is imported when it runs."""

from __future__ import annotations

import typer

from engine.cli import (
    directory,
    endpoints,
    history,
    inspect,
    listen,
    master_key,
    publish,
    rebuild,
    run,
    settings,
    stack,
    tail,
    topics,
)
from engine.cli.errors import Commands

app = typer.Typer(
    name="hooklog",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Delivers webhooks from a Kafka log: signed, retried, visible, provably complete.",
    epilog="Exit status: 0 fine, 1 refused or failed, 2 wrong input or settings, 3 a service is unreachable. "
    "With -o json an error is one line of JSON (RFC 9457) on standard error; standard output stays empty.",
)
app.command()(stack.dev)
app.command()(stack.demo)
app.command()(stack.bench)
app.command()(run.run)
app.add_typer(topics.app, name="topics")
app.command()(topics.migrate)
app.command()(publish.publish)
app.command()(listen.listen)
app.command()(tail.tail)
app.add_typer(directory.tenants, name="tenants")
app.add_typer(directory.keys, name="keys")
app.add_typer(directory.event_types, name="event-types")
app.add_typer(endpoints.app, name="endpoints")
app.add_typer(history.messages, name="messages")
app.add_typer(history.deliveries, name="deliveries")
app.add_typer(history.replays, name="replays")
app.add_typer(history.changes, name="changes")
app.command()(history.accounting)
app.command()(inspect.sql)
app.command()(inspect.reconcile)
app.command()(rebuild.rebuild)
app.command()(inspect.verify)
app.command()(settings.config)
app.command()(master_key.rotate_master_key)

if __name__ == "__main__":
    app()
