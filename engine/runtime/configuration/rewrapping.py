"""Changing the master key: asks control to replace the wrapping of every data key under another one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import Event

from engine.core.change import CommandRejected, RejectionCode
from engine.core.directory import DataKey, RewrapDataKey
from engine.core.routing import partition_of
from engine.ports import Follower, LogError, Output
from engine.runtime.configuration.vault import Keyring
from engine.runtime.configuration.views import Configuration, View
from engine.runtime.context import Context
from engine.runtime.settings import SettingsError
from engine.runtime.topics import partitions_of
from schemas.codec import UnknownSchemaError

ACTOR = "rotate-master-key"
_BY_OTHERS: tuple[RejectionCode, ...] = ("conflict", "not_found")
"""Somebody else has changed or deleted the data key meanwhile."""
_POLL_S = 0.05
_FLUSH_S = 10


class RewrapError(LogError):
    """A data key stays under the master key that it is under."""


@dataclass(frozen=True, slots=True)
class Report:
    """How many data keys were wrapped anew, and how many needed no wrapping."""

    rewrapped: int
    current: int


def rewrap(context: Context, deadline: float, stop: Event) -> Report:
    """Ask, wait (monotonic seconds); SettingsError if a master key is missing, RewrapError if some stay."""
    keyring = Keyring(context.vault)
    view = View(context.log, ("directory",), Configuration(context.codec, keyring).fold)
    view.load()
    reader = context.log.reader()
    facts = context.log.follower(reader.ends(partitions_of(context.log, "changes")))
    reader.close()
    current = context.vault.master_key_id
    old = [key for key in keyring.data_keys.values() if key.master_key_id != current]
    try:
        commands = {command.command_id: command for command in _commands(context, keyring, old)}
        _ask(context, commands)
        while waiting := [key for key in old if keyring.master_key_of(key.id) not in (current, None)]:
            view.advance(_POLL_S)
            raise_rejected(context, facts, commands)
            if stop.is_set() or context.clock.monotonic() > deadline:
                raise RewrapError(
                    f"{len(waiting)} of {len(old)} data keys are still under another master key: "
                    "is the control group running? Run this again; it goes on where it was"
                )
    finally:
        facts.close()
        view.close()
    return Report(len(old), len(keyring.data_keys) - len(old))


def _commands(context: Context, keyring: Keyring, keys: list[DataKey]) -> Iterator[RewrapDataKey]:
    now = context.clock.now()
    for key in keys:
        try:
            wrapped = keyring.rewrapped(key)
        except ValueError as error:
            raise SettingsError(str(error)) from None
        base = (f"cmd_{os.urandom(16).hex()}", key.tenant, ACTOR, now)
        yield RewrapDataKey(*base, key.master_key_id, wrapped)


def _ask(context: Context, commands: Mapping[str, RewrapDataKey]) -> None:
    producer, partitions = context.log.producer(), context.log.partitions("commands")
    for command in commands.values():
        partition, key = partition_of(command.tenant, partitions), command.tenant.encode()
        producer.send(Output("commands", partition, key, context.codec.encode(command)), _written)
    if not producer.flush(_FLUSH_S):
        raise RewrapError(f"the commands were not acknowledged within {_FLUSH_S} s: is the broker there?")


def _written(offset: int) -> None:
    """Only `flush` counts."""


def raise_rejected(context: Context, facts: Follower, commands: Mapping[str, RewrapDataKey]) -> None:
    """Give up when control refuses, unless because of what somebody else did."""
    for record in facts.poll(0, 1_000):
        try:
            fact = context.codec.decode(record.value)
        except UnknownSchemaError:
            continue  # of a newer control, and so of no command of ours
        if not isinstance(fact, CommandRejected) or fact.command_id not in commands:
            continue
        if fact.code not in _BY_OTHERS:
            key = commands[fact.command_id].data_key
            raise RewrapError(f"data key {key.id} of tenant {key.tenant}: {fact.reason}")
