"""What every group is given: settings, the log, the clock, the codec, profiles, the vault."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event

from engine.core.profile import Profile
from engine.ports import Clock, Log, LogError, Vault
from engine.runtime.clock import SystemClock
from engine.runtime.configuration.profiles import load_profiles
from engine.runtime.configuration.vault import AesVault, load_master_keys
from engine.runtime.kafka import KafkaLog
from engine.runtime.settings import Settings
from schemas.codec import Codec


@dataclass(frozen=True, slots=True)
class Context:
    """What a group needs from outside, made once a process."""

    settings: Settings
    log: Log
    clock: Clock
    codec: Codec
    profiles: Mapping[str, Profile]
    vault: Vault
    worker: str
    """Name of this process in records and log lines."""

    def profile(self, name: str) -> Profile:
        """Return a profile that an endpoint names; LogError if this process does not know it."""
        if name not in self.profiles:
            raise LogError(
                f"an endpoint has the profile {name!r}, which this process does not know: "
                "set HOOKLOG_PROFILES_DIR to the same profiles everywhere"
            )
        return self.profiles[name]


Ready = Callable[[], None]
Run = Callable[[Context, Event, Ready], None]
"""A group's main loop: runs until the event is set; calls `Ready` when it can work."""


def open_context(settings: Settings, log: Log | None = None) -> Context:
    """Connect to the log (waiting for the broker), load keys and profiles; LogError if topics are wrong."""
    return Context(
        settings=settings,
        log=_checked(KafkaLog(settings)) if log is None else log,
        clock=SystemClock(),
        codec=Codec(),
        profiles=load_profiles(settings.profiles_dir),
        vault=AesVault(*load_master_keys(settings)),
        worker=f"{socket.gethostname()}-{os.getpid()}",
    )


def _checked(log: KafkaLog) -> KafkaLog:
    log.check()
    return log
