"""Meeting BaaS's own routes, as its customers call them today; an account is the tenant of its key.

An account's endpoints here are those of the profile meetingbaas, told apart by URL.
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field, SecretStr

from engine.api import endpoint_rules as rules
from engine.api import endpoints
from engine.api.auth import BaasCanManage, BaasCanRead, Caller, Needed
from engine.api.bodies import StrictRoute
from engine.api.ids import nobodys, origin
from engine.api.models import EndpointInput, EndpointPatch, EventTypes, Input
from engine.api.problems import FieldError, Problem, wrong
from engine.api.rotation import RotationInput, rotate_secret
from engine.api.services import Services
from engine.core.endpoint import Endpoint
from engine.core.profile import rfc3339

router = APIRouter(prefix="/bots/webhooks/bot", tags=["meeting baas"], route_class=StrictRoute)
PROFILE = "meetingbaas"
_NAMED = {"url": "webhook_url", "event_types": "events"}
"""Names of an endpoint's fields that are others here."""


class WebhookInput(Input):
    """An account's endpoint as it shall be; what is left out stays, or is the default of a new one."""

    webhook_url: str
    events: EventTypes | None = Field(None, description="Types, prefixes such as event.*; null: all.")
    secret: SecretStr | None = Field(None, description="Generated for a new one if left out.")
    enabled: bool = True


class WebhookAnswer(BaseModel):
    """An account's endpoint."""

    id: str
    webhook_url: str
    events: list[str] | None
    enabled: bool
    created_at: str
    updated_at: str


class ConfiguredAnswer(WebhookAnswer):
    """An endpoint that was just configured."""

    secret: str | None = Field(None, description="Of a new endpoint or a new secret, shown this once.")


class WebhookList(BaseModel):
    """An account's endpoints, oldest first."""

    data: list[WebhookAnswer]


@router.get("", response_model=WebhookList)
async def list_webhooks(services: Needed, caller: BaasCanRead) -> WebhookList:
    """List the account's endpoints."""
    return WebhookList(data=[WebhookAnswer(**_shown(each)) for each in of_account(services, account(caller))])


_MADE: dict[int | str, dict[str, Any]] = {201: {"model": ConfiguredAnswer, "description": "A new endpoint."}}


@router.post("", response_model=ConfiguredAnswer, response_model_exclude_unset=True, responses=_MADE)
async def configure_webhook(
    given: WebhookInput, services: Needed, caller: BaasCanManage, response: Response
) -> ConfiguredAnswer:
    """Configure an endpoint: the one with this URL is changed, another URL is another endpoint (201)."""
    # one at a time: of two at once for a new URL the second changes what the first has made
    async with services.changing.setdefault(f"bots {account(caller)}", asyncio.Lock()):
        try:
            return await _configured(services, caller, given, response)
        except Problem as problem:
            raise _in_their_words(problem) from None


def _in_their_words(problem: Problem) -> Problem:
    """Name the fields as this route does: what is theirs is checked as an endpoint is everywhere."""
    if not problem.errors:
        return problem
    return wrong(*(FieldError(_NAMED.get(each.field, each.field), each.message) for each in problem.errors))


async def _configured(
    services: Services, caller: Caller, given: WebhookInput, response: Response
) -> ConfiguredAnswer:
    there = of_account(services, account(caller))
    known = next((each for each in there if each.settings.url == given.webhook_url), None)
    if known is None:
        response.status_code = 201
        return await _created(services, caller, given, response)
    secret = await _changed(services, caller, known, given)
    now = services.configuration.endpoints[known.id]
    return ConfiguredAnswer(**_shown(now), **({} if secret is None else {"secret": secret}))


def account(caller: Caller) -> str:
    """Return the tenant that the key is bound to: `BaasCanRead` and `BaasCanManage` take no other key."""
    assert caller.tenant is not None
    return caller.tenant


def of_account(services: Services, tenant: str) -> list[Endpoint]:
    """Its endpoints of this profile, oldest first."""
    all_of = services.configuration.of_tenant(tenant).values()
    found = [each for each in all_of if each.settings.profile == PROFILE]
    return sorted(found, key=lambda each: (each.created_at, each.id))


async def _created(
    services: Services, caller: Caller, given: WebhookInput, response: Response
) -> ConfiguredAnswer:
    wanted = EndpointInput(
        tenant=account(caller),
        url=given.webhook_url,
        event_types=given.events,
        profile=PROFILE,
        secret=given.secret,
        enabled=given.enabled,
    )
    repeat = _repeat_key(services, account(caller), given.webhook_url)
    by = caller, nobodys(origin(caller, endpoints.CREATION, repeat))
    made = await endpoints.create(services, by, wanted, response)
    del response.headers["Location"]
    shown = {"secret": made.secret} if "secret" in made.model_fields_set else {}
    return ConfiguredAnswer(**_shown(services.configuration.endpoints[made.id]), **shown)


def _repeat_key(services: Services, tenant: str, url: str) -> str:
    """Two requests at once for one new URL make one endpoint; after a deletion the next makes another."""
    all_of = (each for each in list(services.configuration.endpoints.values()) if each.tenant == tenant)
    newest = max((each.created_at for each in all_of), default=0)
    return f"bots {newest} {blake2b(url.encode(), digest_size=16).hexdigest()}"


async def _changed(services: Services, caller: Caller, known: Endpoint, given: WebhookInput) -> str | None:
    """Make it so; the secret if that is a new one."""
    secret = None if given.secret is None else given.secret.get_secret_value()
    rules.check_settings(services.context, known.settings, secret)  # before anything is changed
    patch: dict[str, Any] = {}
    if "events" in given.model_fields_set and _types(given) != known.settings.event_types:
        patch["event_types"] = given.events
    if "enabled" in given.model_fields_set:
        patch["enabled"] = given.enabled
    if patch:
        await endpoints.update_endpoint(known.id, EndpointPatch(**patch), services, caller)
    if secret is None or secret == await services.control.secret_of(known):
        return None
    await rotate_secret(known.id, services, caller, RotationInput(secret=given.secret))
    return secret


def _types(given: WebhookInput) -> tuple[str, ...] | None:
    return None if given.events is None else tuple(dict.fromkeys(given.events))


def _shown(endpoint: Endpoint) -> dict[str, Any]:
    types = endpoint.settings.event_types
    return {
        "id": endpoint.id,
        "webhook_url": endpoint.settings.url,
        "events": None if types is None else list(types),
        "enabled": endpoint.enabled,
        "created_at": rfc3339(endpoint.created_at),
        "updated_at": rfc3339(endpoint.updated_at),
    }
