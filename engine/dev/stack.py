"""The whole system in one folder: broker, store, every group and the API, each a supervised process."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.dev.broker import Broker, answers
from engine.dev.keys import kept_secret, new_admin_key, new_master_key
from engine.dev.process import free_port, port_is_free, spawn, stop, tail
from engine.dev.supervisor import Program, Supervisor, ending, http_ready
from engine.runtime.settings import load_settings
from engine.runtime.topics import GROUPS

_HOST = "127.0.0.1"
_SERVER_READY_S = 60.0
_READY_S = 90.0
_COMMAND_S = 90.0
_COMMAND_STOP_S = 5.0
# A group may drain for HOOKLOG_DRAIN_S first.
_STOP_S: Mapping[str, float] = {"api": 15, "after drain": 10, "store": 15, "kafka": 20}
_COMMAND = (sys.executable, "-m", "engine.cli.main")
_SERVERS: Mapping[str, Sequence[str]] = {"store": ("migrate",), "kafka": ("topics", "create")}
"""With the `hooklog` command that prepares each."""
# The demo, the tests and a first try send to receivers on this machine.
_DEFAULTS = {"HOOKLOG_ALLOW_HTTP": "true", "HOOKLOG_EGRESS_ALLOW": "127.0.0.0/8,::1/128"}


class StackError(RuntimeError):
    """The stack cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports on 127.0.0.1; 0 is any free one."""

    api: int = 8080
    kafka: int = 9092
    clickhouse: int = 8123


FREE_PORTS = Ports(0, 0, 0)


def say(line: str) -> None:
    """Progress goes to stderr, so that stdout has the `ready:` line only."""
    print(line, file=sys.stderr, flush=True)


class Stack:
    """Use as a context manager, or start() and stop(). All it keeps is in `folder`.

    `entries` names, for a group, the command that runs it instead of `hooklog run GROUP`.
    """

    def __init__(
        self,
        folder: Path,
        ports: Ports = Ports(),
        overrides: Mapping[str, str] | None = None,
        say: Callable[[str], None] = say,
        entries: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.folder = folder.absolute()
        self._say = say
        self._given = {**os.environ, **(overrides or {})}
        self._drain_s = _drain_s(self._given)
        self._ports = Ports(*(port or free_port() for port in (ports.api, ports.kafka, ports.clickhouse)))
        self._metrics = {group: free_port() for group in GROUPS}
        self._entries = {group: (*_COMMAND, "run", group) for group in GROUPS} | dict(entries or {})
        self._programs: dict[str, Program] = {}
        """All that is to run, what is away for a while included."""
        self.supervisor = Supervisor(self.folder / "logs", say)
        self._held = ExitStack()

    @property
    def api(self) -> str:
        """URL of the API."""
        return f"http://{_HOST}:{self._ports.api}"

    @property
    def kafka(self) -> str:
        """Bootstrap address of the broker: ours, or the one that HOOKLOG_KAFKA names."""
        return self._given.get("HOOKLOG_KAFKA") or f"{_HOST}:{self._ports.kafka}"

    @property
    def clickhouse(self) -> str:
        """URL of ClickHouse: the store's, or the one that HOOKLOG_CLICKHOUSE names."""
        return self._given.get("HOOKLOG_CLICKHOUSE") or f"http://{_HOST}:{self._ports.clickhouse}"

    @property
    def key(self) -> str:
        """The admin key: HOOKLOG_ADMIN_KEY, or one made once and kept in the folder."""
        return self._given.get("HOOKLOG_ADMIN_KEY") or kept_secret(self.folder / "admin.key", new_admin_key)

    @property
    def metrics(self) -> dict[str, str]:
        """URL of /metrics of each process of a group and of the API; the same over its restarts."""
        names = [name for name in self._metrics if name in self._programs or name in GROUPS]
        return {name: f"http://{_HOST}:{self._metrics[name]}/metrics" for name in names} | {
            "api": f"{self.api}/metrics"
        }

    @property
    def env(self) -> dict[str, str]:
        """Environment of a `hooklog` command that is to work on this stack."""
        given = {**_DEFAULTS, **self._given}
        if "HOOKLOG_MASTER_KEY" not in given:
            file = self.folder / "master.key"
            kept_secret(file, new_master_key)
            given.setdefault("HOOKLOG_MASTER_KEY_FILE", str(file))
        return given | {
            "HOOKLOG_KAFKA": self.kafka,
            "HOOKLOG_CLICKHOUSE": self.clickhouse,
            "HOOKLOG_ADMIN_KEY": self.key,
            "HOOKLOG_API_PORT": str(self._ports.api),
        }

    def ready_line(self) -> str:
        """What `hooklog dev` prints when everything is up."""
        return f"ready: api={self.api} kafka={self.kafka} clickhouse={self.clickhouse} key={self.key}"

    def start(self) -> None:
        """Start everything and wait until it is ready; whatever goes wrong, nothing is left running."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        started = time.monotonic()
        self._held.enter_context(_alone(self.folder))
        self._check_ports()
        self._start_servers()
        self._prepare_servers()
        self._say(f"starting {', '.join((*GROUPS, 'api'))}")
        self._start_groups()
        self._say(f"up in {time.monotonic() - started:.1f} s; logs are in {self.folder / 'logs'}")

    def stop(self) -> None:
        """Nothing new comes in first, then the groups drain, then what they depend on stops."""
        if self.supervisor.pids():
            self._say("stopping")
        self.supervisor.stop(["api"], _STOP_S["api"])
        self.supervisor.stop(list(self._metrics), self._drain_s + _STOP_S["after drain"])
        for server in _SERVERS:
            self.supervisor.stop([server], _STOP_S[server])
        self._programs.clear()
        self._held.close()

    def scale(self, group: str, count: int) -> None:
        """Run so many processes of a group: GROUP, GROUP.1, GROUP.2…; waits for those that stop only."""
        names = [process_name(group, number) for number in range(count)]
        surplus = [name for name in list(self._programs) if group_of(name) == group and name not in names]
        for number, name in enumerate(names):
            if name not in self._programs:
                self._run(self._member(group, number))
        self.supervisor.stop(surplus, self._drain_s + _STOP_S["after drain"])
        for name in surplus:
            del self._programs[name]

    def pids(self) -> dict[str, int]:
        """Process ids by name: `kafka`, `store`, `api`, and each process of a group."""
        return self.supervisor.pids()

    def kill(self, name: str) -> int:
        """SIGKILL one of them, which is then started again; the process id it had."""
        return self.supervisor.signal(name, signal.SIGKILL)

    def freeze(self, name: str) -> int:
        """SIGSTOP: alive, and doing nothing until `thaw`; the process id."""
        return self.supervisor.signal(name, signal.SIGSTOP)

    def thaw(self, name: str) -> int:
        """SIGCONT."""
        return self.supervisor.signal(name, signal.SIGCONT)

    def take_away(self, name: str, *, kill: bool = False) -> None:
        """Stop one of them, `kafka` and `store` too, until `bring_back`: in order, or by SIGKILL."""
        if kill:
            self.supervisor.kill_for_good(name)
        else:
            self.supervisor.stop([name], _STOP_S.get(name, self._drain_s + _STOP_S["after drain"]))

    def bring_back(self, name: str) -> None:
        """Start again what was taken away, on its port and folder; does not wait."""
        self.supervisor.start(self._programs[name])

    def is_ready(self, name: str) -> bool:
        """It runs, and says itself that it can work."""
        return self.supervisor.is_ready(name)

    def wait_ready(self, limit_s: float = _READY_S) -> None:
        """Return when all that is not away is ready (again); SupervisorError after `limit_s` seconds."""
        self.supervisor.wait_ready(self.supervisor.names(), limit_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _check_ports(self) -> None:
        wanted = {"--port": self._ports.api}
        if "HOOKLOG_KAFKA" not in self._given:
            wanted["--kafka-port"] = self._ports.kafka
        if "HOOKLOG_CLICKHOUSE" not in self._given:
            wanted["--clickhouse-port"] = self._ports.clickhouse
        for option, port in wanted.items():
            if not port_is_free(port):
                raise StackError(f"port {port} is in use: stop what uses it, or choose another with {option}")

    def _start_servers(self) -> None:
        """The store starts while the broker's folder is made; waits for neither."""
        if "HOOKLOG_CLICKHOUSE" not in self._given:
            self._say(f"starting the store at {self.clickhouse}")
            self._run(self._store())
        if "HOOKLOG_KAFKA" not in self._given:
            self._say(f"starting Kafka at {self.kafka}")
            broker = Broker(self.folder / "kafka", self._ports.kafka)
            self._run(Program("kafka", broker.prepare(), partial(answers, broker.port)))

    def _store(self) -> Program:
        folder, port = str(self.folder / "store"), str(self._ports.clickhouse)
        argv = [sys.executable, "-m", "engine.dev.store", "--dir", folder, "--port", port]
        return Program("store", argv, partial(http_ready, f"{self.clickhouse}/ping"))

    def _prepare_servers(self) -> None:
        """Each as soon as it is there: tables are made while Kafka starts. StackError if that fails."""
        with ExitStack() as left:
            running = []
            for server, command in _SERVERS.items():
                if server in self._programs:
                    self.supervisor.wait_ready([server], _SERVER_READY_S)
                self._say(f"running hooklog {' '.join(command)}")
                running.append(self._run_command(command))
                left.callback(stop, running[-1][-1], _COMMAND_STOP_S)
            end = time.monotonic() + _COMMAND_S
            for command, log, process in running:
                if status := _wait(process, end):
                    raise StackError(f"`hooklog {' '.join(command)}`: {ending(status)}\n{tail(log)}")

    def _run_command(self, command: Sequence[str]) -> tuple[Sequence[str], Path, subprocess.Popen[bytes]]:
        log = self.supervisor.log("-".join(command))
        log.unlink(missing_ok=True)
        return command, log, spawn([*_COMMAND, *command], log, self.env)

    def _start_groups(self) -> None:
        for group in GROUPS:
            self._run(self._member(group, 0))
        ready = partial(http_ready, f"{self.api}/readyz")
        asked = ",".join(f"{group}={self.metrics[group]}" for group in GROUPS)
        self._run(Program("api", [*_COMMAND, "run", "api"], ready, self.env | {"HOOKLOG_METRICS_OF": asked}))
        self.wait_ready()

    def _run(self, program: Program) -> None:
        self._programs[program.name] = program
        self.supervisor.start(program)

    def _member(self, group: str, number: int) -> Program:
        """One process of a group; the first has the instance that was set, if one was."""
        name = process_name(group, number)
        port = self._metrics[name] = self._metrics.get(name) or free_port()
        own = {"HOOKLOG_METRICS_PORT": str(port)} | ({"HOOKLOG_INSTANCE": str(number)} if number else {})
        ready = partial(http_ready, f"http://{_HOST}:{port}/readyz")
        return Program(name, self._entries[group], ready, self.env | own)


