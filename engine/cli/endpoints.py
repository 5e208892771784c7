"""`hooklog endpoints`: where messages go, over the API."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from engine.cli import shown
from engine.cli.api_client import Json, ask, given, pairs, path
from engine.cli.errors import CommandError
from engine.cli.output import Format, Output
from engine.cli.times import duration_of

app = typer.Typer(help="Endpoints: URLs, subscriptions, secrets.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Its id.")]
EventType = Annotated[list[str], typer.Option(help="Type or prefix such as room.*; again for more.")]
Profile = Annotated[str | None, typer.Option(help="standard, baxcloud, bedrud, meetingbaas, or your own.")]
Header = Annotated[list[str], typer.Option(help="'NAME: VALUE' to send along; again for more.")]
Description = Annotated[str | None, typer.Option(help="For people.")]
Retry = Annotated[list[str], typer.Option(help="Delay before a retry, such as 30s; again for each.")]
TimeoutMs = Annotated[int | None, typer.Option(help="Of one attempt, milliseconds.")]
RateLimit = Annotated[float | None, typer.Option(help="Requests a second.")]
Secret = Annotated[str | None, typer.Option(help="Else one is made up; - reads it from standard input.")]
_RESETTABLE = ("event_types", "retry_policy", "timeout_ms", "rate_limit")


@app.command("list")
def list_endpoints(
    tenant: shown.TenantOption = None,
    limit: shown.Limit = 50,
    cursor: shown.Cursor = None,
    output: Output = Format.text,
) -> None:
    """List endpoints, oldest first."""
    shown.ask_list("endpoints", {"tenant": tenant, "limit": limit, "cursor": cursor}, output)


@app.command("get")
def get_endpoint(endpoint: Id, output: Output = Format.text) -> None:
    """Show an endpoint."""
    shown.show_one(ask("GET", path("endpoints", endpoint)), output)


@app.command("health")
def show_health(
    endpoint: Id,
    hours: Annotated[int, typer.Option(min=1, max=720, help="How far back to look.")] = 24,
    output: Output = Format.text,
) -> None:
    """Show how an endpoint is doing, and what is probably wrong with it."""
    shown.show_one(ask("GET", path("endpoints", endpoint, "health"), query={"hours": hours}), output)


@app.command("create")
def create_endpoint(
    url: str,
    tenant: Annotated[str | None, typer.Option(help="Whose it is; a tenant's key knows.")] = None,
    event_type: EventType = [],  # noqa: B006  (typer never changes it)
    profile: Profile = None,
    secret: Secret = None,
    header: Header = [],  # noqa: B006
    description: Description = None,
    retry: Retry = [],  # noqa: B006
    timeout_ms: TimeoutMs = None,
    rate_limit: RateLimit = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Deliver nothing to it yet.")] = False,
    idempotency_key: shown.IdempotencyKey = None,
    output: Output = Format.text,
) -> None:
    """Create an endpoint; its signing secret is shown this once. Without --event-type it gets all."""
    settings = _settings(event_type, header, retry)
    body = given(tenant=tenant, url=url, profile=profile, secret=_secret(secret), description=description)
    body |= settings | given(timeout_ms=timeout_ms, rate_limit=rate_limit) | {"enabled": not disabled}
    shown.show_one(ask("POST", path("endpoints"), body, idempotency_key=idempotency_key), output)


@app.command("update")
def update_endpoint(
    endpoint: Id,
    url: Annotated[str | None, typer.Option(help="Where it is now.")] = None,
    event_type: EventType = [],  # noqa: B006
    profile: Profile = None,
    header: Header = [],  # noqa: B006
    description: Description = None,
    retry: Retry = [],  # noqa: B006
    timeout_ms: TimeoutMs = None,
    rate_limit: RateLimit = None,
    reset: Annotated[
        list[str], typer.Option(help=f"Back to the profile's: {', '.join(_RESETTABLE)} (event_types: all).")
    ] = [],  # noqa: B006
    output: Output = Format.text,
) -> None:
    """Change what is named; the rest stays."""
    if unknown := set(reset) - set(_RESETTABLE):
        raise CommandError(f"--reset: {', '.join(sorted(unknown))}: choose among {', '.join(_RESETTABLE)}")
    body = given(url=url, profile=profile, description=description, timeout_ms=timeout_ms)
    body |= _settings(event_type, header, retry) | given(rate_limit=rate_limit) | dict.fromkeys(reset)
    if not body:
        raise CommandError("nothing to change: name at least one setting")
    shown.show_one(ask("PATCH", path("endpoints", endpoint), body), output)


@app.command("enable")
def enable_endpoint(endpoint: Id, output: Output = Format.text) -> None:
    """Deliver to it from now on."""
    shown.show_one(ask("POST", path("endpoints", endpoint, "enable")), output)


@app.command("disable")
def disable_endpoint(endpoint: Id, output: Output = Format.text) -> None:
    """Deliver nothing more to it; what waits is skipped."""
    shown.show_one(ask("POST", path("endpoints", endpoint, "disable")), output)


@app.command("delete")
def delete_endpoint(endpoint: Id, yes: shown.Yes = False, output: Output = Format.text) -> None:
    """Delete an endpoint with its secrets; deliveries under way are skipped."""
    shown.confirm(yes, f"delete the endpoint {endpoint!r} with its secrets")
    ask("DELETE", path("endpoints", endpoint))
    shown.show_done(output, f"endpoint {endpoint} is deleted")


@app.command("rotate-secret")
def rotate_secret(
    endpoint: Id,
    secret: Secret = None,
    overlap: Annotated[
        str | None, typer.Option(help="How long both sign, such as 24h; else the profile's.")
    ] = None,
    idempotency_key: shown.IdempotencyKey = None,
    output: Output = Format.text,
) -> None:
    """Sign with a new secret, which is shown this once."""
    seconds = None if overlap is None else -(-duration_of(overlap, "--overlap") // 1_000_000)
    where = path("endpoints", endpoint, "rotate-secret")
    body = given(secret=_secret(secret), overlap_seconds=seconds)
    shown.show_one(ask("POST", where, body, idempotency_key=idempotency_key), output)


@app.command("test")
def send_test(
    endpoint: Id,
    event_type: Annotated[
        str, typer.Option(help="ping, or a type of the catalogue with an example.")
    ] = "ping",
    output: Output = Format.text,
) -> None:
    """Send one signed request now and show what came back; exit status 1 if it failed."""
    answer = ask("POST", path("endpoints", endpoint, "test"), {"event_type": event_type})
    shown.show_one(answer, output)
    if answer.value.get("status") != "success":
        raise typer.Exit(1)


def _settings(event_types: list[str], headers: list[str], retries: list[str]) -> Json:
    return given(event_types=event_types, headers=pairs(headers), retry_policy=retries)


def _secret(text: str | None) -> str | None:
    """A secret on the command line can be seen by others on the machine, one on standard input cannot."""
    return sys.stdin.readline().rstrip("\r\n") if text == "-" else text
