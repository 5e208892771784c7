"""Who did what, and whether everything that was accepted is accounted for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from fastapi import APIRouter, Response
from pydantic import ValidationError

from engine.api.changes import find_changes
from engine.api.dashboard import words
from engine.api.dashboard.change_words import said_of
from engine.api.dashboard.checks import PROBLEMS, Check, last_check
from engine.api.dashboard.deliveries import WITHIN_S, names_of, utc_of, wrong_of
from engine.api.dashboard.frame import NavItem
from engine.api.dashboard.overview import Verdict
from engine.api.dashboard.render import page
from engine.api.dashboard.visit import Reads, Visit
from engine.api.history_models import ChangeQuery
from engine.api.history_pages import Page
from engine.api.models import AccountingAnswer
from engine.api.system import accounting
from engine.runtime.history.clickhouse import Row, UnavailableError

router = APIRouter()
NAV = NavItem("audit", "Audit", "book", "Records")
_FILTERS = ("actor", "subject", "subject_id", "change", "cursor")
_KNOWN = frozenset({*_FILTERS, "since", "until", "within"})
KINDS = ("endpoint", "key", "tenant", "event_type", "replay", "delivery", "command")
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """A change as the table shows it; `url`: of what was changed, if it has a page."""

    told: Row
    label: str
    url: str
    said: str


@router.get("/audit")
async def show_audit(visit: Reads) -> Response:
    """Show the accounting and a page of changes, newest first; each without the other if one is away."""
    accounts = await _accounts(visit)
    if visit.is_fragment:
        return page(visit, "audit.html", 200, **accounts)
    given = {name: value for name, value in visit.asked.items() if name in _KNOWN}
    query, errors = _query_of(visit, given)
    found = None if query is None else await _changes(visit, query)
    rows = [] if found is None else _rows(visit, found.rows)
    more = None if found is None or query is None else _next_url(visit, given, query, found.next)
    return page(
        visit,
        "audit.html",
        200 if query is not None else 422,
        given={name: given.get(name, "") for name in _KNOWN},
        errors=errors,
        rows=rows,
        is_away=query is not None and found is None,
        more=more,
        kinds=KINDS,
        **accounts,
    )


async def _changes(visit: Visit, query: ChangeQuery) -> Page | None:
    """The page that was asked for; None while the history is away."""
    try:
        return await find_changes(visit.services, visit.caller, query)
    except UnavailableError:
        return None


async def _accounts(visit: Visit) -> dict[str, object]:
    """What the template of the accounting needs; checks of the whole system are the platform's to see."""
    account, check = await asyncio.gather(_account(visit), _check(visit))
    return {"account": account, "check": check, "verdict": _verdict(account, check), "problems": PROBLEMS}


async def _account(visit: Visit) -> AccountingAnswer | None:
    try:
        counted = partial(accounting, visit.services, visit.caller, visit.tenant)
        return await visit.frame.accounts.get(visit.tenant or "", counted)
    except UnavailableError:
        return None


async def _check(visit: Visit) -> Check | None:
    return await last_check(visit.services) if visit.chooses_tenant else None


def _verdict(account: AccountingAnswer | None, check: Check | None) -> Verdict:
    """The worst that is known."""
    if check is not None and check.state == "bad":
        said = "The accounting group's log names some; `hooklog reconcile` names them all."
        return Verdict("bad", f"{words.number(check.unaccounted)} are not where they must be", said)
    if account is None:
        said = "ClickHouse does not answer, so nothing can be counted here. Nothing on the log is affected."
        return Verdict("warn", "The history cannot be asked", said)
    if account.unaccounted > 0:
        said = "Rows that are seconds old may still be on their way; if it stays, run `hooklog reconcile`."
        return Verdict("warn", f"{words.number(account.unaccounted)} deliveries are not counted yet", said)
    if check is not None and check.state in ("old", "away"):
        said = "Nothing is known to be missing, but nobody has looked: is the accounting group running?"
        return Verdict("warn", "The log is not being checked", said)
    if not account.matched:
        return Verdict("idle", "Nothing to account for yet", "No message has matched an endpoint so far.")
    return Verdict("ok", "Everything is accounted for", "Each delivery is in exactly one of these states.")


def _query_of(visit: Visit, given: Mapping[str, str]) -> tuple[ChangeQuery | None, dict[str, str]]:
    """(what to ask for, {}), or (None, what is wrong by field)."""
    asked: dict[str, object] = {name: given[name] for name in _FILTERS if name in given}
    asked |= {name: utc_of(given[name]) for name in ("since", "until") if name in given}
    within = WITHIN_S.get(given.get("within", ""))
    if within and "since" not in given:
        asked["since"] = words.iso(visit.services.context.clock.now() - within * _US)
    try:
        return ChangeQuery.model_validate({"tenant": visit.tenant, **asked}), {}
    except ValidationError as error:
        return None, wrong_of(error)


def _next_url(visit: Visit, given: Mapping[str, str], query: ChangeQuery, cursor: str | None) -> str | None:
    """The page after; it fixes where the time began, which the cursor belongs to."""
    if cursor is None:
        return None
    kept = {name: value for name, value in given.items() if name != "within"}
    if "within" in given and "since" not in given:
        kept["since"] = words.iso(query.since * 1_000)
    return visit.url("audit", **(kept | {"cursor": cursor}))


def _rows(visit: Visit, rows: Sequence[Row]) -> list[ChangeRow]:
    endpoints = (str(row["subject_id"]) for row in rows if row["subject"] == "endpoint")
    names = {id: named.url for id, named in names_of(visit, endpoints).items()}
    return [_row(visit, row, names) for row in rows]


def _row(visit: Visit, row: Row, names: Mapping[str, str]) -> ChangeRow:
    id = str(row["subject_id"])
    folder = {"endpoint": "endpoints", "replay": "replays"}.get(str(row["subject"]))
    url = visit.url(f"{folder}/{id}") if folder else ""
    return ChangeRow(row, names.get(id, id), url, said_of(row))
