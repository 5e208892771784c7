"""What many endpoints cost: how long a router's view of them takes to load, and its memory an endpoint.

`python -m engine.dev.bench.roster [--endpoints 100000]` starts the embedded broker and prints a line.
"""

from __future__ import annotations

import argparse
import base64
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from engine.core.change import EndpointSettings, SealedSecret
from engine.core.endpoint import Endpoint
from engine.core.routing import Roster, lean, partition_of
from engine.dev.bench.processes import machine
from engine.dev.broker import Broker, answers
from engine.dev.process import free_port, spawn, stop, wait_until
from engine.ports import Output
from engine.runtime.configuration.vault import Keyring
from engine.runtime.configuration.views import CONFIGURATION_TOPICS, Configuration, View
from engine.runtime.context import open_context
from engine.runtime.kafka import KafkaAdmin
from engine.runtime.settings import load_settings
from schemas.codec import Codec

TENANTS = 5_000
_READY_S = 60
_PAGE = os.sysconf("SC_PAGE_SIZE")


def endpoint(number: int) -> Endpoint:
    """An ordinary one: a list of event types, a header, one secret."""
    types = ("room.*", "recording.available", f"participant.{number % 7}")
    url = f"https://hooks.customer{number}.example.com/webhooks/v1?account={number}"
    settings = EndpointSettings(
        url, types, headers={"x-account": f"acc_{number}"}, description=f"No. {number}"
    )
    secret = SealedSecret(1, f"dk_{number % TENANTS}", os.urandom(12), os.urandom(65))
    return Endpoint(
        f"ep_{number:024x}",
        f"tenant-{number % TENANTS}",
        settings,
        version=1,
        secrets=(secret,),
        created_at=1,
    )


def write(count: int) -> None:
    """Write so many snapshots to `endpoints`."""
    context = open_context(load_settings())
    producer, encode = context.log.producer(), Codec().encode
    partitions = context.log.partitions("endpoints")
    for number in range(count):
        one = endpoint(number)
        at = partition_of(one.tenant, partitions)
        producer.send(Output("endpoints", at, one.id.encode(), encode(one)), lambda offset: None)
        if number % 5_000 == 0:
            producer.flush(_READY_S)
    if not producer.flush(_READY_S):
        raise RuntimeError("the broker did not acknowledge all endpoints")


def load() -> str:
    """Load what a router loads; a line with the figures."""
    context = open_context(load_settings())
    roster = Roster(context.log.partitions("deliveries"))
    configuration = Configuration(context.codec, Keyring(context.vault), roster.put, lean)
    before, began = _resident(), time.monotonic()
    view = View(context.log, CONFIGURATION_TOPICS, configuration.fold)
    view.load()
    took, grown = time.monotonic() - began, _resident() - before
    view.close()
    count = len(configuration.endpoints)
    return f"{count:,} endpoints: view ready in {took:.1f} s, {grown / max(count, 1):,.0f} bytes each"


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def _run(folder: Path, count: int) -> None:
    """Start a broker, fill it, and measure in a process of its own."""
    broker = Broker(folder, free_port())
    process = spawn(broker.prepare(), folder / "kafka.log", os.environ)
    try:
        if not wait_until(partial(answers, broker.port), _READY_S, 0.2):
            raise RuntimeError("the broker did not start")
        key = base64.b64encode(os.urandom(32)).decode()
        os.environ |= {"HOOKLOG_KAFKA": f"127.0.0.1:{broker.port}", "HOOKLOG_MASTER_KEY": key}
        KafkaAdmin(load_settings()).create()
        write(count)
        subprocess.run([sys.executable, "-m", "engine.dev.bench.roster", "--measure"], check=True)
    finally:
        stop(process, 20)


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoints", type=int, default=100_000)
    parser.add_argument("--measure", action="store_true", help="only load what is on the broker already")
    chosen = parser.parse_args()
    if chosen.measure:
        print(load(), flush=True)
        return 0
    with ExitStack() as held:
        print(machine(), flush=True)
        folder = held.enter_context(tempfile.TemporaryDirectory(prefix="hooklog-"))
        _run(Path(folder), chosen.endpoints)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
