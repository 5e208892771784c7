"""How fast the projector writes attempts: `python -m engine.dev.bench.projector [--attempts 300000]`.

The real projector, on one core, reads encoded records from a log in memory and writes to the embedded store,
rollups included; the store is on the other cores. First everything at once, then at a steady rate.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console

from consumers.projector import Projector
from engine.core.model import AttemptFinished
from engine.dev.bench.processes import machine
from engine.dev.bench.storage import Storage, storage
from engine.ports import Output
from engine.runtime.clock import SystemClock
from engine.runtime.configuration.vault import AesVault
from engine.runtime.context import Context
from engine.runtime.memory import MemoryLog
from schemas.codec import Codec

ENDPOINTS = 2_000
STEADY = 3_000
STEADY_S = 30
_PLAIN = AttemptFinished(
    delivery_id="dlv_", tenant="acme", endpoint_id="ep", message_id="m", event_type="room.ended", attempt=1,
    trigger="scheduled", origin="", accepted_at=0, source_partition=0, source_offset=0, attempted_at=0,
    duration_us=12_345, outcome="success", status_code=200, error_class="", error="", decision="delivered",
    reason="", retry_at=0, request_bytes=600, response_body=b"ok", worker="dispatcher-0", delivery=b"",
)  # fmt: skip


def records(first: int, count: int, at: int) -> Iterator[bytes]:
    """Attempts of deliveries accepted 1 ms apart from `at` on; one of twenty failed and will be retried."""
    codec = Codec()
    for n in range(first, first + count):
        accepted = at + (n - first) * 1_000_000 // STEADY
        made = replace(
            _PLAIN,
            delivery_id=f"dlv_{n:024x}",
            tenant=f"tenant_{n % 50}",
            endpoint_id=f"ep_{n * 7919 % ENDPOINTS:04}",
            message_id=f"m{n}",
            accepted_at=accepted,
            attempted_at=accepted + 5_000,
            source_offset=n,
        )
        failed = replace(made, outcome="failure", status_code=503, error_class="http_5xx", decision="retry")
        yield codec.encode(made if n % 20 else failed)


def joined(log: MemoryLog, store: Storage) -> Projector:
    """A projector that has joined."""
    context = Context(store.settings, log, SystemClock(), Codec(), {}, AesVault(bytes(32)), "bench")
    return Projector(context, store.history)


def catch_up(console: Console, store: Storage, count: int) -> None:
    """Everything at once."""
    log = MemoryLog(1, SystemClock())
    for value in records(0, count, SystemClock().now() - count * 1_000_000 // STEADY):
        log.append(Output("attempts", 0, None, value))
    projector = joined(log, store)
    before, began, theirs = time.process_time(), time.monotonic(), store.cpu_s()
    for _ in range(0, count, 2_000):
        projector.step(0)
    projector.close()
    wall, cpu, store_cpu = time.monotonic() - began, time.process_time() - before, store.cpu_s() - theirs
    console.print(
        f"{count:,} attempts at once: {count / wall:,.0f}/s; CPU µs an attempt: projector"
        f" {cpu / count * 1e6:.1f}, store {store_cpu / count * 1e6:.1f}; its peak {store.peak_mb():.0f} MB"
    )


def keep_up(console: Console, store: Storage, first: int) -> None:
    """At a steady rate: how far behind."""
    log, clock = MemoryLog(1, SystemClock()), SystemClock()
    projector = joined(log, store)
    before, theirs, behind = time.process_time(), store.cpu_s(), [0.0]
    began, sent = clock.monotonic(), 0
    while sent < STEADY * STEADY_S:
        due = int((clock.monotonic() - began) * STEADY) - sent
        for value in records(first + sent, due, clock.now()):
            log.append(Output("attempts", 0, None, value))
        sent += due
        projector.step(0.02)
        behind.append(projector.delay())
    projector.close()
    cpu, store_cpu = time.process_time() - before, store.cpu_s() - theirs
    console.print(
        f"{STEADY:,}/s for {STEADY_S} s: at most {max(behind):.2f} s behind; cores busy: projector, with the"
        f" making of the records, {cpu / STEADY_S:.2f}, store {store_cpu / STEADY_S:.2f}"
    )


def main() -> None:
    """Measure both, print."""
    parser = argparse.ArgumentParser(prog="projector", description=__doc__)
    parser.add_argument("--attempts", type=int, default=300_000)
    count, console = parser.parse_args().attempts, Console()
    cores = sorted(os.sched_getaffinity(0))
    with storage() as store:
        os.sched_setaffinity(0, cores[:1])
        console.print(f"{machine()}; the projector on one of them")
        catch_up(console, store, count)
        keep_up(console, store, count)


if __name__ == "__main__":
    main()
