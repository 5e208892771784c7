"""How long the dashboard's pages take: `python -m engine.dev.bench.pages [--attempts 1000000] [--times 50]`.

The history is that of `engine.dev.bench.queries`; the API is the real one on a port of its own, over a log
in memory that holds 5,000 endpoints. One visitor, logged in with the platform's key, asks for every page over
HTTP. `first` is what the first answer took, when nothing was known yet; `weight` is without compression.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from urllib.parse import urlencode

import uvicorn
import uvloop
from rich.console import Console

from engine.api.app import create_app
from engine.api.services import started
from engine.core.change import EndpointSettings
from engine.core.endpoint import Endpoint
from engine.core.routing import partition_of
from engine.dev.bench.figures import quantile
from engine.dev.bench.processes import machine
from engine.dev.bench.queries import DAYS, fill
from engine.dev.bench.scenario import BenchError
from engine.dev.bench.storage import Storage, storage
from engine.dev.bench.visitor import Visitor
from engine.dev.demo.report import table
from engine.dev.process import free_port, port_is_free, wait_until
from engine.ports import Output
from engine.runtime.clock import SystemClock
from engine.runtime.context import Context, open_context
from engine.runtime.history.clickhouse import History, connect
from engine.runtime.memory import MemoryLog

ENDPOINTS, TENANTS, PARTITIONS = 5_000, 50, 8
_KEY = "hl_admin_for_a_benchmark"
_STARTS_WITHIN_S = 30.0
_PARTITIONS = """SELECT DISTINCT table, partition_id FROM system.parts
WHERE active AND database = currentDatabase() AND max_time < now() - INTERVAL 1 DAY"""
_PATHS = (
    *("overview", "overview?tenant=tenant_7"),
    *("deliveries", "deliveries?tenant=tenant_7&within=7d", "deliveries?event_type=type.3"),
    *("deliveries?status=pending", "deliveries?status=failed", "deliveries?status=pending&tenant=tenant_7"),
    *("deliveries?endpoint=ep_0000", "deliveries?endpoint=ep_0500", "deliveries?endpoint=ep_4000"),
    *("endpoints/ep_0000", "endpoints/ep_0000?range=7d", "endpoints/ep_0000?range=30d"),
    *("endpoints/ep_4000", "endpoints/ep_4000?range=1h", "endpoints/ep_4000?range=30d"),
    *("failed", "failed?tenant=tenant_7", "failed?endpoint=ep_0500"),
    *(
        "replays",
        "webhooks",
        "webhooks/ep_0000/edit",
        "event-types",
        "keys",
        "audit",
        "audit?tenant=tenant_7",
    ),
)
"""ep_0000 has 6 % of the traffic, ep_0500 ten messages a day, ep_4000 three."""
_MESSAGE = "SELECT message_id, tenant FROM messages ORDER BY accepted_at DESC LIMIT 1 OFFSET 2000"


@dataclass(frozen=True, slots=True)
class Took:
    """What a page costs: milliseconds until its last byte, and its size in bytes."""

    path: str
    first: float
    ordered: Sequence[float]
    """All, ascending."""
    weight: int


def settle(store: Storage) -> None:
    """Merge the days before today, as they are hours after they were written; today's rows stay in parts."""
    for name, partition in store.history.query(_PARTITIONS).rows:
        store.client.command(f"OPTIMIZE TABLE {name} PARTITION ID '{partition}' FINAL")


def make_context(store: Storage, port: int) -> Context:
    """A context whose log is in memory and holds the endpoints that the history is of."""
    given = {
        "admin_key": _KEY,
        "master_key": base64.b64encode(os.urandom(32)).decode(),
        "partitions": PARTITIONS,
        "api_port": port,
    }
    settings = type(store.settings).model_validate({**store.settings.model_dump(), **given})
    log = MemoryLog(PARTITIONS, SystemClock())
    context = open_context(settings, log)
    for number in range(ENDPOINTS):
        tenant = f"tenant_{number % TENANTS}"
        chosen = EndpointSettings(f"https://hooks{number}.example.com/in")
        made = Endpoint(f"ep_{number:04d}", tenant, chosen, created_at=context.clock.now())
        at = partition_of(tenant, PARTITIONS)
        log.append(Output("endpoints", at, made.id.encode(), context.codec.encode(made)))
    return context


@asynccontextmanager
async def serving(context: Context) -> AsyncIterator[None]:
    """Serve the API on the port of the settings."""
    history = History(partial(connect, context.settings))
    async with started(context, history) as services:
        host, port = "127.0.0.1", context.settings.api_port
        config = uvicorn.Config(
            create_app(services), host=host, port=port, lifespan="off", log_config=None, access_log=False
        )
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve())
        listens = partial(wait_until, lambda: not port_is_free(port), _STARTS_WITHIN_S)
        if not await asyncio.to_thread(listens):
            raise BenchError(f"the API does not listen at port {port}")
        yield
        server.should_exit = True
        await running


def measure(port: int, paths: Sequence[str], times: int) -> Iterator[Took]:
    """Ask for every page so many times; blocks."""
    visitor = Visitor("127.0.0.1", port)
    visitor.log_in(_KEY)
    for path in paths:
        taken, weight = [], 0
        for _ in range(times):
            began = time.perf_counter()
            weight = len(visitor.get(path))
            taken.append((time.perf_counter() - began) * 1_000)
        yield Took(path, taken[0], sorted(taken), weight)
    visitor.close()


async def visit(store: Storage, times: int) -> list[Took]:
    """Serve, and have somebody look at everything."""
    port = free_port()
    ((message, tenant),) = store.history.query(_MESSAGE).rows
    found = urlencode({"id": message, "tenant": tenant})
    paths = (*_PATHS, f"deliveries?id={message}", f"message?{found}")
    async with serving(make_context(store, port)):
        return await asyncio.to_thread(lambda: list(measure(port, paths, times)))


def show(console: Console, took: Sequence[Took]) -> None:
    """Print a table."""
    rows = [
        (
            each.path,
            f"{each.first:.0f}",
            f"{quantile(each.ordered, 0.5):.0f}",
            f"{quantile(each.ordered, 0.95):.0f}",
            f"{each.weight / 1_024:.0f}",
        )
        for each in took
    ]
    console.print(table("Pages", ("page", "first, ms", "p50, ms", "p95, ms", "weight, KiB"), rows))


def main() -> None:
    """Fill, look, print."""
    parser = argparse.ArgumentParser(prog="pages", description=__doc__)
    parser.add_argument("--attempts", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=50)
    given = parser.parse_args()
    console, began = Console(), time.monotonic()
    now = datetime.fromtimestamp(SystemClock().now() // 1_000_000, UTC)

    def tell(what: str) -> None:
        console.print(f"{time.monotonic() - began:6.0f} s  {what}")

    with storage() as store:
        fill(store, given.attempts, now - timedelta(days=DAYS), tell)
        settle(store)
        tell("the days before today are merged")
        console.print(machine())
        show(console, uvloop.run(visit(store, given.times)))


if __name__ == "__main__":
    main()
