"""A stack with something of everything in it, and a real Prometheus that scrapes it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import yaml

from engine.dev.process import free_port, spawn, stop, tail, wait_until
from engine.dev.stack import FREE_PORTS, Stack
from engine.dev.supervisor import http_ready
from engine.runtime.history.clickhouse import History, connect
from engine.runtime.settings import load_settings

RULES = Path(__file__).parents[2] / "grafana" / "prometheus" / "recording.yml"
TENANT = "acme"
_SETTINGS = {"HOOKLOG_TIERS": "1s,2s,5s"}
_READY_S = 60.0
_SETTLED_S = 300.0
_MESSAGES, _BATCHES = 60, 4
# Endpoints by the path of their receiver: what they are created with. Nobody listens for `dead`.
_ENDPOINTS: Mapping[str, Mapping[str, object]] = {
    "healthy": {},
    "flaky": {"retry_policy": ["1s", "1s"]},
    "broken": {"retry_policy": ["1s"]},
    "limited": {"rate_limit": 200},
    "dead": {"retry_policy": ["1h"]},
    "gone": {},
}


class Receiver:
    """Answers by path: `flaky` refuses each message once, `broken` always, `gone` is gone."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _status(self, path: str, message: str) -> int:
        self._seen[path + message] += 1
        flaky = 503 if self._seen[path + message] == 1 else 200
        return {"/flaky": flaky, "/broken": 500, "/gone": 410}.get(path, 204)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._status

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(answer(self.path, self.headers.get("webhook-id", "")))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Every request is in the history."""

        return Handler


@dataclass(slots=True)
class Watched:
    """The stack, where Prometheus answers, what ClickHouse knows, and the endpoints' ids by name."""

    stack: Stack
    prometheus: str
    history: History
    http: httpx.Client
    endpoints: dict[str, str] = field(default_factory=dict)
    message: str = "m-1-0"
    """A message that went to every endpoint."""

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """One request to hooklog's API, which must be taken."""
        headers = {"Authorization": f"Bearer {self.stack.key}"}
        answer = self.http.request(method, self.stack.api + path, json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer.json()

    def evaluate(self, expression: str) -> list[float]:
        """The values that a PromQL expression has now, without those that are not numbers."""
        answer = self.http.get(f"{self.prometheus}/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, f"{expression}\n{answer.text}"
        values = [float(sample["value"][1]) for sample in answer.json()["data"]["result"]]
        return [value for value in values if value == value]  # noqa: PLR0124  NaN is not itself

    def counts(self, sql: str) -> int:
        """The one number that a query of ClickHouse answers with."""
        return int(str(self.history.query(sql).rows[0][0]))


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """Start all of it, let it happen, and wait until it shows."""
    if shutil.which("prometheus") is None:
        pytest.skip("there is no prometheus here: apt-get install prometheus")
    with ExitStack() as held:
        receiver = held.enter_context(Receiver())
        stack = held.enter_context(Stack(folder / "stack", FREE_PORTS, _SETTINGS, lambda _: None))
        prometheus = held.enter_context(_prometheus(folder, stack))
        history = History(partial(connect, load_settings(clickhouse=stack.clickhouse)))
        held.callback(history.close)
        http = held.enter_context(httpx.Client(timeout=_READY_S, trust_env=False))
        scene = Watched(stack, prometheus, history, http)
        _happen(scene, receiver)
        yield scene


@contextmanager
def _prometheus(folder: Path, stack: Stack) -> Iterator[str]:
    """Scrape the API's /metrics, which has the whole stack's, every second, and apply our recording rules."""
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for group in rules["groups"]:
        group["interval"] = "1s"
    (folder / "recording.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    config = {
        "global": {"scrape_interval": "1s"},
        "rule_files": ["recording.yml"],
        "scrape_configs": [
            {"job_name": "hooklog", "static_configs": [{"targets": [stack.api.removeprefix("http://")]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    listen, log = f"127.0.0.1:{free_port()}", folder / "prometheus.log"
    options = {"config.file": "prometheus.yml", "storage.tsdb.path": "prometheus"}
    argv = [f"--{name}={folder / value}" for name, value in options.items()]
    process = spawn(["prometheus", *argv, f"--web.listen-address={listen}"], log)
    try:
        assert wait_until(lambda: http_ready(f"http://{listen}/-/ready"), _READY_S), tail(log)
        yield f"http://{listen}"
    finally:
        stop(process, _READY_S)


def _happen(scene: Watched, receiver: str) -> None:
    """Delivered, retried, failed, parked, limited, gone, duplicate, resent, replayed, tested, rotated."""
    _wait(scene, "Prometheus scrapes", lambda: scene.evaluate("count(hooklog_program_up == 1)") != [])
    scene.ask("POST", "/v1/tenants", {"id": TENANT, "name": "Acme"})
    nobody = f"http://127.0.0.1:{free_port()}"
    for name, more in _ENDPOINTS.items():
        url = f"{nobody if name == 'dead' else receiver}/{name}"
        given = {"tenant": TENANT, "url": url, "profile": "standard", "event_types": None, **more}
        scene.endpoints[name] = scene.ask("POST", "/v1/endpoints", given)["id"]
    for batch in range(_BATCHES):
        _publish(scene, batch)
        routed = (batch + 1) * (_MESSAGES + 1)
        # one after the other, so that Prometheus sees the counters grow
        _wait(scene, f"{routed} messages are scraped", partial(_is_scraped, scene, routed))
    broken = f"{_BY_STATUS} 'failed' AND endpoint_id = '{scene.endpoints['broken']}'"
    _wait(scene, "deliveries fail", lambda: scene.counts(broken) >= _MESSAGES)
    _again(scene)
    for what, is_so in _SIGNS.items():
        _wait(scene, what, partial(is_so, scene))


def _is_scraped(scene: Watched, routed: int) -> bool:
    return sum(scene.evaluate("sum(hooklog_messages_routed_total)")) >= routed


_BY_STATUS = "SELECT count() FROM delivery_status WHERE status ="
_SIGNS: Mapping[str, Callable[[Watched], bool]] = {
    "the flaky one has all": lambda scene: (
        scene.counts(f"{_BY_STATUS} 'delivered' AND endpoint_id = '{scene.endpoints['flaky']}'")
        == _MESSAGES * _BATCHES
    ),
    "deliveries wait": lambda scene: scene.counts(f"{_BY_STATUS} 'pending'") > 0,
    "the replay's attempts are known": lambda scene: (
        scene.counts("SELECT count() FROM delivery_attempts WHERE trigger = 'replay'") > 0
    ),
    "hours hold every attempt": lambda scene: all(
        scene.counts(f"SELECT sum(attempts) FROM endpoint_hours WHERE endpoint_id = '{endpoint}'")
        == scene.counts(f"SELECT count() FROM delivery_attempts WHERE endpoint_id = '{endpoint}'")
        for name, endpoint in scene.endpoints.items()
        if name != "dead"  # its circuit probes on
    ),
    "the accounting was checked": lambda scene: (
        scene.evaluate("max(hooklog_accounting_checked_timestamp_seconds) > 0") != []
    ),
    "the rules are applied": lambda scene: scene.evaluate("hooklog:first_attempts_late:ratio_rate3d") != [],
}


def _wait(scene: Watched, what: str, is_so: Callable[[], bool]) -> None:
    logs = {file.name: tail(file, 3) for file in (scene.stack.folder / "logs").glob("*.log")}
    assert wait_until(is_so, _SETTLED_S, 0.2), f"not within {_SETTLED_S:g} s: {what}; {logs}"


def _publish(scene: Watched, batch: int) -> None:
    """A batch, with one message that was there before."""
    numbers = [max(batch - 1, 0) * _MESSAGES, *range(batch * _MESSAGES, (batch + 1) * _MESSAGES)]
    names = [f"m-{number // _MESSAGES}-{number % _MESSAGES}" for number in numbers]
    kinds = ("room.ended", "room.started")
    messages = [
        {"tenant": TENANT, "id": name, "event_type": kinds[len(name) % 2], "payload": {"name": name}}
        for name in names
    ]
    scene.ask("POST", "/v1/messages/batch", {"messages": messages})


def _again(scene: Watched) -> None:
    """A resend, a replay, a test and a rotation."""
    broken, healthy = scene.endpoints["broken"], scene.endpoints["healthy"]
    failed = scene.ask("GET", f"/v1/deliveries?tenant={TENANT}&endpoint={broken}&status=failed")["data"]
    scene.ask("POST", f"/v1/deliveries/{failed[0]['id']}/resend")
    scene.ask(
        "POST",
        "/v1/replays",
        {"tenant": TENANT, "endpoint": healthy, "since": "2020-01-01T00:00:00Z", "only": "all", "rate": 50},
    )
    scene.ask("POST", f"/v1/endpoints/{healthy}/test")
    scene.ask("POST", f"/v1/endpoints/{healthy}/rotate-secret")
