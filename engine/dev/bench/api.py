"""The API's figures: publishing one by one and in batches, and how soon a change is in force."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import orjson
from rich.console import Console

from engine.dev.bench.figures import quantile
from engine.dev.bench.processes import machine, snapshot
from engine.dev.bench.scenario import BenchError, receiver
from engine.dev.demo.clients import Stack
from engine.dev.demo.report import table
from engine.dev.stack import FREE_PORTS
from engine.dev.stack import Stack as EmbeddedStack

_BATCH = 100
_CONCURRENCY = 32
_BATCHES_AT_ONCE = 8
_RATE = 300
_PATCHES = 20
_PATCH_LOOK_S = 0.6
_PATCH_PAUSE_S = 0.005
_PAYLOAD = {"roomId": "room_abc123xyz", "text": "x" * 600}
_COLUMNS = ("what", "messages", "per s", "p50 ms", "p99 ms", "max ms", "API CPU µs")


@dataclass(frozen=True, slots=True)
class Speed:
    """One scenario: times of an answer in milliseconds, the API's CPU in microseconds a message."""

    what: str
    messages: int
    per_second: float
    p50: float
    p99: float
    largest: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Client:
    """A session with the API's key, and where the API is."""

    http: aiohttp.ClientSession
    api: str

    async def send(self, method: str, path: str, body: object) -> bytes:
        """Return the answer's body; BenchError if it is no success."""
        content = orjson.dumps(body)
        async with self.http.request(method, self.api + path, data=content) as answer:
            told = await answer.read()
            if answer.status >= 300:
                raise BenchError(f"{method} {path}: {answer.status} {told.decode()}")
            return told


Send = Callable[[], Awaitable[None]]


def message(tenant: str, number: int) -> dict[str, object]:
    """One of some 700 bytes."""
    return {"tenant": tenant, "event_type": "bench.api", "payload": {**_PAYLOAD, "n": number}}


