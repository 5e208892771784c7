"""Carries a plan out on a running stack, and writes down what was done when."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random

from engine.dev.chaos.books import Trouble
from engine.dev.chaos.cast import Mode
from engine.dev.chaos.plan import Step
from engine.dev.process import wait_until
from engine.dev.stack import Stack, group_of

_RUNS_S = 60.0
_READY_S = 10.0
_LOAD_S = 20.0
_SERVER_S = 90.0
_LATE_S = 60.0
_AFTER_OUTAGE_NS = 15_000_000_000
"""Groups that ended with the broker, or lost their place, are back at work after so long."""
_MODES: dict[str, Mode] = {"": "", "down": "down", "gone": "gone"}


class TroubleError(RuntimeError):
    """The plan cannot be carried out: what was killed does not come back."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One SIGKILL, Unix nanoseconds; `requests` is what the receivers had had just before."""

    name: str
    at: int
    requests: int
    was_ready: bool


@dataclass(slots=True)
class Outage:
    """Something that was away or frozen; `end` is 0 while it is."""

    name: str
    begin: int
    end: int = 0
    pid: int = 0


@dataclass(slots=True)
class Troublemaker:
    """Does one step after another; `kills` and `outages` are what was done."""

    stack: Stack
    set_mode: Callable[[str, Mode], None]
    create: Callable[[str], None]
    requests: Callable[[], int]
    say: Callable[[str], None]
    rng: Random
    kills: list[Kill] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    scaling: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "scaling"))
    """Scaling in takes as long as requests do: it happens beside the other steps."""
    scalings: list[Future[None]] = field(default_factory=list)

    def carry_out(self, plan: Sequence[Step], start: float, check: Callable[[], None]) -> float:
        """Do each step at its time after `start` (monotonic seconds); seconds that it took longer.

        What has to wait moves all that follows: the distances of the plan stay.
        """
        late = 0.0
        for step in plan:
            while (wait := start + late + step.at - time.monotonic()) > 0:
                check()
                time.sleep(min(wait, 0.5))
            now = time.monotonic() - start
            self.say(f"{now:6.1f} s  {step.action} {step.target} {step.value}".rstrip())
            self._do(step)
            late = max(late, time.monotonic() - start - step.at)
            if late > _LATE_S + plan[-1].at:
                raise TroubleError(f"the plan is {late:.0f} s late: the stack does not come back to work")
        self.scaling.shutdown()
        for done in self.scalings:
            done.result()
        return late

    def _do(self, step: Step) -> None:
        match step.action:
            case "kill":
                self._kill(step.target, step.value == "any moment")
            case "freeze":
                name = self._pick(step.target)
                self.outages.append(Outage(step.target, time.time_ns(), pid=self.stack.freeze(name)))
            case "thaw":
                self._thaw(step.target)
            case "scale":
                self.scalings.append(self.scaling.submit(self.stack.scale, step.target, int(step.value)))
            case "mode" | "create":
                self._tell(step)
            case "stop" | "crash" | "back":
                self._server(step)

    def _tell(self, step: Step) -> None:
        if step.action == "create":
            self.create(step.target)
        else:
            self.set_mode(step.target, _MODES[step.value])

    def _server(self, step: Step) -> None:
        if step.action == "back":
            self.stack.bring_back(step.target)
            wait_until(lambda: self.stack.is_ready(step.target), _SERVER_S)
            self._over(step.target).end = time.time_ns()
            return
        self.outages.append(Outage(step.target, time.time_ns()))
        self.stack.take_away(step.target, kill=step.action == "crash")

    def _pick(self, group: str) -> str:
        """One of the group's processes that runs, waiting for one; TroubleError."""
        if not wait_until(lambda: bool(self._running(group)), _RUNS_S):
            raise TroubleError(f"no process of {group} runs any more: see {self.stack.supervisor.log(group)}")
        return self.rng.choice(self._running(group))

    def _running(self, group: str) -> list[str]:
        return sorted(name for name in self.stack.pids() if group_of(name) == group)

    def _kill(self, group: str, at_any_moment: bool) -> None:
        """Kill a process under load, unless the broker is away; unless at any moment, one that is ready."""
        away = {one.name for one in self.outages if not one.end}
        name, is_ready = self._pick(group), False
        if not (at_any_moment or group in away):
            is_ready = wait_until(lambda: self.stack.is_ready(name), _READY_S)
        before = self.requests()
        if "kafka" not in away:
            wait_until(lambda: self.requests() > before, _LOAD_S)
        load = self.requests() - before
        try:
            self.stack.kill(name)
        except KeyError:  # it has just ended by itself, or was scaled in
            self._kill(group, at_any_moment)
        else:
            self.kills.append(Kill(name, time.time_ns(), load, is_ready))

    def _over(self, name: str) -> Outage:
        return next(one for one in reversed(self.outages) if one.name == name and not one.end)

    def _thaw(self, group: str) -> None:
        """What was killed while it was frozen has started afresh."""
        frozen = self._over(group)
        frozen.end = time.time_ns()
        names = [name for name, pid in self.stack.pids().items() if pid == frozen.pid]
        for name in names:
            self.stack.supervisor.signal(name, signal.SIGCONT)

    def killed(self) -> Counter[str]:
        """Kills by group."""
        return Counter(group_of(kill.name) for kill in self.kills)

    def excuses(self) -> list[Trouble]:
        """What may have repeated requests: kills and freezes of dispatchers, outages of the broker."""
        kills = [
            Trouble(f"kill {n + 1}", kill.at, kill.at)
            for n, kill in enumerate(self.kills)
            if group_of(kill.name) == "dispatcher"
        ]
        away = [
            Trouble(f"{one.name} away", one.begin, one.end + _AFTER_OUTAGE_NS, overlaps=True)
            for one in self.outages
            if one.name in ("dispatcher", "kafka")
        ]
        return [*kills, *away]
