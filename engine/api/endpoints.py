"""Routes of endpoints. Answers come once the change is on the log and in this process's view."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Query, Response

from engine.api import endpoint_rules as rules
from engine.api.auth import Authenticated, Caller, Needed
from engine.api.ids import Origin, origin
from engine.api.models import CreatedAnswer, EndpointAnswer, EndpointInput, EndpointList, EndpointPatch
from engine.api.problems import FieldError, Problem, wrong
from engine.api.services import Services
from engine.core.change import (
    CreateEndpoint,
    DeleteEndpoint,
    DisableEndpoint,
    EnableEndpoint,
    SealedSecret,
    UpdateEndpoint,
)
from engine.core.endpoint import Endpoint
from engine.core.profile import generate_secret
from engine.runtime.vault import COMMAND_KEY_ID

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])

IdempotencyKey = Annotated[str | None, Header(description="A repeat with the same key changes nothing.")]
Base = tuple[str, str, str, int, str]
_BY_HAND = "disabled by hand"


@router.post("", status_code=201, response_model=CreatedAnswer, response_model_exclude_unset=True)
async def create_endpoint(
    given: EndpointInput,
    services: Needed,
    caller: Authenticated,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> CreatedAnswer:
    """Create an endpoint; its secret is in this answer and never again."""
    made = origin(caller, "POST /v1/endpoints", idempotency_key)
    command, secret = _creation(services, caller, made, given)
    endpoint = _created_before(services, made)
    shown: dict[str, Any] = {}
    if endpoint is None:
        endpoint = await services.control.ask(command)
        # Of two requests at once under one key, only one has chosen the secret.
        if endpoint.id == command.endpoint_id and await services.control.secret_of(endpoint) == secret:
            shown = {"secret": secret}
    if endpoint.id != command.endpoint_id:
        raise wrong(FieldError("Idempotency-Key", "was used before, with another body: choose a new one"))
    response.headers["Location"] = f"{router.prefix}/{endpoint.id}"
    return CreatedAnswer(**rules.answer(endpoint).model_dump(), **shown)


@router.get("", response_model=EndpointList)
async def list_endpoints(
    services: Needed,
    caller: Authenticated,
    tenant: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: str | None = None,
) -> EndpointList:
    """List endpoints, oldest first, of one tenant or of all."""
    wanted = caller.tenant or tenant
    after = _cursor(cursor)
    found = sorted(
        (_place(endpoint), endpoint)
        for endpoint in list(services.configuration.endpoints.values())
        if not endpoint.deleted and wanted in (None, endpoint.tenant) and _place(endpoint) > after
    )
    page = [endpoint for _, endpoint in found[:limit]]
    more = f"{page[-1].created_at}.{page[-1].id}" if len(found) > limit else None
    return EndpointList(data=[rules.answer(endpoint) for endpoint in page], next=more)


@router.get("/{endpoint_id}", response_model=EndpointAnswer)
async def get_endpoint(endpoint_id: str, services: Needed, caller: Authenticated) -> EndpointAnswer:
    """Show one endpoint."""
    return rules.answer(_known(services, caller, endpoint_id))


@router.patch("/{endpoint_id}", response_model=EndpointAnswer)
async def update_endpoint(
    endpoint_id: str, given: EndpointPatch, services: Needed, caller: Authenticated
) -> EndpointAnswer:
    """Change what the body names; `enabled` too."""
    endpoint = _known(services, caller, endpoint_id)
    fields = tuple(name for name in rules.SETTINGS if name in given.model_fields_set)
    if fields:
        changed = rules.settings_of(given)
        merged = replace(endpoint.settings, **{name: getattr(changed, name) for name in fields})
        secret = await services.control.secret_of(endpoint) if "profile" in fields else None
        rules.check_settings(services.context, merged, secret)
        base = _base(services, caller, origin(caller, "", None), endpoint)
        endpoint = await services.control.ask(UpdateEndpoint(*base, fields, changed))
    if "enabled" in given.model_fields_set:
        made = origin(caller, "", None)
        endpoint = await _set_enabled(services, caller, made, endpoint, wanted=given.enabled)
    return rules.answer(endpoint)


@router.delete("/{endpoint_id}", status_code=204)
async def delete_endpoint(endpoint_id: str, services: Needed, caller: Authenticated) -> None:
    """Delete an endpoint with its secrets; deliveries under way are skipped."""
    endpoint = _known(services, caller, endpoint_id)
    base = _base(services, caller, origin(caller, "", None), endpoint)
    await services.control.ask(DeleteEndpoint(*base))


@router.post("/{endpoint_id}/enable", response_model=EndpointAnswer)
async def enable_endpoint(
    endpoint_id: str, services: Needed, caller: Authenticated, idempotency_key: IdempotencyKey = None
) -> EndpointAnswer:
    """Deliver to it from now on; what was skipped stays skipped."""
    endpoint = _known(services, caller, endpoint_id)
    made = origin(caller, f"POST /v1/endpoints/{endpoint_id}/enable", idempotency_key)
    return rules.answer(await _set_enabled(services, caller, made, endpoint, wanted=True))


@router.post("/{endpoint_id}/disable", response_model=EndpointAnswer)
async def disable_endpoint(
    endpoint_id: str, services: Needed, caller: Authenticated, idempotency_key: IdempotencyKey = None
) -> EndpointAnswer:
    """Deliver nothing more; what waits is skipped."""
    endpoint = _known(services, caller, endpoint_id)
    made = origin(caller, f"POST /v1/endpoints/{endpoint_id}/disable", idempotency_key)
    return rules.answer(await _set_enabled(services, caller, made, endpoint, wanted=False))


async def _set_enabled(
    services: Services, caller: Caller, made: Origin, endpoint: Endpoint, *, wanted: bool
) -> Endpoint:
    if endpoint.enabled == wanted:
        return endpoint
    base = _base(services, caller, made, endpoint)
    return await services.control.ask(EnableEndpoint(*base) if wanted else DisableEndpoint(*base, _BY_HAND))


def _creation(
    services: Services, caller: Caller, made: Origin, given: EndpointInput
) -> tuple[CreateEndpoint, str]:
    """(the command, the secret in the clear)."""
    context, settings = services.context, rules.settings_of(given)
    chosen = None if given.secret is None else given.secret.get_secret_value()
    profile = rules.check_settings(context, settings, chosen)
    clear = chosen or generate_secret(profile, os.urandom(32))
    body = given.model_dump(mode="json", exclude={"secret"}) | {"chosen": chosen}
    endpoint_id = made.endpoint_id(orjson.dumps(body, option=orjson.OPT_SORT_KEYS), context.vault.command_key)
    unsealed = SealedSecret(1, COMMAND_KEY_ID, b"", b"")
    keyring = services.configuration.keyring
    sealed = keyring.seal(COMMAND_KEY_ID, (given.tenant, endpoint_id), unsealed, clear)
    base: Base = (made.command_id(), given.tenant, caller.actor, context.clock.now(), endpoint_id)
    return CreateEndpoint(*base, settings, given.enabled, sealed), clear


def _created_before(services: Services, made: Origin) -> Endpoint | None:
    """Return the endpoint that a request with the same Idempotency-Key has made, whatever its body."""
    if not made.is_repeatable:
        return None
    endpoints = list(services.configuration.endpoints.values())
    return next((e for e in endpoints if e.id.startswith(made.endpoint_prefix)), None)


def _known(services: Services, caller: Caller, endpoint_id: str) -> Endpoint:
    endpoint = services.configuration.endpoints.get(endpoint_id)
    if endpoint is None or endpoint.deleted or caller.tenant not in (None, endpoint.tenant):
        raise Problem(404, f"there is no endpoint {endpoint_id!r}")
    return endpoint


def _base(services: Services, caller: Caller, made: Origin, endpoint: Endpoint) -> Base:
    """What every command begins with."""
    return (
        made.command_id(),
        endpoint.tenant,
        caller.actor,
        services.context.clock.now(),
        endpoint.id,
    )


def _place(endpoint: Endpoint) -> tuple[int, str]:
    return endpoint.created_at, endpoint.id


def _cursor(cursor: str | None) -> tuple[int, str]:
    created_at, _, endpoint_id = (cursor or "0.").partition(".")
    if not created_at.isdecimal() or len(created_at) > 20:
        raise wrong(FieldError("cursor", "is none that was given out: begin without"))
    return int(created_at), endpoint_id
