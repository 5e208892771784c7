"""Runs named programs: restarts what ends, waits until all are ready, stops them, leaves none behind."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from urllib.parse import urlsplit

from engine.dev.process import spawn, stop, tail, wait_until

_QUICK_S = 10.0  # one that lasted longer than this is no longer failing at its start
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 5.0
_POLL_S = 0.05


class SupervisorError(RuntimeError):
    """A program does not become ready; the message names it and shows the end of its log."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run under a name. `ready` is asked until it says yes."""

    name: str
    argv: Sequence[str]
    ready: Callable[[], bool]
    env: Mapping[str, str] | None = None


def http_ready(url: str) -> bool:
    """True if GET answers 200 within a second."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=1)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def pause_before_restart(quick_ends: int) -> float:
    """Seconds, by how often in a row it ended soon after its start: at once, then ever longer."""
    if quick_ends <= 1:
        return 0.0
    return float(min(_FIRST_PAUSE_S * 2 ** min(quick_ends - 2, 10), _LONGEST_PAUSE_S))


def ending(status: int) -> str:
    """How a process ended, in words."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


class _Watch:
    """One program, started again by a thread of its own whenever it ends."""

    def __init__(self, program: Program, log: Path, say: Callable[[str], None]) -> None:
        self.program, self.log, self._say = program, log, say
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = Event()
        self._killed = Event()
        """By us: that it ends soon after its start is then not its own doing."""
        self._thread = Thread(target=self._run, name=f"watch {program.name}", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def ready(self) -> bool:
        """It runs, and says so itself."""
        return self.pid is not None and self.program.ready()

    def stop(self, limit_s: float) -> None:
        """SIGTERM, SIGKILL after the limit; it is not started again."""
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is not None:
            stop(process, limit_s)
        self._thread.join()

    def send(self, number: signal.Signals) -> int:
        """Send it a signal; its process id. KeyError while it does not run."""
        pid = self.pid
        if pid is None:
            raise KeyError(self.program.name)
        if number == signal.SIGKILL:
            self._killed.set()
        os.kill(pid, number)
        return pid

    def kill(self) -> None:
        """SIGKILL; it is not started again."""
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is not None:
            process.kill()
        self._thread.join()

    def _run(self) -> None:
        quick_ends = 0
        while (process := self._start()) is not None:
            started = time.monotonic()
            status = process.wait()
            if self._stopping.is_set():
                return
            is_failing = time.monotonic() - started < _QUICK_S and not self._killed.is_set()
            quick_ends = quick_ends + 1 if is_failing else 1
            pause = pause_before_restart(quick_ends)
            again = f"in {pause:g} s" if pause else "now"
            self._say(
                f"{self.program.name} ended ({ending(status)}), starting it again {again}; see {self.log}"
            )
            self._stopping.wait(pause)

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._stopping.is_set():
                return None
            self._killed.clear()
            self._process = spawn(self.program.argv, self.log, self.program.env)
            return self._process


class Supervisor:
    """All programs of one stack. Their output goes to `logs`/NAME.log; `say` gets a line a restart."""

    def __init__(self, logs: Path, say: Callable[[str], None]) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._logs, self._say = logs, say
        self._watches: dict[str, _Watch] = {}

    def start(self, program: Program) -> None:
        """Start it; does not wait until it is ready."""
        self._watches[program.name] = _Watch(program, self.log(program.name), self._say)

    def log(self, name: str) -> Path:
        """Log file of a program."""
        return self._logs / f"{name}.log"

    def wait_ready(self, names: Sequence[str], limit_s: float) -> None:
        """Return when all are ready; SupervisorError after `limit_s` seconds."""
        left = [self._watches[name] for name in names]

        def settled() -> bool:
            left[:] = [watch for watch in left if not watch.ready()]
            return not left

        if not wait_until(settled, limit_s, _POLL_S):
            shown = "\n".join(f"--- {watch.log}\n{tail(watch.log)}" for watch in left)
            names = [watch.program.name for watch in left]
            raise SupervisorError(f"not ready after {limit_s:g} s: {', '.join(names)}\n{shown}")

    def names(self) -> list[str]:
        """All that were started and not stopped."""
        return list(self._watches)

    def is_ready(self, name: str) -> bool:
        """It was started, runs, and says so itself."""
        return name in self._watches and self._watches[name].ready()

    def pids(self) -> dict[str, int]:
        """Process ids by name, of those that run now."""
        found = [(name, watch.pid) for name, watch in list(self._watches.items())]
        return {name: pid for name, pid in found if pid is not None}

    def signal(self, name: str, number: signal.Signals) -> int:
        """Send it a signal; one killed is started again at once. Its process id; KeyError if it has none."""
        return self._watches[name].send(number)

    def kill_for_good(self, name: str) -> None:
        """SIGKILL, as a crash would, and it is not started again; KeyError if it was never started."""
        self._watches.pop(name).kill()

    def stop(self, names: Sequence[str], limit_s: float) -> None:
        """Stop these at the same time, SIGKILL after `limit_s` seconds; ignores those never started."""
        watches = [self._watches.pop(name) for name in names if name in self._watches]
        with ThreadPoolExecutor(max(len(watches), 1)) as pool:
            list(pool.map(lambda watch: watch.stop(limit_s), watches))
