"""The demo, end to end, with a smaller slice of its input."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from engine.dev.process import wait_until

_ONE_IN = 4
_LIMIT_S = 400
_BOOKS_S = 60
_LAST_LINE = re.compile(r"accounted: (\d+) deliveries = (\d+) delivered \+ .*, 0 unaccounted")


class Demo:
    """A demo that runs as a process of its own, and what it has printed so far."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "engine.dev.demo.run", "--folder", str(folder)]
        self.process = subprocess.Popen(
            [*command, "--one-in", str(_ONE_IN)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line.rstrip("\n"))

    def wait(self) -> int:
        """The exit status, when everything printed has been read."""
        status = self.process.wait(_LIMIT_S)
        self._reader.join()
        return status

    @property
    def books(self) -> str:
        """Where the receivers show their books; empty until they are up."""
        found = [line for line in self.lines if line.startswith("receivers: ")]
        return found[0].removeprefix("receivers: ") if found else ""

    def requests(self) -> int:
        """How many requests the receivers have had; 0 until they are up."""
        if not self.books:
            return 0
        return sum(len(book) for book in httpx.get(self.books, timeout=_BOOKS_S).json().values())

    def group(self, name: str) -> int:
        """Process id of a consumer group below this demo."""
        found = [pid for pid in _below(self.process.pid) if f"\0run\0{name}\0" in _command_line(pid)]
        assert len(found) == 1, "\n".join(self.lines)
        return found[0]


def _command_line(pid: int) -> str:
    return _read(Path(f"/proc/{pid}/cmdline"))


def _read(file: Path) -> str:
    """What a file of /proc says; nothing if its process has ended meanwhile."""
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _below(parent: int) -> list[int]:
    children = Path(f"/proc/{parent}/task").glob("*/children")
    direct = [int(pid) for file in children for pid in _read(file).split()]
    return [*direct, *(pid for child in direct for pid in _below(child))]


@contextmanager
def demo(folder: Path) -> Iterator[Demo]:
    """Start a demo; whatever happens it does not outlive the block."""
    running = Demo(folder)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGINT)
        running.wait()
        if running.process.stdout:
            running.process.stdout.close()


def assert_all_accounted(running: Demo) -> None:
    """Exit status 0, and the closing line says that every delivery is in a state."""
    status = running.wait()
    printed = "\n".join(running.lines)
    last = [line for line in running.lines if line.startswith("accounted: ")]
    assert status == 0, printed
    assert len(last) == 1, printed
    found = _LAST_LINE.fullmatch(last[0])
    assert found, printed
    assert int(found[2]) > 0, printed


@pytest.mark.e2e
def test_every_receiver_sees_all_it_should_and_nothing_else(tmp_path: Path) -> None:
    """On real input, with receivers that refuse, are slow, are gone or fail first."""
    with demo(tmp_path / "demo") as running:
        assert_all_accounted(running)


@pytest.mark.e2e
def test_killed_groups_lose_nothing(tmp_path: Path) -> None:
    """SIGKILL of two in the middle of it: the supervisor restarts them and the books still balance."""
    with demo(tmp_path / "demo") as running:
        assert wait_until(lambda: running.requests() > 50 or running.process.poll() is not None, _LIMIT_S)
        killed = {group: running.group(group) for group in ("control", "dispatcher")}
        for pid in killed.values():
            os.kill(pid, signal.SIGKILL)
        assert_all_accounted(running)
        for group in killed:
            assert any(line.startswith(f"{group} ended (killed by SIGKILL)") for line in running.lines)
