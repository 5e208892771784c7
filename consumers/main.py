"""The composition root: runs groups in this process until it is told to stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from importlib import import_module
from threading import Event
from types import FrameType
from typing import cast

from engine.ports import LogError
from engine.runtime import telemetry
from engine.runtime.context import Run, open_context
from engine.runtime.probes import serve_probes
from engine.runtime.settings import Settings, SettingsError
from engine.runtime.topics import GROUPS

_LOG = telemetry.logger("main")


def group_run(group: str) -> Run:
    """Return the main loop of a group; SettingsError if there is none of that name."""
    if group not in GROUPS:
        raise SettingsError(f"there is no group {group!r}: choose among {', '.join(GROUPS)}")
    return cast(Run, import_module(f"consumers.{group}").run)


def run(groups: Sequence[str], settings: Settings) -> int:
    """Run the groups, each on a thread, until SIGINT or SIGTERM; return the exit status."""
    telemetry.configure(settings.log_level)
    loops = {group: group_run(group) for group in groups}
    stop = Event()
    ready = {group: Event() for group in groups}
    _on_signal(lambda *_: sys.exit(0))  # nothing is held yet: waiting for the broker can just end
    probes = serve_probes(
        settings.metrics_host, settings.metrics_port, lambda: all(e.is_set() for e in ready.values())
    )
    context = open_context(settings)
    _on_signal(lambda *_: stop.set())
    with ThreadPoolExecutor(len(loops)) as pool:
        running = {g: pool.submit(loop, context, stop, ready[g].set) for g, loop in loops.items()}
        for each in running.values():
            each.add_done_callback(lambda _: stop.set())
        while wait(running.values(), timeout=0.5).not_done:
            pass  # signals are handled between the waits
    probes.shutdown()
    probes.server_close()
    broken = [group for group, each in running.items() if _broke(group, each)]
    return 1 if broken else 0


def _on_signal(handle: Callable[[int, FrameType | None], None]) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, handle)


def _broke(group: str, ended: Future[None]) -> bool:
    """Say why a group ended; one that breaks commits nothing and is started afresh by its supervisor."""
    error = ended.exception()
    if error is None:
        _LOG.info("group.stopped", group=group)
    elif isinstance(error, LogError):
        _LOG.error("group.halted", group=group, reason=str(error))
    else:
        _LOG.error("group.broke", group=group, exc_info=error)
    return error is not None
