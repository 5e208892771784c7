"""/metrics, /healthz and /readyz, over real HTTP."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from engine.runtime import telemetry
from engine.runtime.probes import answer, serve_probes
from engine.runtime.vitals import State

STATES: list[State] = [State()]
"""How the group does, last word."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Port of a running server."""
    server = serve_probes("127.0.0.1", 0, lambda: STATES[-1])
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def get(port: int, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    """Status, content type and body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers["Content-Type"], response.read()
    finally:
        connection.close()


def test_readiness_is_asked_for_each_time(port: int) -> None:
    """503 with the reason while the group cannot work, and 200 as soon as it can."""
    STATES.append(State("no broker answers"))
    assert get(port, "/readyz")[::2] == (503, b"no broker answers\n")
    STATES.append(State())
    assert get(port, "/readyz")[::2] == (200, b"ready\n")


def test_alive_is_not_ready(port: int) -> None:
    """A process that waits for its broker must not be restarted; one that is stuck must."""
    STATES.append(State("no broker answers"))
    assert get(port, "/healthz")[::2] == (200, b"alive\n")
    STATES.append(State("router: has not polled", "router has not polled"))
    assert get(port, "/healthz")[::2] == (503, b"router has not polled\n")


def test_metrics_are_prometheuss(port: int) -> None:
    """The text format, with hooklog's own metrics as they are now."""
    telemetry.MESSAGES_ROUTED.labels("routed").inc(0)
    status, kind, body = get(port, "/metrics")
    assert status == 200
    assert kind.startswith("text/plain")
    assert b"# HELP hooklog_" in body


@pytest.mark.parametrize("path", ["/", "/metrics/", "/readyz/x", "//healthz", "/../metrics"])
def test_there_is_nothing_else(path: str) -> None:
    """404 with what there is."""
    status, _, body = answer(path, State)
    assert status == 404
    assert b"/metrics, /healthz and /readyz" in body


def test_a_query_changes_nothing(port: int) -> None:
    """Probes of some platforms add one."""
    STATES.append(State())
    assert get(port, "/healthz?probe=1")[0] == 200


def test_probes_only_read(port: int) -> None:
    """Other methods are refused."""
    assert get(port, "/healthz", "POST")[0] == 501


@pytest.mark.parametrize("said", [b"", b"GET /met"])
def test_who_says_nothing_is_hung_up_on(said: bytes) -> None:
    """Else it would keep a thread for ever."""
    server = serve_probes("127.0.0.1", 0, State, patience_s=0.2)
    try:
        with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=60) as connection:
            connection.sendall(said)
            assert connection.recv(1) == b""
    finally:
        server.shutdown()
        server.server_close()
