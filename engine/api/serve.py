"""`hooklog run api`: the API as a process."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn
import uvloop

from engine.api.app import create_app
from engine.api.services import Services, started
from engine.runtime import telemetry
from engine.runtime.context import Context, open_context
from engine.runtime.history.clickhouse import History, connect
from engine.runtime.settings import Settings

_DRAIN_S = 10
_KEEP_ALIVE_S = 30
_HISTORY_S = 15
"""How long people wait for ClickHouse; groups are more patient."""
_LOG = telemetry.logger("api")


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM; raises what ended a thread that follows the log."""
    telemetry.configure(settings.log_level)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the loop listens to it
    uvloop.run(_serve(open_context(settings)))


async def _serve(context: Context) -> None:
    history = History(partial(connect, context.settings, _HISTORY_S))
    async with started(context, history) as services:
        server = _server(services)
        gc.collect()
        gc.freeze()  # what is there stays: to look through it again and again costs each request
        gc.set_threshold(50_000, 20, 20)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, server.handle_exit, number, None)
        serving = asyncio.create_task(server.serve())
        await asyncio.wait({serving, *services.threads}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        for thread in services.threads:
            if thread.done():
                thread.result()
    _LOG.info("api.stopped")


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn would end the process with them before the threads are stopped."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _server(services: Services) -> _Server:
    settings = services.context.settings
    _LOG.info("api.starting", host=settings.api_host, port=settings.api_port)
    config = uvicorn.Config(
        create_app(services),
        host=settings.api_host,
        port=settings.api_port,
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_DRAIN_S,
    )
    return _Server(config)
