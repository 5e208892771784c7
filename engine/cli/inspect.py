"""Commands that look and check: `sql`, `reconcile`, `verify`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.errors import FAILED, CommandError
from engine.cli.output import Format, Output, print_json, print_table
from engine.cli.profiles import profile_named
from engine.cli.settings import read_settings
from engine.cli.times import duration_of, time_of

if TYPE_CHECKING:
    from engine.runtime.accounting.reconcile import Report, Scope
    from engine.runtime.history.clickhouse import History


def sql(
    query: Annotated[str, typer.Argument(help="SQL, or - to read it from standard input.")],
    output: Output = Format.text,
) -> None:
    """Ask ClickHouse; a table, or with -o json a list of objects."""
    history = _history()
    try:
        table = history.query(sys.stdin.read() if query == "-" else query)
    finally:
        history.close()
    if output is Format.json:
        print_json([dict(zip(table.columns, row, strict=True)) for row in table.rows])
    else:
        print_table(table.columns, table.rows)


def reconcile(
    since: Annotated[
        str, typer.Option(help="Accepted from then on: RFC 3339, or a duration back such as 2h.")
    ] = "",
    until: Annotated[str, typer.Option(help="Accepted before then; the same forms.")] = "",
    grace: Annotated[str, typer.Option(help="How late a delivery, or its row, may be.")] = "60s",
    show: Annotated[int, typer.Option(min=1, help="How many findings of each kind to list.")] = 20,
    output: Output = Format.text,
) -> None:
    """Prove from the log that nothing was lost and that ClickHouse says the same; exit status 1 if not."""
    from engine.runtime.accounting.accounts import Accounts  # noqa: PLC0415
    from engine.runtime.accounting.reconcile import Sources, summary  # noqa: PLC0415
    from engine.runtime.accounting.reconcile import reconcile as compare  # noqa: PLC0415
    from engine.runtime.clock import SystemClock  # noqa: PLC0415
    from engine.runtime.kafka import KafkaLog  # noqa: PLC0415

    scope = _scope(SystemClock().now(), since, until, grace, show)
    settings, history = read_settings(), _history()
    log = KafkaLog(settings)
    reader = log.reader()
    try:
        report = compare(Sources(reader, log, Accounts(history)), settings, scope)
    finally:
        reader.close()
        history.close()
    if output is Format.json:
        print_json(_as_json(report, show))
    else:
        print("\n".join(summary(report, show)))
    if not report.ok:
        raise typer.Exit(FAILED)


def _scope(now: int, since: str, until: str, grace: str, show: int) -> Scope:
    """What the options ask for; CommandError if that is no range."""
    from engine.runtime.accounting.reconcile import Scope  # noqa: PLC0415

    scope = Scope(now, grace_us=duration_of(grace, "--grace"), shown=show)
    if since:
        scope = replace(scope, since=time_of(since, "--since", now))
    if until:
        scope = replace(scope, until=time_of(until, "--until", now))
    if scope.since > now:
        raise CommandError("--since is in the future: nothing has been accepted then")
    if scope.since >= scope.until:
        raise CommandError("--since must be before --until")
    return scope


def _as_json(report: Report, show: int) -> dict[str, object]:
    account = {**asdict(report.account), "unaccounted": report.account.unaccounted}
    gaps = {str(partition): missing for partition, missing in report.gaps.items()}
    shown = {"lost": report.lost[:show], "ok": report.ok, "account": account, "gaps": gaps}
    return {field.name: getattr(report, field.name) for field in fields(report)} | shown


def verify(
    body: Annotated[
        Path, typer.Argument(help="File with the body, byte for byte.", exists=True, dir_okay=False)
    ],
    secret: Annotated[str, typer.Option(envvar="WEBHOOK_SECRET", help="The endpoint's secret.")],
    header: Annotated[list[str], typer.Option("--header", "-H", help="name: value; as often as needed.")],
    profile: Annotated[str, typer.Option(help="Wire profile of the endpoint.")] = "standard",
) -> None:
    """Check the signature of a request; exit status 1 if it does not fit."""
    from engine.core.profile import verify as fits  # noqa: PLC0415

    chosen = profile_named(profile)
    try:
        is_valid = fits(chosen, secret, _headers(header), body.read_bytes())
    except ValueError as error:
        raise CommandError(str(error)) from None
    print("the signature fits" if is_valid else "the signature does not fit: wrong secret, or another body")
    if not is_valid:
        raise typer.Exit(FAILED)


def _headers(given: Sequence[str]) -> dict[str, str]:
    headers = {}
    for line in given:
        name, colon, value = line.partition(":")
        if not colon:
            raise CommandError(f"{line!r} is no header: write name: value")
        headers[name.strip().lower()] = value.strip()
    return headers


def _history() -> History:
    from functools import partial  # noqa: PLC0415

    from engine.runtime.history.clickhouse import History, connect  # noqa: PLC0415

    return History(partial(connect, read_settings()))