async def saturated(send: Send, at_once: int, seconds: float) -> list[float]:
    """Seconds that each request took, so many at a time."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def one() -> None:
        while time.perf_counter() < end:
            times.append(await _timed(send))

    await asyncio.gather(*(one() for _ in range(at_once)))
    return times


async def paced(send: Send, rate: float, seconds: float) -> list[float]:
    """Seconds that each request took, begun at a given rate whatever the others do."""
    start, running = time.perf_counter(), []
    for number in range(int(rate * seconds)):
        await asyncio.sleep(start + number / rate - time.perf_counter())
        running.append(asyncio.create_task(_timed(send)))
    return list(await asyncio.gather(*running))


async def _timed(send: Send) -> float:
    start = time.perf_counter()
    await send()
    return time.perf_counter() - start


async def _measured(what: str, each: int, sending: Awaitable[list[float]]) -> Speed:
    """`each`: messages in a request."""
    start, before = time.perf_counter(), _api_cpu_s()
    times = sorted(await sending)
    took, count = time.perf_counter() - start, len(times) * each
    cpu_us = (_api_cpu_s() - before) / count * 1e6
    p50, p99 = (quantile(times, q) * 1e3 for q in (0.5, 0.99))
    return Speed(what, count, count / took, p50, p99, times[-1] * 1e3, cpu_us)


def _api_cpu_s() -> float:
    return snapshot(os.getpid())["api"].cpu_s


async def publishing(client: Client, seconds: float) -> list[Speed]:
    """Publish to a tenant without endpoints: what is measured is accepting."""

    async def single() -> None:
        await client.send("POST", "/v1/messages", message("idle", 0))

    batch = {"messages": [message("idle", number) for number in range(_BATCH)]}

    async def batched() -> None:
        await client.send("POST", "/v1/messages/batch", batch)

    await saturated(single, _CONCURRENCY, seconds / 2)  # the JVM compiles itself at first
    return [
        await _measured("singly, saturated", 1, saturated(single, _CONCURRENCY, seconds)),
        await _measured("batches of 100", _BATCH, saturated(batched, _BATCHES_AT_ONCE, seconds)),
        await _measured(f"singly at {_RATE}/s", 1, paced(single, _RATE, seconds)),
    ]


async def changing(client: Client, receivers: Sequence[str]) -> list[float]:
    """Seconds from the answer of a PATCH until no request goes to the old URL any more, each time."""
    settings = {"tenant": "changing", "url": receivers[0]}
    endpoint = json.loads(await client.send("POST", "/v1/endpoints", settings))["id"]
    stop = asyncio.Event()
    publishing = asyncio.create_task(_publish_until(client, stop))
    answered: list[int] = []
    for number in range(1, _PATCHES + 1):
        await asyncio.sleep(_PATCH_LOOK_S)
        await client.send("PATCH", f"/v1/endpoints/{endpoint}", {"url": receivers[number % 2]})
        answered.append(time.time_ns())
    await asyncio.sleep(_PATCH_LOOK_S)
    stop.set()
    await publishing
    arrivals = [await _arrivals(client, url) for url in receivers]
    if not all(arrivals):
        raise BenchError("no request came to one of the two URLs: nothing was measured")
    return [_lag(at, arrivals[n % 2]) for n, at in enumerate(answered)]


def _lag(answered: int, at_old: Sequence[int]) -> float:
    """How long after the answer the last request came to the old URL; 0 if none did."""
    until = answered + _PATCH_LOOK_S * 1e9
    return max((at - answered for at in at_old if answered < at < until), default=0) / 1e9


async def _publish_until(client: Client, stop: asyncio.Event) -> None:
    number = 0
    while not stop.is_set():
        await client.send("POST", "/v1/messages", message("changing", number))
        number += 1
        await asyncio.sleep(_PATCH_PAUSE_S)


async def _arrivals(client: Client, url: str) -> list[int]:
    async with client.http.get(f"{url}/notes") as answer:
        return [int(line.split()[0]) for line in (await answer.text()).splitlines()]


@asynccontextmanager
async def _client(stack: Stack) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {stack.key}", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as http:
        yield Client(http, stack.api)


async def _measure(stack: Stack, receivers: Sequence[str], seconds: float) -> tuple[list[Speed], list[float]]:
    async with _client(stack) as client:
        return await publishing(client, seconds), sorted(await changing(client, receivers))


def run(seconds: float, out: Path | None, folder: Path) -> None:
    """Start a stack, measure, print, and write JSON."""
    with ExitStack() as opened:
        receivers = []
        for name in ("a", "b"):
            (folder / name).mkdir()
            receivers.append(opened.enter_context(receiver(folder / name)))
        stack = opened.enter_context(EmbeddedStack(folder / "stack", FREE_PORTS))
        speeds, lags = asyncio.run(_measure(stack, receivers, seconds))
    console = Console(width=110)
    console.print(machine())
    console.print(table("Publishing over HTTP", _COLUMNS, [_row(speed) for speed in speeds]))
    in_force = {"p50": quantile(lags, 0.5) * 1e3, "largest": lags[-1] * 1e3}
    console.print(f"a PATCH is in force after its answer: {in_force} ms, {len(lags)} times", highlight=False)
    if out is not None:
        figures = {"machine": machine(), "publishing": list(map(asdict, speeds)), "patch_ms": in_force}
        out.write_text(json.dumps(figures, indent=2) + "\n")


def _row(speed: Speed) -> tuple[object, ...]:
    figures = (speed.p50, speed.p99, speed.largest)
    return (
        speed.what,
        f"{speed.messages:,}",
        f"{speed.per_second:,.0f}",
        *(f"{ms:.2f}" for ms in figures),
        f"{speed.cpu_us:.0f}",
    )


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="how long each scenario takes")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hooklog-bench-api-") as made:
        run(chosen.seconds, chosen.out, Path(made))


if __name__ == "__main__":
    main()
