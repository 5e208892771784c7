"""Metrics of the API, and of other programs where it is told to serve theirs too (HOOKLOG_METRICS_OF)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping

import aiohttp
from prometheus_client import generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.runtime import telemetry

ASKED_WITHIN_S = 2.0
"""How long another program may take: one that is dead or frozen must not keep the rest."""
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
_NO_ROUTE = "none"


class Counted:
    """Counts requests by route and status class. ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                _count(scope, message["status"], time.monotonic() - began)
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception:  # whoever is outside answers 500
            _count(scope, 500, time.monotonic() - began)
            raise


def _count(scope: Scope, status: int, seconds: float) -> None:
    method = scope["method"] if scope["method"] in _METHODS else "other"
    route = _route(scope)
    telemetry.API_REQUESTS.labels(method, route, f"{status // 100}xx").inc()
    telemetry.API_SECONDS.labels(method, route).observe(seconds)


def _route(scope: Scope) -> str:
    """The route's whole path, that of what it is mounted below included."""
    path, mounted_at = getattr(scope.get("route"), "path", _NO_ROUTE), scope.get("root_path", "")
    return path if path.startswith(mounted_at) else f"{mounted_at}{path}"


async def of_programs(programs: Iterable[str]) -> str:
    """Ask each `name=URL` at once and merge what they say with our own, a label `program` on each sample."""
    urls = dict(program.split("=", 1) for program in programs)
    timeout = aiohttp.ClientTimeout(total=ASKED_WITHIN_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        texts = await asyncio.gather(*(_ask(session, url) for url in urls.values()))
    answers = dict(zip(urls, texts, strict=True))
    for name, text in answers.items():
        telemetry.PROGRAM_UP.labels(name).set(bool(text))
    return merged({"api": generate_latest().decode(), **answers}) + generate_latest(telemetry.STACK).decode()


async def _ask(session: aiohttp.ClientSession, url: str) -> str:
    """Return what it says; empty if it is not there, or not in time."""
    try:
        async with session.get(url) as answer:
            return await answer.text() if answer.status == 200 else ""
    except (aiohttp.ClientError, TimeoutError):
        return ""


def merged(texts: Mapping[str, str]) -> str:
    """Merge expositions (Prometheus text) by program: each family once, with everybody's samples."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for program, text in texts.items():
        family = ""
        for line in text.splitlines():
            if line.startswith("# HELP "):
                family = line.split(" ", 3)[2]
                heads.setdefault(family, [line])
            elif line.startswith("# TYPE ") and len(heads[family]) == 1:
                heads[family].append(line)
            elif line and line[0] != "#":
                samples.setdefault(family, []).append(_labelled(line, program))
    return "".join(f"{line}\n" for family in heads for line in (*heads[family], *samples.get(family, ())))


def _labelled(sample: str, program: str) -> str:
    """`name{a="b"} 1` -> `name{program="router",a="b"} 1`."""
    name, space, value = sample.partition(" ")
    if "{" in name:
        name, _, rest = sample.partition("{")
        return f'{name}{{program="{program}",{rest}'
    return f'{name}{{program="{program}"}}{space}{value}'
