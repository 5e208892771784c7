"""Child processes that never outlive us, and ports for them."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Linux sends the signal when the *thread* that forked ends, so one thread, which lasts as long as we do,
# forks them all. The launcher arms it, looks whether we are still there, and becomes the program.
_FORKER = ThreadPoolExecutor(1, "forker")
_LAUNCHER = (
    "import ctypes,os,sys\n"
    "ctypes.CDLL(None).prctl(1, 9)\n"
    "if os.getppid() == int(sys.argv[1]): os.execvp(sys.argv[2], sys.argv[2:])\n"
)
_HOST = "127.0.0.1"
# Below the range that outgoing connections take their ports from: a client that keeps trying the port of
# a broker that is down would otherwise sooner or later connect to itself, and take the port.
_LOWEST_PORT, _PORTS = 20_000, 12_000
_given: set[int] = set()  # ports are asked for before they are used: never give one twice


def spawn(
    argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None, held: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, its output appended to `log`; on Linux it dies with us.

    The open files `held` are its own too: a lock on one of them lasts as long as the program.
    """
    linux = sys.platform == "linux"
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid())] if linux else []
    return _FORKER.submit(_fork, [*launcher, *argv], log, env, held).result()


def _fork(
    argv: Sequence[str], log: Path, env: Mapping[str, str] | None, held: Sequence[int]
) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            pass_fds=held,
            start_new_session=True,  # Ctrl-C in a terminal reaches only us: we stop them in order
        )


def stop(process: subprocess.Popen[bytes], limit_s: float) -> int:
    """SIGTERM, SIGKILL after `limit_s` seconds; the exit status."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def free_port() -> int:
    """A port on 127.0.0.1 that nobody listens at now."""
    while True:
        port = _LOWEST_PORT + secrets.randbelow(_PORTS)
        if port not in _given and port_is_free(port):
            _given.add(port)
            return port


def port_is_free(port: int) -> bool:
    """True if a server could listen at 127.0.0.1:port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def wait_until(ready: Callable[[], bool], limit_s: float, pause_s: float = 0.02) -> bool:
    """False if it was not ready within `limit_s` seconds."""
    end = time.monotonic() + limit_s
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(pause_s)
    return True


def tail(log: Path, lines: int = 20) -> str:
    """The end of a log file, to be shown when its process failed."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
