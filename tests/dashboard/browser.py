"""A real browser, and the dashboard served to it on a port."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

from engine.api.app import create_app
from engine.api.services import started
from engine.dev.process import free_port, wait_until
from engine.runtime.context import Context
from engine.runtime.history.clickhouse import History
from tests.dashboard.world import World

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_START_S = 60.0
_LIMIT_MS = 60_000
"""Of one step in the browser; generous, because a step that works is not waited for."""


@contextmanager
def serving(context: Context, history: History) -> Iterator[str]:
    """Another API process' worth of it, on a thread; yields its URL."""
    config = uvicorn.Config("", port=free_port(), lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)

    async def serve() -> None:
        async with started(context, history) as services:
            config.app = create_app(services)
            await server.serve()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert wait_until(lambda: server.started, _START_S)
        yield f"http://127.0.0.1:{config.port}"
    finally:
        server.should_exit = True
        thread.join(_START_S)


@pytest.fixture
def served(world: World) -> Iterator[str]:
    """URL of the dashboard of `world`; what the test wants in it must be there before the browser starts."""
    with serving(world.api.context, world.history) as url:
        yield f"{url}/dashboard"


@pytest.fixture
def chromium(served: str) -> Iterator[Browser]:
    """The system's Chromium; skips where there is none. Playwright's loop and the API's must not overlap."""
    path = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium on PATH")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def browser_page(served: str, chromium: Browser) -> Iterator[Page]:
    """A page that fails the test at its end if scripts failed or the policy was broken."""
    context = chromium.new_context(base_url=f"{served}/", timezone_id="Asia/Tokyo", locale="en-GB")
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=served.removesuffix("/dashboard"))
    page, faults = context.new_page(), list[str]()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.set_default_timeout(_LIMIT_MS)
    expect.set_options(timeout=_LIMIT_MS)
    yield page
    context.close()
    assert faults == []
