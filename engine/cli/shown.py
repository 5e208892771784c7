"""What the API answers, as people read it; with `-o json` it is the answer itself, one document."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from engine.cli.api_client import Answer, Query, ask, path
from engine.cli.errors import WRONG_INPUT, CommandError
from engine.cli.output import Format, print_json, print_table

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "tenants": ("id", "name", "created_at"),
    "keys": ("id", "tenant", "scopes", "description", "expires_at", "created_at"),
    "event types": ("name", "description", "updated_at"),
    "endpoints": ("id", "tenant", "url", "event_types", "profile", "enabled", "disabled_reason"),
    "messages": ("id", "tenant", "event_type", "accepted_at", "bytes", "matched", "skipped"),
    "deliveries": (
        *("id", "endpoint_id", "message_id", "event_type", "status", "error_class", "attempt_count"),
        *("accepted_at", "next_attempt_at"),
    ),
    "attempts": (
        *("attempt", "trigger", "attempted_at", "duration_ms", "outcome", "status_code", "error_class"),
        *("decision", "next_attempt_at"),
    ),
    "replays": ("id", "tenant", "endpoint", "only", "status", "planned", "deliveries", "started_at"),
    "changes": ("at", "tenant", "subject", "subject_id", "change", "actor", "details"),
    "results": ("status", "id", "detail"),
}
"""Kind of thing -> what of it a table shows; JSON has all."""
_SECRETS = {"secret": "signing secret", "key": "API key"}

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="At most so many.")]
Cursor = Annotated[str | None, typer.Option(help="Go on where the page before ended.")]
Since = Annotated[str | None, typer.Option(help="From then on: RFC 3339, or 2h for two hours ago.")]
Until = Annotated[str | None, typer.Option(help="Before then, likewise.")]
TenantOption = Annotated[str | None, typer.Option(help="Only of this tenant.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether you are sure.")]
IdempotencyKey = Annotated[str | None, typer.Option(help="A repeat with the same key does nothing twice.")]


def ask_list(kind: str, query: Query, output: Format) -> None:
    """Ask for a page and show it."""
    show_list(ask("GET", path(kind.replace(" ", "-")), query=query), kind, output)


def show_list(answer: Answer, kind: str, output: Format) -> None:
    """A page as a table; how to go on is said on standard error."""
    if output is Format.json:
        _print_raw(answer)
        return
    _print_rows(_rows(answer.value.get("data")), kind)
    if following := answer.value.get("next"):
        print(f"there is more: --cursor {following}", file=sys.stderr)


def show_one(answer: Answer, output: Format) -> None:
    """One thing: its fields, then tables of what it holds, then a secret that is shown this once."""
    if output is Format.json:
        _print_raw(answer)
        return
    shown = answer.value
    tables = {name: rows for name, value in shown.items() if (rows := _rows(value))}
    plain = {name: v for name, v in shown.items() if name not in tables and name not in _SECRETS}
    if plain:
        print_table(("field", "value"), [(name, _cell(value)) for name, value in plain.items()])
    for name, rows in tables.items():
        print(f"\n{name}:")
        _print_rows(rows, name)
        for row in rows:
            if inner := _rows(row.get("attempts")):
                print(f"\nattempts of {row.get('id')}:")
                _print_rows(inner, "attempts")
    for name, words in _SECRETS.items():
        if shown.get(name):
            print(f"\n{words}, shown this once: {shown[name]}")


def show_done(output: Format, words: str) -> None:
    """Say that what has no answer is done; scripts get an empty object."""
    if output is Format.json:
        print_json({})
    else:
        print(words)


def confirm(yes: bool, what: str) -> None:
    """Ask, unless told not to; CommandError where nobody can answer, exit 1 for a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CommandError(f"would {what}: say --yes if that is what you want", WRONG_INPUT)
    typer.confirm(f"{what}?", abort=True)


def moment(text: str | None, option: str) -> str | None:
    """A time as the API takes it; CommandError."""
    from engine.cli.times import time_of  # noqa: PLC0415
    from engine.core.profile import rfc3339  # noqa: PLC0415
    from engine.runtime.clock import SystemClock  # noqa: PLC0415

    return None if text is None else rfc3339(time_of(text, option, SystemClock().now()))


def moment_ahead(text: str | None, option: str) -> str | None:
    """The same of a time to come, for which 30d is in 30 days."""
    from engine.cli.times import time_ahead  # noqa: PLC0415
    from engine.core.profile import rfc3339  # noqa: PLC0415
    from engine.runtime.clock import SystemClock  # noqa: PLC0415

    return None if text is None else rfc3339(time_ahead(text, option, SystemClock().now()))


def _print_raw(answer: Answer) -> None:
    """As it came: what a parser would have rounded is not."""
    sys.stdout.buffer.write(answer.raw + b"\n")
    sys.stdout.buffer.flush()


def _rows(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _print_rows(rows: Sequence[Mapping[str, object]], kind: str) -> None:
    names = _COLUMNS.get(kind) or tuple(rows[0] if rows else ())
    print_table(names, [[_cell(row.get(name)) for name in names] for row in rows])


def _cell(value: object) -> object:
    """Lists of words with commas, what is deeper as JSON."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    if isinstance(value, (dict, list)):
        import json  # noqa: PLC0415

        return json.dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else value