def process_name(group: str, number: int) -> str:
    """`dispatcher`, `dispatcher.1`…"""
    return f"{group}.{number}" if number else group


def group_of(name: str) -> str:
    """The group of a process."""
    return name.partition(".")[0]


def _drain_s(given: Mapping[str, str]) -> float:
    """How long the groups may drain, as they will read it; SettingsError."""
    overrides = {"drain_s": given["HOOKLOG_DRAIN_S"]} if "HOOKLOG_DRAIN_S" in given else {}
    return load_settings(**overrides).drain_s


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Held by the one stack of a folder; the system lets go of it when the process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(f"another hooklog dev uses {folder}: stop it, or choose another --dir") from None
        yield


def _wait(process: subprocess.Popen[bytes], end: float) -> int:
    """The exit status; SIGTERM at `end` (monotonic seconds)."""
    try:
        return process.wait(max(end - time.monotonic(), 0))
    except subprocess.TimeoutExpired:
        return stop(process, _COMMAND_STOP_S) or 1


def dashboard_line(api: str) -> str:
    """Where to look, and how to get in."""
    return f"dashboard: {api}/dashboard (log in with the key of the line above)"


def run_until_stopped(stack: Stack) -> None:
    """Start, print the `ready:` line, and stop in order at SIGINT or SIGTERM, during the start too."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        with stack:
            print(stack.ready_line(), flush=True)
            say(dashboard_line(stack.api))
            threading.Event().wait()
    except _StoppedError:
        pass


class _StoppedError(BaseException):
    """Told to stop."""


def _interrupt(number: int, frame: object) -> None:
    """Once: stopping in order is not interrupted by a second Ctrl-C."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise _StoppedError
