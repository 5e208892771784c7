"""Groups as supervised processes on a broker that may be hurt, load for them, and the log's own books."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from confluent_kafka.admin import AdminClient

from engine.core.change import CreateEndpoint, EndpointSettings, SealedSecret
from engine.core.model import AttemptFinished, MessagePublished, RoutedBatch
from engine.core.routing import delivery_id, partition_of
from engine.dev.keys import new_master_key
from engine.dev.process import free_port, wait_until
from engine.dev.supervisor import Program, Supervisor, http_ready
from engine.ports import Output, Record
from engine.runtime.configuration.vault import COMMAND_KEY_ID, AesVault, Keyring, load_master_keys
from engine.runtime.kafka import KafkaAdmin, KafkaLog
from engine.runtime.kafka.client import Cluster
from engine.runtime.settings import Settings
from schemas.codec import Codec

LIMIT_S = 120.0
TENANT = "acme"
ENDPOINT = "ep_1"
SECRET = "whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"
CODEC = Codec()
STOP_S = 20.0


class Groups:
    """Processes of groups by name: `router` is instance 0 of router, `router.1` instance 1."""

    def __init__(self, kafka: str, prefix: str, folder: Path, **more: str) -> None:
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("HOOKLOG_")} | {
            "HOOKLOG_KAFKA": kafka,
            "HOOKLOG_PREFIX": prefix,
            "HOOKLOG_PARTITIONS": "4",
            "HOOKLOG_MASTER_KEY": new_master_key(),
            "HOOKLOG_ALLOW_HTTP": "true",
            "HOOKLOG_EGRESS_ALLOW": "127.0.0.0/8",
            **more,
        }
        named = {
            name.removeprefix("HOOKLOG_").lower(): value
            for name, value in self.env.items()
            if name.startswith("HOOKLOG_")
        }
        self.settings = Settings.model_validate(named)
        KafkaAdmin(self.settings).create()
        self.log = KafkaLog(self.settings)
        self.admin = AdminClient(Cluster.of(self.settings).config())
        """Whoever hurts topics; it has to outlive what it is asked."""
        self.lines: list[str] = []
        self.supervisor = Supervisor(folder, self.lines.append)
        self.ports: dict[str, int] = {}

    def start(self, *names: str) -> None:
        """Start them and wait until they are ready."""
        self.launch(*names)
        self.supervisor.wait_ready(names, LIMIT_S)

    def launch(self, *names: str) -> None:
        """Start them."""
        for name in names:
            group, _, instance = name.partition(".")
            port = self.ports.setdefault(name, free_port())
            env = self.env | {"HOOKLOG_METRICS_PORT": str(port), "HOOKLOG_INSTANCE": instance or "0"}
            argv = [sys.executable, "-m", "engine.cli.main", "run", group]
            ready = partial(http_ready, f"http://127.0.0.1:{port}/readyz")
            self.supervisor.start(Program(name, argv, ready, env))

    def stop(self, *names: str) -> None:
        """Stop them, or all."""
        self.supervisor.stop(names or list(self.ports), STOP_S)

    def probe(self, name: str, path: str) -> tuple[int, str]:
        """Status and body of a probe."""
        connection = HTTPConnection("127.0.0.1", self.ports[name], timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()

    def wait_for(self, name: str, status: int, words: str = "") -> str:
        """Wait until /readyz answers so; its body."""
        said = (0, "")

        def answers() -> bool:
            nonlocal said
            said = self.probe(name, "/readyz")
            return said[0] == status and words in said[1]

        assert wait_until(answers, LIMIT_S, 0.1), (name, said, self.said(name)[-2_000:])
        return said[1]

    def said(self, name: str) -> str:
        """What a process has written."""
        return self.supervisor.log(name).read_text()

    # -- load --------------------------------------------------------------------------

    def write(self, topic: str, key: str, record: object) -> None:
        """Write a record and wait until it is acknowledged."""
        producer = self.log.producer()
        producer.send(
            Output(topic, partition_of(key, self.settings.partitions), key.encode(), CODEC.encode(record)),
            print_nothing,
        )
        assert producer.flush(LIMIT_S)

    def create_endpoint(self, url: str, endpoint_id: str = ENDPOINT) -> None:
        """Ask control for an endpoint, and wait until it is there."""
        keyring = Keyring(AesVault(*load_master_keys(self.settings)))
        empty = SealedSecret(1, COMMAND_KEY_ID, b"", b"")
        sealed = keyring.seal(COMMAND_KEY_ID, (TENANT, endpoint_id), empty, SECRET)
        asked = EndpointSettings(url, None, retry_policy=(1_000,) * 5)
        command = CreateEndpoint(f"create-{endpoint_id}", TENANT, "test", 0, endpoint_id, asked, True, sealed)
        self.write("commands", TENANT, command)
        assert wait_until(lambda: endpoint_id in self.endpoints(), LIMIT_S, 0.1)

    def endpoints(self) -> set[str]:
        """Endpoints on the log."""
        return {(record.key or b"").decode() for record in self.records("endpoints")}

    # -- books -------------------------------------------------------------------------

    def records(self, topic: str) -> Iterator[Record]:
        """All records of a topic."""
        reader = self.log.reader()
        try:
            partitions = [(topic, n) for n in range(self.log.partitions(topic))]
            yield from reader.read(reader.starts(partitions))
        finally:
            reader.close()

    def owed(self) -> set[str]:
        """The delivery of each message on the log."""
        topic = f"{self.settings.prefix}messages"
        return {delivery_id(topic, r.partition, r.offset, ENDPOINT) for r in self.records("messages")}

    def attempts(self) -> Counter[str]:
        """How many records say that a delivery was delivered."""
        found = (CODEC.decode_as(AttemptFinished, r.value) for r in self.records("attempts"))
        return Counter(attempt.delivery_id for attempt in found if attempt.decision == "delivered")

    def unrouted(self) -> set[tuple[int, int]]:
        """Messages that no RoutedBatch tells of."""
        told = {
            (batch.partition, routing.offset)
            for batch in (CODEC.decode(r.value) for r in self.records("routings"))
            if isinstance(batch, RoutedBatch)
            for routing in batch.routings
        }
        return {(r.partition, r.offset) for r in self.records("messages")} - told

    def wait_delivered(self) -> None:
        """Wait until every message on the log was delivered and routed."""
        left: set[str] = set()

        def settled() -> bool:
            left.clear()
            left.update(self.owed() - set(self.attempts()))
            return not left and not self.unrouted()

        assert wait_until(settled, LIMIT_S, 0.25), (len(left), len(self.unrouted()))


def print_nothing(offset: int) -> None:
    """Nobody waits for it."""


class Load:
    """Publishes so many messages a second on a thread until stopped; every one must be acknowledged."""

    def __init__(self, groups: Groups, rate: float = 100) -> None:
        self._groups = groups
        self._rate = rate
        self.sent = 0
        self.acknowledged = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")
        self._thread.start()

    def _run(self) -> None:
        producer = self._groups.log.producer()
        began = time.monotonic()
        while not self._over.is_set():
            producer.poll(0.005)
            while self.sent < (time.monotonic() - began) * self._rate:
                self.sent += 1
                producer.send(self._message(), self._count)
        assert producer.flush(LIMIT_S)

    def _count(self, offset: int) -> None:
        self.acknowledged += 1

    def _message(self) -> Output:
        id = f"{id_of(self)}-{self.sent}"
        now = time.time_ns() // 1000
        value = CODEC.encode(MessagePublished(TENANT, id, "room.ended", b"{}", now))
        return Output("messages", partition_of(id, self._groups.settings.partitions), id.encode(), value)

    def stop(self) -> int:
        """Stop; how many were sent, all of them acknowledged."""
        self._over.set()
        self._thread.join()
        assert self.acknowledged == self.sent
        return self.sent


def id_of(load: Load) -> str:
    """A name that no other load of this process has."""
    return f"m{id(load):x}"


@contextmanager
def loaded(groups: Groups, rate: float = 100) -> Iterator[Load]:
    """Load while the block runs."""
    load = Load(groups, rate)
    try:
        yield load
    finally:
        load.stop()
