"""The composition root: runs groups in this process until it is told to stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from importlib import import_module
from threading import Event
from types import FrameType
from typing import cast

from engine.ports import LogError
from engine.runtime import telemetry
from engine.runtime.context import Context, Run, open_context
from engine.runtime.exported import export
from engine.runtime.kafka import KafkaLog
from engine.runtime.probes import serve_probes
from engine.runtime.settings import Settings, SettingsError
from engine.runtime.topics import GROUPS
from engine.runtime.vitals import State

_NO_BROKER = "no broker answers: see HOOKLOG_KAFKA, and the broker's own log"
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
    process = _Process(loops)
    _on_signal(lambda *_: sys.exit(0))  # nothing is held yet: waiting for the broker can just end
    probes = serve_probes(settings.metrics_host, settings.metrics_port, process.look)
    context = open_context(settings)
    _on_signal(lambda *_: process.stop.set())
    with ThreadPoolExecutor(len(loops)) as pool:
        running = process.start(pool, context)
        while wait(running.values(), timeout=0.5).not_done:
            pass  # signals are handled between the waits
    probes.shutdown()
    probes.server_close()
    broken = [group for group, each in running.items() if _broke(group, each)]
    return 1 if broken else 0


class _Process:
    """The groups of this process, and what its probes say of them."""

    def __init__(self, loops: Mapping[str, Run]) -> None:
        self.stop = Event()
        self._loops = loops
        self._name = "+".join(loops)
        self._ready = {group: Event() for group in loops}
        self._running: dict[str, Future[None]] = {}
        self._log: KafkaLog | None = None

    def start(self, pool: ThreadPoolExecutor, context: Context) -> Mapping[str, Future[None]]:
        """Start a thread a group; when one ends, all are told to stop."""
        assert isinstance(context.log, KafkaLog)
        self._log = context.log
        for group, loop in self._loops.items():
            running = pool.submit(loop, context, self.stop, self._ready[group].set)
            running.add_done_callback(lambda _: self.stop.set())
            self._running[group] = running
        return self._running

    def look(self) -> State:
        """How it goes, by what is most at fault; sets the gauges."""
        if self._log is None:
            export((), False, self._name)
            return State(f"not started: {_NO_BROKER}")
        answers = self._log.answers()
        export(self._log.signs, answers, self._name)
        noted = self._log.state()
        trouble = self._ended() or self._starting() or ("" if answers else _NO_BROKER) or noted.trouble
        return State(trouble, noted.stuck)

    def _ended(self) -> str:
        """What a group ended with while others still drain."""
        for group, running in self._running.items():
            if running.done() and not running.cancelled():
                error = running.exception()
                return f"{group} has stopped" if error is None else f"{group} has halted: {error}"
        return ""

    def _starting(self) -> str:
        waited = [group for group, event in self._ready.items() if not event.is_set()]
        return f"not ready yet: {', '.join(waited)}" if waited else ""


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
