"""Rotation on Kafka, under load: of a secret, and of the master key."""

from __future__ import annotations

import base64
import hmac
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.core.change import RotateSecret, SealedSecret, SecretRotated
from engine.core.model import MessagePublished
from engine.core.routing import partition_of
from engine.dev.keys import new_master_key
from engine.dev.process import free_port, wait_until
from engine.dev.supervisor import Program, http_ready
from engine.ports import Output
from engine.runtime.clock import SystemClock
from engine.runtime.configuration.vault import COMMAND_KEY_ID, AesVault, Keyring, load_master_keys
from tests.integration.groups import CODEC, ENDPOINT, LIMIT_S, SECRET, TENANT, Groups

pytestmark = pytest.mark.integration
NEW = "whsec_" + base64.b64encode(bytes(range(24))).decode()
MESSAGES = 200


class Arrived:
    """Requests as they came: (signed at, seconds; arrived at, microseconds; by which secret)."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, int, str]] = []
        self.seen: Counter[str] = Counter()
        """Requests a message."""
        self.port = 0

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """Note a request; the first of each message fails."""
        message, at = headers["webhook-id"], headers["webhook-timestamp"]
        signed = f"{message}.{at}.".encode() + body
        by = {_signature(secret, signed): name for name, secret in (("old", SECRET), ("new", NEW))}
        self.requests.append((int(at), SystemClock().now(), by[headers["webhook-signature"]]))
        self.seen[message] += 1
        return 500 if self.seen[message] == 1 else 200


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return "v1," + base64.b64encode(hmac.new(key, signed, sha256).digest()).decode()


@contextmanager
def receiver() -> Iterator[Arrived]:
    """A server on a free port."""
    arrived = Arrived()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = arrived.take({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    arrived.port = server.server_address[1]
    serving = threading.Thread(target=server.serve_forever, args=(0.05,))
    serving.start()
    try:
        yield arrived
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@pytest.fixture
def groups(kafka: str, prefix: str, tmp_path: Path) -> Iterator[Groups]:
    """control, router, dispatcher and scheduler in one process, which knows a second master key."""
    made = Groups(kafka, prefix, tmp_path, HOOKLOG_PREVIOUS_MASTER_KEY=new_master_key())
    port = made.ports["all"] = free_port()
    argv = [sys.executable, "-m", "engine.cli.main", "run", "control", "router", "dispatcher", "scheduler"]
    ready = partial(http_ready, f"http://127.0.0.1:{port}/readyz")
    made.supervisor.start(Program("all", argv, ready, made.env | {"HOOKLOG_METRICS_PORT": str(port)}))
    made.supervisor.wait_ready(["all"], LIMIT_S)
    yield made
    made.stop()


def rotate(groups: Groups) -> None:
    """Ask control for another secret."""
    keyring = Keyring(AesVault(*load_master_keys(groups.settings)))
    sealed = keyring.seal(COMMAND_KEY_ID, (TENANT, ENDPOINT), SealedSecret(0, "", b"", b""), NEW)
    groups.write("commands", TENANT, RotateSecret("rotate", TENANT, "test", 0, ENDPOINT, sealed, 0))


def arrived_twice(arrived: Arrived) -> set[str]:
    """Messages that have come again after they were refused."""
    return {message for message, requests in tuple(arrived.seen.items()) if requests > 1}


def publish(groups: Groups, count: int, name: str) -> None:
    """Write messages and wait until they are acknowledged."""
    producer = groups.log.producer()
    for n in range(count):
        id = f"{name}-{n}"
        message = MessagePublished(TENANT, id, "room.ended", b"{}", 0)
        at = partition_of(id, groups.settings.partitions)
        producer.send(Output("messages", at, id.encode(), CODEC.encode(message)), lambda offset: None)
    assert producer.flush(LIMIT_S)


def rotation(groups: Groups) -> SecretRotated | None:
    """The fact, once it is there."""
    facts = (CODEC.decode(record.value) for record in groups.records("changes"))
    return next((fact for fact in facts if isinstance(fact, SecretRotated)), None)


def changed_master_key(groups: Groups) -> dict[str, int]:
    """Run the command with the two keys the other way round."""
    old, new = (groups.env[f"HOOKLOG_{name}MASTER_KEY"] for name in ("", "PREVIOUS_"))
    env = groups.env | {"HOOKLOG_MASTER_KEY": new, "HOOKLOG_PREVIOUS_MASTER_KEY": old}
    argv = [sys.executable, "-m", "engine.cli.main", "rotate-master-key", "-o", "json"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, int] = json.loads(done.stdout)
    return answer


def test_rotation_under_load(groups: Groups) -> None:
    """Retries before and after: none is signed with the old secret at `effective_at` or later, all arrive."""
    with receiver() as arrived:
        groups.create_endpoint(f"http://127.0.0.1:{arrived.port}/")
        publish(groups, MESSAGES, "early")
        assert wait_until(lambda: len(arrived.seen) >= MESSAGES // 2, LIMIT_S, 0.01)
        rotate(groups)
        publish(groups, MESSAGES, "late")
        assert changed_master_key(groups) == {"rewrapped": 1, "current": 0}
        assert wait_until(lambda: rotation(groups) is not None, LIMIT_S, 0.1)
        publish(groups, 1, "last")
        sent = {f"{name}-{n}" for name in ("early", "late") for n in range(MESSAGES)} | {"last-0"}
        assert wait_until(lambda: arrived_twice(arrived) == sent, LIMIT_S, 0.05), arrived.seen
    fact = rotation(groups)
    assert fact is not None
    effective_at = fact.secret.effective_at
    by = {
        name: [(at, came) for at, came, signer in arrived.requests if signer == name]
        for name in ("old", "new")
    }
    assert by["old"]
    assert by["new"]
    assert len(by["old"]) + len(by["new"]) == len(arrived.requests)
    assert max(at for at, _ in by["old"]) * 1_000_000 <= effective_at <= min(came for _, came in by["new"])
