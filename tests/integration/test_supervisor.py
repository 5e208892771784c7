"""The supervisor: what ends is started again, what is stopped stays stopped, nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from engine.dev.keys import kept_secret, new_admin_key, new_master_key
from engine.dev.process import free_port, port_is_free, wait_until
from engine.dev.stack import FREE_PORTS, Ports, Stack, StackError
from engine.dev.supervisor import Program, Supervisor, SupervisorError, http_ready, pause_before_restart

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
    def log_message(self, *_): pass
print("serving", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
DEAF = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "w").close()
while True: time.sleep(60)
"""
RESTART_S = 60.0


def server(name: str) -> Program:
    """A program that serves /readyz."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/readyz"
    return Program(name, [sys.executable, "-c", SERVER, str(port)], partial(http_ready, url))


@pytest.fixture
def lines() -> list[str]:
    """What the supervisor says."""
    return []


@pytest.fixture
def supervisor(tmp_path: Path, lines: list[str]) -> Iterator[Supervisor]:
    """A supervisor that stops all it started."""
    supervisor = Supervisor(tmp_path / "logs", lines.append)
    yield supervisor
    supervisor.stop(list(supervisor.pids()), 0)


def test_killed_program_is_started_again(supervisor: Supervisor, lines: list[str]) -> None:
    """A program that is killed runs again under its name, with another pid, and this is said."""
    supervisor.start(server("one"))
    supervisor.start(server("two"))
    supervisor.wait_ready(["one", "two"], RESTART_S)
    before = supervisor.pids()
    assert supervisor.signal("one", signal.SIGKILL) == before["one"]
    assert wait_until(lambda: supervisor.pids().get("one") not in (None, before["one"]), RESTART_S)
    supervisor.wait_ready(["one", "two"], RESTART_S)
    assert supervisor.pids()["two"] == before["two"]
    assert [line.split(";")[0] for line in lines] == ["one ended (killed by SIGKILL), starting it again now"]
    assert supervisor.log("one").read_text() == "serving\nserving\n"


def test_stopped_program_stays_stopped(supervisor: Supervisor, lines: list[str]) -> None:
    """What is stopped ends at once and is not started again; others go on."""
    supervisor.start(server("one"))
    supervisor.start(server("two"))
    supervisor.wait_ready(["one", "two"], RESTART_S)
    supervisor.stop(["one", "never started"], 10)
    assert list(supervisor.pids()) == ["two"]
    assert lines == []


def test_program_killed_for_good_stays_away(supervisor: Supervisor, lines: list[str]) -> None:
    """SIGKILL ends it, nobody starts it again, and it can be started anew."""
    one = server("one")
    supervisor.start(one)
    supervisor.wait_ready(["one"], RESTART_S)
    supervisor.kill_for_good("one")
    assert (supervisor.names(), supervisor.pids(), lines) == ([], {}, [])
    supervisor.start(one)
    supervisor.wait_ready(["one"], RESTART_S)
    assert supervisor.log("one").read_text() == "serving\nserving\n"


def test_deaf_program_is_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    """A program that ignores SIGTERM is killed after the limit."""
    armed = tmp_path / "armed"
    supervisor.start(Program("deaf", [sys.executable, "-c", DEAF, str(armed)], armed.exists))
    supervisor.wait_ready(["deaf"], RESTART_S)
    pid = supervisor.pids()["deaf"]
    supervisor.stop(["deaf"], 0.3)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_failing_program_is_shown(supervisor: Supervisor, lines: list[str]) -> None:
    """A program that cannot start is tried again with growing pauses; the error shows its last words."""
    argv = [sys.executable, "-c", "import sys; sys.exit('no such planet')"]
    supervisor.start(Program("bad", argv, lambda: False))
    assert wait_until(lambda: len(lines) >= 3, RESTART_S)
    with pytest.raises(SupervisorError, match=r"(?s)not ready.*bad.*no such planet"):
        supervisor.wait_ready(["bad"], 0)
    supervisor.stop(["bad"], 1)
    said = [line.split(", starting it again ")[1].split(";")[0] for line in lines[:3]]
    assert said == ["now", "in 0.25 s", "in 0.5 s"]


def test_pauses() -> None:
    """At once, then ever longer, at most 5 s."""
    assert [pause_before_restart(n) for n in (0, 1, 2, 3, 4, 5, 6, 7, 1000)] == [
        0,
        0,
        0.25,
        0.5,
        1,
        2,
        4,
        5,
        5,
    ]


def test_programs_die_with_the_supervisor(tmp_path: Path) -> None:
    """When the supervisor's process is killed, so is what it runs."""
    port = free_port()
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from engine.dev.supervisor import Program, Supervisor, http_ready\n"
        "port, server, logs = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])\n"
        "supervisor = Supervisor(logs, print)\n"
        "url = f'http://127.0.0.1:{port}/readyz'\n"
        "program = Program('one', [sys.executable, '-c', server, str(port)], lambda: http_ready(url))\n"
        "supervisor.start(program)\n"
        "supervisor.wait_ready(['one'], 60)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    argv = [sys.executable, "-c", script, str(port), SERVER, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        assert not port_is_free(port)
        parent.send_signal(signal.SIGKILL)
    assert wait_until(lambda: port_is_free(port), RESTART_S)


