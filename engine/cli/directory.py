"""`hooklog tenants`, `keys`, `event-types`: what the platform's people set up, over the API."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from engine.cli import shown
from engine.cli.api_client import Json, ask, given, path
from engine.cli.errors import CommandError
from engine.cli.output import Format, Output, print_json

tenants = typer.Typer(help="Tenants: the platform's customers.", no_args_is_help=True)
keys = typer.Typer(help="API keys.", no_args_is_help=True)
event_types = typer.Typer(help="The catalogue of event types.", no_args_is_help=True)


class Platform(StrEnum):
    """The platforms whose event types are shipped."""

    baxcloud = "baxcloud"
    bedrud = "bedrud"
    meetingbaas = "meetingbaas"


@tenants.command("list")
def list_tenants(limit: shown.Limit = 50, cursor: shown.Cursor = None, output: Output = Format.text) -> None:
    """List tenants, oldest first."""
    shown.ask_list("tenants", {"limit": limit, "cursor": cursor}, output)


@tenants.command("create")
def create_tenant(
    tenant: Annotated[str, typer.Argument(help="Its id.")],
    name: Annotated[str | None, typer.Option(help="What people call it.")] = None,
    idempotency_key: shown.IdempotencyKey = None,
    output: Output = Format.text,
) -> None:
    """Create a tenant."""
    body = given(id=tenant, name=name)
    shown.show_one(ask("POST", path("tenants"), body, idempotency_key=idempotency_key), output)


@tenants.command("delete")
def delete_tenant(tenant: str, yes: shown.Yes = False, output: Output = Format.text) -> None:
    """Delete a tenant with its endpoints and keys; its secrets can never be opened again."""
    shown.confirm(yes, f"delete the tenant {tenant!r} with its endpoints, keys and secrets")
    ask("DELETE", path("tenants", tenant))
    shown.show_done(output, f"tenant {tenant} is deleted")


@keys.command("list")
def list_keys(
    tenant: shown.TenantOption = None,
    limit: shown.Limit = 50,
    cursor: shown.Cursor = None,
    output: Output = Format.text,
) -> None:
    """List API keys, oldest first."""
    shown.ask_list("keys", {"tenant": tenant, "limit": limit, "cursor": cursor}, output)


@keys.command("create")
def create_key(
    scope: Annotated[list[str], typer.Option(help="admin, manage, publish or read; again for more.")],
    tenant: Annotated[str | None, typer.Option(help="Tenant it is bound to; else the platform's.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    expires_at: Annotated[
        str | None, typer.Option(help="RFC 3339, or 30d for in 30 days; else never.")
    ] = None,
    idempotency_key: shown.IdempotencyKey = None,
    output: Output = Format.text,
) -> None:
    """Create an API key; it is shown this once."""
    ends = shown.moment_ahead(expires_at, "--expires-at")
    body = given(tenant=tenant, scopes=scope, description=description, expires_at=ends)
    shown.show_one(ask("POST", path("keys"), body, idempotency_key=idempotency_key), output)


@keys.command("delete")
def delete_key(key: str, yes: shown.Yes = False, output: Output = Format.text) -> None:
    """Revoke an API key: it is refused from then on."""
    shown.confirm(yes, f"revoke the API key {key!r}")
    ask("DELETE", path("keys", key))
    shown.show_done(output, f"API key {key} is revoked")


@event_types.command("list")
def list_event_types(
    limit: shown.Limit = 50, cursor: shown.Cursor = None, output: Output = Format.text
) -> None:
    """List event types by name."""
    shown.ask_list("event types", {"limit": limit, "cursor": cursor}, output)


@event_types.command("put")
def put_event_type(
    name: str,
    description: Annotated[str | None, typer.Option(help="What it says.")] = None,
    schema: Annotated[Path | None, typer.Option(help="File with the JSON Schema of its payload.")] = None,
    example: Annotated[Path | None, typer.Option(help="File with an example payload.")] = None,
    output: Output = Format.text,
) -> None:
    """Make an event type, or replace it."""
    body = given(description=description, schema=_json_of(schema), example=_json_of(example))
    shown.show_one(ask("PUT", path("event-types", name), body), output)


@event_types.command("delete")
def delete_event_type(name: str, yes: shown.Yes = False, output: Output = Format.text) -> None:
    """Take an event type out of the catalogue."""
    shown.confirm(yes, f"take the event type {name!r} out of the catalogue")
    ask("DELETE", path("event-types", name))
    shown.show_done(output, f"event type {name} is no longer in the catalogue")


@event_types.command("load")
def load_event_types(
    platform: Annotated[Platform, typer.Argument(help="Whose.")],
    output: Output = Format.text,
) -> None:
    """Put a platform's shipped event types into the catalogue; what is there by these names is replaced."""
    from engine.runtime.configuration.catalogues import shipped  # noqa: PLC0415

    found = shipped(platform)
    for each in found:
        documents = {"schema": each.schema, "example": each.example}
        parts: Json = {name: json.loads(text) for name, text in documents.items() if text}
        ask("PUT", path("event-types", each.name), {"description": each.description, **parts})
    names = [each.name for each in found]
    if output is Format.json:
        print_json({"loaded": names})
    else:
        print(f"loaded {', '.join(names)}")


def _json_of(file: Path | None) -> object:
    try:
        return None if file is None else json.loads(file.read_bytes())
    except ValueError as error:
        raise CommandError(f"{file} is no JSON: {error}") from None
