"""The audit trail: who did what, when."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from engine.api.auth import Caller, CanRead, Needed
from engine.api.history import answered, read_page
from engine.api.history_models import ChangeList, ChangeQuery
from engine.api.history_pages import Page, details_of
from engine.api.services import Services
from engine.api.timeline import chosen
from engine.runtime.history.listings import CHANGES

router = APIRouter(prefix="/v1/changes", tags=["changes"])

_CHANGE = ("tenant", "subject", "subject_id", "change", "actor", "at", "command_id")


@router.get("", response_model=ChangeList)
async def list_changes(services: Needed, caller: CanRead, query: Annotated[ChangeQuery, Query()]) -> Response:
    """List changes of tenants, keys, endpoints, event types and replays, newest first; refused ones too."""
    page = await find_changes(services, caller, query)
    data = [{**chosen(row, _CHANGE), "details": details_of(row)} for row in page.rows]
    return answered({"data": data, "next": page.next})


async def find_changes(services: Services, caller: Caller, query: ChangeQuery) -> Page:
    """Find a page of changes, by the columns of CHANGES; Problem 403 or 422."""
    asked = query.asked(
        caller.scope_of(query.tenant),
        subject=query.subject,
        subject_id=query.subject_id,
        change=query.change,
        actor=query.actor,
    )
    return await read_page(services, CHANGES, asked, query)