@pytest.mark.parametrize("new", [new_master_key, new_admin_key])
def test_secrets_are_kept(tmp_path: Path, new: Callable[[], str]) -> None:
    """A secret is made once, differs from folder to folder, and only its owner can read it."""
    file = tmp_path / "new" / "key"
    first = kept_secret(file, new)
    assert kept_secret(file, new) == first != kept_secret(tmp_path / "other.key", new)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def quiet(folder: Path, ports: Ports = FREE_PORTS, **overrides: str) -> Stack:
    """A stack that says nothing."""
    return Stack(folder, ports, overrides, lambda _: None)


def test_environment_of_commands(tmp_path: Path) -> None:
    """Commands are told where everything is; what the caller sets wins over the stack's defaults."""
    stack = quiet(tmp_path, Ports(1, 2, 3), HOOKLOG_TIERS="1s,2s", HOOKLOG_ALLOW_HTTP="false")
    env = stack.env
    assert env["HOOKLOG_KAFKA"] == "127.0.0.1:2"
    assert env["HOOKLOG_CLICKHOUSE"] == "http://127.0.0.1:3"
    assert (env["HOOKLOG_TIERS"], env["HOOKLOG_ALLOW_HTTP"], env["HOOKLOG_API_PORT"]) == (
        "1s,2s",
        "false",
        "1",
    )
    assert env["HOOKLOG_ADMIN_KEY"] == stack.key == quiet(tmp_path).key
    assert Path(env["HOOKLOG_MASTER_KEY_FILE"]).parent == tmp_path
    assert stack.ready_line() == (
        f"ready: api=http://127.0.0.1:1 kafka=127.0.0.1:2 clickhouse=http://127.0.0.1:3 key={stack.key}"
    )


def test_own_servers(tmp_path: Path) -> None:
    """A broker and a ClickHouse that are named are used instead of the embedded ones."""
    stack = quiet(
        tmp_path, HOOKLOG_KAFKA="k:9092", HOOKLOG_CLICKHOUSE="http://c:8123", HOOKLOG_MASTER_KEY="x"
    )
    assert (stack.kafka, stack.clickhouse) == ("k:9092", "http://c:8123")
    assert "HOOKLOG_MASTER_KEY_FILE" not in stack.env


@pytest.mark.parametrize(
    ("position", "option"), [(0, "--port"), (1, "--kafka-port"), (2, "--clickhouse-port")]
)
def test_port_in_use(tmp_path: Path, position: int, option: str) -> None:
    """A port that somebody has is named, with the option that chooses another, before anything starts."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = [0, 0, 0]
        ports[position] = taken.getsockname()[1]
        stack = quiet(tmp_path, Ports(*ports))
        with pytest.raises(StackError, match=f"port {ports[position]} is in use.* {option}$"):
            stack.start()
    assert stack.pids() == {}


def test_one_stack_a_folder(tmp_path: Path) -> None:
    """A second stack on a folder says that another uses it."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from engine.dev.stack import _alone\n"
        "with _alone(Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StackError, match=f"another hooklog dev uses {tmp_path}"):
            quiet(tmp_path).start()
        other.kill()
