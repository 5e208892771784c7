"""Routes of endpoints. Answers come once the change is on the log and in this process's view."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Header, Response

from engine.api import endpoint_rules as rules
from engine.api.auth import Caller, CanManage, CanRead, Needed
from engine.api.bodies import StrictRoute
from engine.api.control import Rejected
from engine.api.ids import IdempotencyKey, Origin, base, claim, origin, text_of, used_before
from engine.api.models import CreatedAnswer, EndpointAnswer, EndpointInput, EndpointList, EndpointPatch
from engine.api.pages import Cursor, Limit, Place, page
from engine.api.problems import FieldError, Problem, wrong
from engine.api.services import Services
from engine.core.change import (
    CreateEndpoint,
    DeleteEndpoint,
    DisableEndpoint,
    EnableEndpoint,
    RejectionCode,
    UpdateEndpoint,
)
from engine.core.directory import CreateTenant
from engine.core.directory_rules import deleted_tenant
from engine.core.endpoint import Endpoint
from engine.core.profile import generate_secret

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"], route_class=StrictRoute)

About = tuple[str, str, str, int, str]
"""What every command about an endpoint begins with."""
CREATION = "POST /v1/endpoints"
IfMatch = Annotated[str | None, Header(description="The ETag of what was seen: change only that.")]
_BY_HAND = "disabled by hand"
_CONFLICT: RejectionCode = "conflict"
_TRIES = 5
"""How often a change is checked anew because others have changed the endpoint meanwhile."""


@router.post("", status_code=201, response_model=CreatedAnswer, response_model_exclude_unset=True)
async def create_endpoint(
    given: EndpointInput,
    services: Needed,
    caller: CanManage,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> CreatedAnswer:
    """Create an endpoint; its secret is in this answer and never again."""
    return await create(services, (caller, origin(caller, CREATION, idempotency_key)), given, response)


async def create(
    services: Services, by: tuple[Caller, Origin], given: EndpointInput, response: Response
) -> CreatedAnswer:
    """Create an endpoint, and say in the response's headers where it is; Problem."""
    command, secret = await _creation(services, *by, given)
    endpoint = _created_before(services, by[1])
    shown: dict[str, Any] = {}
    if endpoint is None:
        endpoint = await services.control.ask(command)
        # Of two requests at once under one key, only one has chosen the secret.
        if endpoint.id == command.endpoint_id and await services.control.secret_of(endpoint) == secret:
            shown = {"secret": secret}
    if endpoint.id != command.endpoint_id:
        raise used_before(services, by[1])
    response.headers["Location"] = _path(endpoint)
    response.headers["ETag"] = _tag(endpoint.version)
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
async def get_endpoint(
    endpoint_id: str, services: Needed, caller: CanRead, response: Response
) -> EndpointAnswer:
    """Show one endpoint; its version is the ETag."""
    endpoint = known(services, caller, endpoint_id)
    response.headers["ETag"] = _tag(endpoint.version)
    return rules.answer(endpoint)


class Conditional(NamedTuple):
    """What a change is bound to, and the response that tells the new version."""

    if_match: str | None
    response: Response


async def _conditional(response: Response, if_match: IfMatch = None) -> Conditional:
    return Conditional(if_match, response)


@router.patch("/{endpoint_id}", response_model=EndpointAnswer)
async def patch_endpoint(
    endpoint_id: str,
    given: EndpointPatch,
    services: Needed,
    caller: CanManage,
    asked: Annotated[Conditional, Depends(_conditional)],
) -> EndpointAnswer:
    """Change what the body names, `enabled` too; with If-Match only if it still has that version, or 412."""
    answer = await update_endpoint(endpoint_id, given, services, caller, asked.if_match)
    asked.response.headers["ETag"] = _tag(answer.version)
    return answer


async def update_endpoint(
    endpoint_id: str, given: EndpointPatch, services: Services, caller: Caller, if_match: str | None = None
) -> EndpointAnswer:
    """Change what is named, of the very version it was checked against; Problem 404, 409, 412 or 422."""
    known(services, caller, endpoint_id)
    async with services.changing.setdefault(endpoint_id, asyncio.Lock()):
        return await _updated(services, caller, endpoint_id, given, if_match)


async def _updated(
    services: Services, caller: Caller, endpoint_id: str, given: EndpointPatch, if_match: str | None
) -> EndpointAnswer:
    for _ in range(_TRIES):
        endpoint = known(services, caller, endpoint_id)
        _check_match(endpoint, if_match)
        try:
            return rules.answer(await _changed(services, caller, endpoint, given))
        except Rejected as refused:
            if refused.code != _CONFLICT:
                raise
        await services.control.moved_on(endpoint)  # what was checked may not be so any more
    raise Problem(409, f"endpoint {endpoint_id!r} was changed {_TRIES} times meanwhile: try again")


