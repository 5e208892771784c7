"""A store of its own for a benchmark: the embedded engine as a process, and what it costs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from clickhouse_connect.driver.client import Client

from engine.dev.process import free_port, port_is_free, spawn, stop, tail, wait_until
from engine.runtime.history.clickhouse import History, connect
from engine.runtime.history.migration import migrate
from engine.runtime.settings import Settings, load_settings

_PATIENCE_S = 600.0
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Storage:
    """A store with hooklog's empty tables, and how to reach it."""

    pid: int
    settings: Settings
    client: Client
    history: History

    def forget_peak(self) -> None:
        """Measure the peak of memory from here on."""
        with suppress(OSError):  # then it stays the peak since the start
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak_mb(self) -> float:
        """Most memory that was resident since then, MB."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1_024 for line in lines if line.startswith("VmHWM"))

    def cpu_s(self) -> float:
        """CPU since its start, seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S


@contextmanager
def storage() -> Iterator[Storage]:
    """A store in a folder that is gone afterwards."""
    with TemporaryDirectory(prefix="hooklog-bench-") as folder:
        port, log = free_port(), Path(folder) / "store.log"
        argv = [sys.executable, "-m", "engine.dev.store", "--dir", folder, "--port", str(port)]
        process = spawn(argv, log)
        try:
            if not wait_until(lambda: not port_is_free(port), 60):
                raise SystemExit(f"the store does not start: {tail(log)}")
            settings = load_settings(clickhouse=f"http://127.0.0.1:{port}")
            client = connect(settings, _PATIENCE_S)
            migrate(client, settings)
            yield Storage(process.pid, settings, client, History(lambda: client))
            client.close()
        finally:
            stop(process, 30)
