"""Routes of tenants."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import AfterValidator, BaseModel, Field

from engine.api.auth import CanRead, IsPlatformAdmin, Needed
from engine.api.bodies import StrictRoute
from engine.api.ids import IdempotencyKey, base, claim, origin, text_of, used_before
from engine.api.models import Input, readable
from engine.api.models import Tenant as TenantId
from engine.api.pages import Cursor, Limit, Place, page
from engine.api.problems import Problem
from engine.core.directory import CreateTenant, DeleteTenant, Tenant, TenantCreated
from engine.core.directory_rules import tenant_after
from engine.core.profile import rfc3339

router = APIRouter(prefix="/v1/tenants", tags=["tenants"], route_class=StrictRoute)


class TenantInput(Input):
    """A new tenant."""

    id: TenantId
    name: Annotated[str, Field(max_length=256), AfterValidator(readable)] = ""


class TenantAnswer(BaseModel):
    """A tenant."""

    id: str
    name: str
    created_at: str


class TenantList(BaseModel):
    """A page of tenants."""

    data: list[TenantAnswer]
    next: str | None


@router.post("", status_code=201, response_model=TenantAnswer)
async def create_tenant(
    given: TenantInput, services: Needed, caller: IsPlatformAdmin, idempotency_key: IdempotencyKey = None
) -> TenantAnswer:
    """Create a tenant; its first endpoint would do so too."""
    made = origin(caller, "POST /v1/tenants", idempotency_key)
    claim(services, made, [text_of(given)])
    command = CreateTenant(*base(services, caller, made, given.id), given.name)
    fact = await services.control.ask_directory(command)
    if not isinstance(fact, TenantCreated) or (fact.tenant, fact.name) != (given.id, given.name):
        raise used_before(services, made)
    return _answer(tenant_after(None, fact))


@router.get("", response_model=TenantList)
async def list_tenants(
    services: Needed, caller: CanRead, limit: Limit = 50, cursor: Cursor = None
) -> TenantList:
    """List tenants, oldest first; to a tenant's key there is only its own."""
    tenants = (
        tenant
        for tenant in list(services.configuration.tenants.values())
        if not tenant.deleted and caller.sees(tenant.id)
    )
    found, more = page(tenants, lambda tenant: Place(tenant.created_at, tenant.id), limit, cursor)
    return TenantList(data=[_answer(tenant) for tenant in found], next=more)


@router.delete("/{tenant_id:path}", status_code=204)
async def delete_tenant(tenant_id: Annotated[str, Path()], services: Needed, caller: IsPlatformAdmin) -> None:
    """Delete a tenant with its endpoints, keys and secrets, which no one can open any more."""
    tenant = services.configuration.tenants.get(tenant_id)
    if tenant is None or tenant.deleted:
        raise Problem(404, f"there is no tenant {tenant_id!r}")
    made_by = base(services, caller, origin(caller, "", None), tenant.id)
    await services.control.ask_directory(DeleteTenant(*made_by))


def _answer(tenant: Tenant) -> TenantAnswer:
    return TenantAnswer(id=tenant.id, name=tenant.name, created_at=rfc3339(tenant.created_at))
