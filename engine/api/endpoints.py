"""Routes of endpoints. Answers come once the change is on the log and in this process's view."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import orjson
from fastapi import APIRouter, Response

from engine.api import endpoint_rules as rules
from engine.api.auth import Caller, CanManage, CanRead, Needed
from engine.api.bodies import StrictRoute
from engine.api.ids import IdempotencyKey, Origin, base, origin, used_before
from engine.api.models import CreatedAnswer, EndpointAnswer, EndpointInput, EndpointList, EndpointPatch
from engine.api.pages import Cursor, Limit, Place, page
from engine.api.problems import FieldError, Problem, wrong
from engine.api.services import Services
from engine.core.change import (
    CreateEndpoint,
    DeleteEndpoint,
    DisableEndpoint,
    EnableEndpoint,
    UpdateEndpoint,
)
from engine.core.endpoint import Endpoint
from engine.core.profile import generate_secret

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"], route_class=StrictRoute)

About = tuple[str, str, str, int, str]
"""What every command about an endpoint begins with."""
_BY_HAND = "disabled by hand"


@router.post("", status_code=201, response_model=CreatedAnswer, response_model_exclude_unset=True)
async def create_endpoint(
    given: EndpointInput,
    services: Needed,
    caller: CanManage,
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
        raise used_before()
    response.headers["Location"] = _path(endpoint)
    return CreatedAnswer(**rules.answer(endpoint).model_dump(), **shown)


@router.get("", response_model=EndpointList)
async def list_endpoints(
    services: Needed,
    caller: CanRead,
    tenant: str | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> EndpointList:
    """List endpoints, oldest first, of one tenant or of all."""
    wanted = caller.scope_of(tenant)
    endpoints = (
        endpoint
        for endpoint in list(services.configuration.endpoints.values())
        if not endpoint.deleted and wanted in (None, endpoint.tenant)
    )
    found, more = page(endpoints, _place, limit, cursor)
    return EndpointList(data=[rules.answer(endpoint) for endpoint in found], next=more)


@router.get("/{endpoint_id}", response_model=EndpointAnswer)
async def get_endpoint(endpoint_id: str, services: Needed, caller: CanRead) -> EndpointAnswer:
    """Show one endpoint."""
    return rules.answer(known(services, caller, endpoint_id))


@router.patch("/{endpoint_id}", response_model=EndpointAnswer)
async def update_endpoint(
    endpoint_id: str, given: EndpointPatch, services: Needed, caller: CanManage
) -> EndpointAnswer:
    """Change what the body names; `enabled` too."""
    endpoint = known(services, caller, endpoint_id)
    if "secret" in given.model_fields_set:
        raise wrong(FieldError("secret", f"cannot be changed here: use POST {_path(endpoint)}/rotate-secret"))
    fields = tuple(name for name in rules.SETTINGS if name in given.model_fields_set)
    if fields:
        changed = rules.settings_of(given)
        merged = replace(endpoint.settings, **{name: getattr(changed, name) for name in fields})
        secret = await services.control.secret_of(endpoint) if "profile" in fields else None
        rules.check_settings(services.context, merged, secret)
        made_by = about(services, caller, origin(caller, "", None), endpoint)
        endpoint = await services.control.ask(UpdateEndpoint(*made_by, fields, changed))
    if "enabled" in given.model_fields_set:
        made = origin(caller, "", None)
        endpoint = await _set_enabled(services, caller, made, endpoint, wanted=given.enabled)
    return rules.answer(endpoint)


@router.delete("/{endpoint_id}", status_code=204)
async def delete_endpoint(endpoint_id: str, services: Needed, caller: CanManage) -> None:
    """Delete an endpoint with its secrets; deliveries under way are skipped."""
    endpoint = known(services, caller, endpoint_id)
    made_by = about(services, caller, origin(caller, "", None), endpoint)
    await services.control.ask(DeleteEndpoint(*made_by))


@router.post("/{endpoint_id}/enable", response_model=EndpointAnswer)
async def enable_endpoint(
    endpoint_id: str, services: Needed, caller: CanManage, idempotency_key: IdempotencyKey = None
) -> EndpointAnswer:
    """Deliver to it from now on; what was skipped stays skipped."""
    endpoint = known(services, caller, endpoint_id)
    made = origin(caller, f"POST /v1/endpoints/{endpoint_id}/enable", idempotency_key)
    return rules.answer(await _set_enabled(services, caller, made, endpoint, wanted=True))


@router.post("/{endpoint_id}/disable", response_model=EndpointAnswer)
async def disable_endpoint(
    endpoint_id: str, services: Needed, caller: CanManage, idempotency_key: IdempotencyKey = None
) -> EndpointAnswer:
    """Deliver nothing more; what waits is skipped."""
    endpoint = known(services, caller, endpoint_id)
    made = origin(caller, f"POST /v1/endpoints/{endpoint_id}/disable", idempotency_key)
    return rules.answer(await _set_enabled(services, caller, made, endpoint, wanted=False))


async def _set_enabled(
    services: Services, caller: Caller, made: Origin, endpoint: Endpoint, *, wanted: bool
) -> Endpoint:
    if endpoint.enabled == wanted:
        return endpoint
    made_by = about(services, caller, made, endpoint)
    return await services.control.ask(
        EnableEndpoint(*made_by) if wanted else DisableEndpoint(*made_by, _BY_HAND)
    )


def _creation(
    services: Services, caller: Caller, made: Origin, given: EndpointInput
) -> tuple[CreateEndpoint, str]:
    """(the command, the secret in the clear)."""
    context, settings = services.context, rules.settings_of(given)
    chosen = None if given.secret is None else given.secret.get_secret_value()
    profile = rules.check_settings(context, settings, chosen)
    clear = chosen or generate_secret(profile, os.urandom(32))
    tenant = tenant_of(caller, given.tenant)
    body = given.model_dump(mode="json", exclude={"secret"}) | {"tenant": tenant, "chosen": chosen}
    endpoint_id = made.endpoint_id(orjson.dumps(body, option=orjson.OPT_SORT_KEYS), context.vault.command_key)
    sealed = services.configuration.keyring.seal_command(tenant, endpoint_id, 1, clear)
    made_by = base(services, caller, made, tenant)
    return CreateEndpoint(*made_by, endpoint_id, settings, given.enabled, sealed), clear


def tenant_of(caller: Caller, given: str | None) -> str:
    """Return the tenant that something new is of; Problem 403 or 422."""
    tenant = caller.scope_of(given)
    if tenant is None:
        raise wrong(FieldError("tenant", "is missing: this API key is bound to none"))
    return tenant


def _created_before(services: Services, made: Origin) -> Endpoint | None:
    """Return the endpoint that a request with the same Idempotency-Key has made, whatever its body.

    One that was deleted since is none: control knows the command, and the answer is 409.
    """
    if not made.is_repeatable:
        return None
    endpoints = list(services.configuration.endpoints.values())
    return next((e for e in endpoints if e.id.startswith(made.endpoint_prefix) and not e.deleted), None)


def known(services: Services, caller: Caller, endpoint_id: str) -> Endpoint:
    """Return an endpoint that the caller may know of; Problem 404."""
    endpoint = services.configuration.endpoints.get(endpoint_id)
    if endpoint is None or endpoint.deleted or not caller.sees(endpoint.tenant):
        raise Problem(404, f"there is no endpoint {endpoint_id!r}")
    return endpoint


def about(services: Services, caller: Caller, made: Origin, endpoint: Endpoint) -> About:
    """What a command about an endpoint begins with."""
    return *base(services, caller, made, endpoint.tenant), endpoint.id


def _path(endpoint: Endpoint) -> str:
    return f"{router.prefix}/{endpoint.id}"


def _place(endpoint: Endpoint) -> Place:
    return Place(endpoint.created_at, endpoint.id)
