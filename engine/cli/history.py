"""`hooklog messages`, `deliveries`, `replays`, `changes`: what happened, and doing it again, over the API."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from engine.cli import shown
from engine.cli.api_client import Query, ask, given, path
from engine.cli.errors import FAILED, CommandError
from engine.cli.output import Format, Output

messages = typer.Typer(help="Messages.", no_args_is_help=True)
deliveries = typer.Typer(help="Deliveries: one message to one endpoint.", no_args_is_help=True)
replays = typer.Typer(help="Replays: many deliveries again.", no_args_is_help=True)
changes = typer.Typer(help="The audit trail.", no_args_is_help=True)

_BATCH = 1_000
EventType = Annotated[str | None, typer.Option(help="Only of this event type.")]
Endpoint = Annotated[str | None, typer.Option(help="Only to this endpoint.")]


class Status(StrEnum):
    """Where a delivery stands."""

    delivered = "delivered"
    failed = "failed"
    pending = "pending"
    skipped = "skipped"


class Only(StrEnum):
    """What a replay makes again."""

    failed = "failed"
    missed = "missed"
    all = "all"


def _page(tenant: str | None, since: str | None, until: str | None, limit: int, cursor: str | None) -> Query:
    times = {"since": shown.moment(since, "--since"), "until": shown.moment(until, "--until")}
    return {"tenant": tenant, **times, "limit": limit, "cursor": cursor}


@messages.command("list")
def list_messages(
    tenant: shown.TenantOption = None,
    event_type: EventType = None,
    since: shown.Since = None,
    until: shown.Until = None,
    limit: shown.Limit = 50,
    cursor: shown.Cursor = None,
    output: Output = Format.text,
) -> None:
    """List messages, newest first."""
    query = {**_page(tenant, since, until, limit, cursor), "event_type": event_type}
    shown.ask_list("messages", query, output)


@messages.command("get")
def get_message(message: str, tenant: shown.TenantOption = None, output: Output = Format.text) -> None:
    """Show a message with its payload, each delivery and each attempt."""
    shown.show_one(ask("GET", path("messages", message), query={"tenant": tenant}), output)


@messages.command("send")
def send_message(
    event_type: str,
    payload: Annotated[str, typer.Argument(help="File with the JSON payload; - is standard input.")] = "-",
    tenant: Annotated[str | None, typer.Option(help="Whose it is; a tenant's key knows.")] = None,
    message_id: Annotated[str | None, typer.Option("--id", help="Else one is made up.")] = None,
    ordering_key: Annotated[str | None, typer.Option(help="Same key, same order.")] = None,
    idempotency_key: shown.IdempotencyKey = None,
    output: Output = Format.text,
) -> None:
    """Publish a message; its payload goes out byte for byte."""
    import orjson  # noqa: PLC0415

    fields = given(tenant=tenant, event_type=event_type, id=message_id, ordering_key=ordering_key)
    fields["payload"] = orjson.Fragment(_content(payload))
    shown.show_one(ask("POST", path("messages"), fields, idempotency_key=idempotency_key), output)


@messages.command("send-batch")
def send_batch(
    file: Annotated[str, typer.Argument(help="Lines of {tenant, event_type, payload, id?}; - is stdin.")],
    output: Output = Format.text,
) -> None:
    """Publish up to 1,000 messages; exit status 1 if one of them was refused. For more: `hooklog publish`."""
    lines = [line for line in _content(file).splitlines() if line.strip()]
    if not 1 <= len(lines) <= _BATCH:
        raise CommandError(f"{file} has {len(lines)} messages: a batch is 1 to {_BATCH}")
    answer = ask("POST", path("messages", "batch"), b'{"messages":[' + b",".join(lines) + b"]}")
    shown.show_list(answer, "results", output)
    results = answer.value.get("data")
    assert isinstance(results, list)
    if any(result["status"] != 202 for result in results):
        raise typer.Exit(FAILED)


@deliveries.command("list")
def list_deliveries(
    tenant: shown.TenantOption = None,
    endpoint: Endpoint = None,
    message: Annotated[str | None, typer.Option(help="Only of this message.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only where they stand so.")] = None,
    event_type: EventType = None,
    since: shown.Since = None,
    until: shown.Until = None,
    limit: shown.Limit = 50,
    cursor: shown.Cursor = None,
    output: Output = Format.text,
) -> None:
    """List deliveries, newest message first."""
    filters = {"endpoint": endpoint, "message": message, "status": status, "event_type": event_type}
    query = {**_page(tenant, since, until, limit, cursor), **filters}
    shown.ask_list("deliveries", query, output)


@deliveries.command("get")
def get_delivery(delivery: str, output: Output = Format.text) -> None:
    """Show a delivery with each of its attempts."""
    shown.show_one(ask("GET", path("deliveries", delivery)), output)


@deliveries.command("resend")
def resend_delivery(
    delivery: str, idempotency_key: shown.IdempotencyKey = None, output: Output = Format.text
) -> None:
    """Make a delivery once more."""
    where = path("deliveries", delivery, "resend")
    shown.show_one(ask("POST", where, idempotency_key=idempotency_key), output)


@replays.command("list")
def list_replays(
    tenant: shown.TenantOption = None,
    limit: shown.Limit = 50,
    cursor: shown.Cursor = None,
    output: Output = Format.text,
) -> None:
    """List replays."""
    shown.ask_list("replays", {"tenant": tenant, "limit": limit, "cursor": cursor}, output)


@replays.command("get")
def get_replay(replay: str, output: Output = Format.text) -> None:
    """Show how far a replay is."""
    shown.show_one(ask("GET", path("replays", replay)), output)


@replays.command("start")
def start_replay(
    since: Annotated[str, typer.Option(help="From then on: RFC 3339, or 2h for two hours ago.")],
    until: shown.Until = None,
    only: Annotated[
        Only, typer.Option(help="What failed, what an endpoint never got, or everything.")
    ] = Only.failed,
    tenant: shown.TenantOption = None,
    endpoint: Endpoint = None,
    event_type: Annotated[list[str], typer.Option(help="Only these types; again for more.")] = [],  # noqa: B006
    rate: Annotated[float | None, typer.Option(help="Deliveries a second.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be sent.")] = False,
    idempotency_key: shown.IdempotencyKey = None,
    output: Output = Format.text,
) -> None:
    """Make many deliveries again."""
    times = given(since=shown.moment(since, "--since"), until=shown.moment(until, "--until"))
    body = given(tenant=tenant, endpoint=endpoint, event_types=event_type, rate=rate)
    body |= times | {"only": only, "dry_run": dry_run}
    shown.show_one(ask("POST", path("replays"), body, idempotency_key=idempotency_key), output)


@replays.command("cancel")
def cancel_replay(replay: str, output: Output = Format.text) -> None:
    """End a replay; what it has written is still delivered."""
    shown.show_one(ask("POST", path("replays", replay, "cancel")), output)


@changes.command("list")
def list_changes(
    tenant: shown.TenantOption = None,
    subject: Annotated[str | None, typer.Option(help="Kind of thing: endpoint, key, tenant, replay…")] = None,
    subject_id: Annotated[str | None, typer.Option(help="Only of this thing.")] = None,
    change: Annotated[str | None, typer.Option(help="Such as created, disabled, secret_rotated.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only what it asked for.")] = None,
    since: shown.Since = None,
    until: shown.Until = None,
    limit: shown.Limit = 50,
    cursor: shown.Cursor = None,
    output: Output = Format.text,
) -> None:
    """List who did what, newest first."""
    filters = {"subject": subject, "subject_id": subject_id, "change": change, "actor": actor}
    query = {**_page(tenant, since, until, limit, cursor), **filters}
    shown.ask_list("changes", query, output)


def accounting(tenant: shown.TenantOption = None, output: Output = Format.text) -> None:
    """Count what became of every delivery; exit status 1 if any is unaccounted."""
    answer = ask("GET", path("accounting"), query={"tenant": tenant})
    shown.show_one(answer, output)
    if answer.value.get("unaccounted"):
        raise typer.Exit(FAILED)


def _content(file: str) -> bytes:
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
