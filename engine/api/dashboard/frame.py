"""What all pages share: templates, the files they load, how sessions are signed, who may try to log in."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from itsdangerous import URLSafeSerializer
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from engine.api.dashboard import charts, words
from engine.api.dashboard.fresh import Shared
from engine.api.dashboard.session import PATH, Seal
from engine.api.dashboard.throttle import Throttle
from engine.api.history_pages import Page
from engine.api.models import AccountingAnswer
from engine.api.services import Services
from engine.core.directory import Scope
from engine.core.profile import VERSION
from engine.runtime.history.overview import Overview, Pending

HTMX = "htmx-2.0.11.min.js"
OVERVIEW_LASTS_S, TAIL_LASTS_S = 4.0, 2.0
PENDING_LASTS_S, PENDING_STALE_S = 10.0, 60.0
ACCOUNT_LASTS_S, ACCOUNT_STALE_S = 5.0, 300.0
"""It counts all there is, for a second or more, and the page says when it was counted."""
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file that pages load; `version` changes with its content."""

    content: bytes
    media_type: str
    version: str


@dataclass(frozen=True, slots=True)
class NavItem:
    """A link that every page has; shown to who has the scope."""

    path: str
    label: str
    icon: str
    """Id of a symbol in templates/icons.html."""
    section: Literal["Watch", "Settings", "Records"] = "Watch"
    scope: Scope = "read"


@dataclass(frozen=True, slots=True)
class Frame:
    """Made once an application."""

    services: Services
    templates: Environment
    files: Mapping[str, StaticFile]
    nav: Sequence[NavItem]
    seal: Seal
    notices: URLSafeSerializer
    """Signs what a page leaves for the next one to say."""
    throttle: Throttle
    overviews: Shared[Overview]
    tails: Shared[Page]
    """Live tails of deliveries, by what they are of and who may see it."""
    pending: Shared[Pending]
    accounts: Shared[AccountingAnswer]


def make_frame(services: Services, nav: Sequence[NavItem]) -> Frame:
    """Read templates and files, and derive what signs sessions."""
    context = services.context
    files = _read_files(_HERE / "static")
    return Frame(
        services,
        _environment(files),
        files,
        tuple(nav),
        Seal(context.vault.command_keys),
        URLSafeSerializer(context.vault.command_key, "notice"),
        Throttle(context.clock),
        Shared(context.clock, OVERVIEW_LASTS_S),
        Shared(context.clock, TAIL_LASTS_S),
        Shared(context.clock, PENDING_LASTS_S, PENDING_STALE_S),
        Shared(context.clock, ACCOUNT_LASTS_S, ACCOUNT_STALE_S),
    )


def _read_files(folder: Path) -> dict[str, StaticFile]:
    return {path.name: _file(path) for path in sorted(folder.iterdir()) if path.is_file()}


def _file(path: Path) -> StaticFile:
    content = path.read_bytes()
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    text = kind.startswith("text/") or kind == "application/javascript"
    version = blake2b(content, digest_size=6).hexdigest()
    return StaticFile(content, f"{kind}; charset=utf-8" if text else kind, version)


def _environment(files: Mapping[str, StaticFile]) -> Environment:
    templates = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def static(name: str) -> str:
        """Address of a file, which changes with its content."""
        return f"{PATH}/static/{name}?v={files[name].version}"

    templates.globals.update(static=static, htmx=HTMX, version=VERSION, charts=charts, words=words)
    templates.filters.update(
        number=words.number,
        percent=words.percent,
        milliseconds=words.milliseconds,
        size=words.size,
        visible=words.visible,
        moment=words.moment,
        iso=words.iso,
    )
    return templates