def _check_match(endpoint: Endpoint, if_match: str | None) -> None:
    """Problem 412 if it has another version (RFC 9110, section 13.1.1)."""
    if if_match is None or if_match.strip() == "*":
        return
    now = _tag(endpoint.version)
    if now not in {tag.strip() for tag in if_match.split(",")}:
        raise Problem(412, f"endpoint {endpoint.id!r} has changed: its ETag is {now}, look at it again")


async def _changed(services: Services, caller: Caller, endpoint: Endpoint, given: EndpointPatch) -> Endpoint:
    if "secret" in given.model_fields_set:
        raise wrong(FieldError("secret", f"cannot be changed here: use POST {_path(endpoint)}/rotate-secret"))
    fields = tuple(name for name in rules.SETTINGS if name in given.model_fields_set)
    if fields:
        changed = rules.settings_of(given)
        merged = replace(endpoint.settings, **{name: getattr(changed, name) for name in fields})
        secret = await services.control.secret_of(endpoint) if "profile" in fields else None
        rules.check_settings(services.context, merged, secret)
        made_by = about(services, caller, origin(caller, "", None), endpoint)
        place, keyring = (endpoint.tenant, endpoint.id), services.configuration.keyring
        with rules.sealing():
            sealed = keyring.seal_command_headers(place, changed)
        update = UpdateEndpoint(*made_by, fields, sealed, endpoint.version)
        endpoint = await services.control.ask(update)
    if "enabled" not in given.model_fields_set or endpoint.enabled == given.enabled:
        return endpoint
    made_by = about(services, caller, origin(caller, "", None), endpoint)
    # after settings were changed it is not put off: half a change would be done
    return await services.control.ask(_setting(made_by, given.enabled, None if fields else endpoint.version))


@router.delete("/{endpoint_id}", status_code=204)
async def delete_endpoint(
    endpoint_id: str, services: Needed, caller: CanManage, if_match: IfMatch = None
) -> None:
    """Delete an endpoint with its secrets; what is under way is skipped. If-Match as for PATCH."""
    known(services, caller, endpoint_id)
    async with services.changing.setdefault(endpoint_id, asyncio.Lock()):
        endpoint = known(services, caller, endpoint_id)
        _check_match(endpoint, if_match)
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
    claim(services, made)
    if endpoint.enabled == wanted:
        return endpoint
    return await services.control.ask(_setting(about(services, caller, made, endpoint), wanted, None))


def _setting(made_by: About, wanted: bool, expected: int | None) -> EnableEndpoint | DisableEndpoint:
    """Ask to enable or disable; `expected`: only if the endpoint still has this version."""
    if wanted:
        return EnableEndpoint(*made_by, expected)
    return DisableEndpoint(*made_by, _BY_HAND, None, expected)


async def _creation(
    services: Services, caller: Caller, made: Origin, given: EndpointInput
) -> tuple[CreateEndpoint, str]:
    """(the command, the secret in the clear); a new tenant, and so its data key, is made first."""
    context, settings = services.context, rules.settings_of(given)
    chosen = None if given.secret is None else given.secret.get_secret_value()
    profile = rules.check_settings(context, settings, chosen)
    clear = chosen or generate_secret(profile, os.urandom(32))
    tenant = tenant_of(caller, given.tenant)
    if ended := deleted_tenant(services.configuration.tenants, tenant):
        raise Problem(409, ended.reason)  # its data key is shredded: nothing is sealed for it any more
    body = given.model_dump(mode="json", exclude={"secret"}) | {"tenant": tenant, "chosen": chosen}
    endpoint_id = made.endpoint_id(text_of(body), context.vault.command_key)
    claim(services, made, [text_of(body)])
    made_by, keyring = base(services, caller, made, tenant), services.configuration.keyring
    await services.control.ask_tenant(CreateTenant(made.command_id("tenant"), *made_by[1:], ""))
    with rules.sealing():
        sealed = keyring.seal_command(tenant, endpoint_id, 1, clear)
        settings = keyring.seal_command_headers((tenant, endpoint_id), settings)
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


def _tag(version: int) -> str:
    return f'"{version}"'


def _path(endpoint: Endpoint) -> str:
    return f"{router.prefix}/{endpoint.id}"


def _place(endpoint: Endpoint) -> Place:
    return Place(endpoint.created_at, endpoint.id)
