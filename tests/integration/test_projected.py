"""What the projector makes of facts on `changes`, and of deliveries that are made again."""

from __future__ import annotations

import pytest

from consumers.projector import Projector
from engine.core.change import CommandRejected, EndpointDisabled, FactBase
from engine.core.directory import TenantCreated
from engine.core.replay import Resent, ResentBatch
from engine.ports import Output
from engine.runtime.clock import SystemClock
from engine.runtime.memory import MemoryLog
from tests.integration.history_fixtures import CODEC, NOW, Store, attempt, batch, context_of, routing

pytestmark = pytest.mark.integration


def project(log: MemoryLog, store: Store) -> None:
    """Read all there is from where the group stands, write and commit."""
    projector = Projector(context_of(store, log, SystemClock()), store.history)
    projector.step(0)
    projector.close()


def log_of(*outputs: tuple[str, object]) -> MemoryLog:
    """A log of one partition that holds these values."""
    log = MemoryLog(1, SystemClock())
    for topic, value in outputs:
        log.append(Output(topic, 0, None, CODEC.encode(value)))
    return log


def test_every_fact_is_in_the_audit_trail_once(store: Store) -> None:
    """Two facts of one command in one millisecond are two rows; read again, they are still two."""
    facts: list[FactBase] = [
        TenantCreated("c1", "acme", "admin", NOW, "Acme"),
        EndpointDisabled("c1", "acme", "admin", NOW, "ep1", 2, "by hand"),
        CommandRejected("c2", "acme", "key:k", NOW + 1, "ep9", "DeleteEndpoint", "no such endpoint"),
    ]
    log = log_of(*(("changes", fact) for fact in facts))
    project(log, store)
    project(MemoryLog(1, SystemClock()), store)
    again = log_of(*(("changes", fact) for fact in facts))
    project(again, store)  # from the beginning: nothing is committed there
    rows = store.history.query(
        "SELECT subject, change, command_id FROM audit_trail ORDER BY command_id, subject DESC"
    ).rows
    assert rows == [
        ("tenant", "created", "c1"),
        ("endpoint", "disabled", "c1"),
        ("endpoint", "command_rejected", "c2"),
    ]


def test_a_delivery_made_again_is_pending_until_its_first_attempt(store: Store) -> None:
    """It stands beside the one that it was made of, with its origin, and is no first-time one."""
    made = Resent(
        delivery_id="dlv_again",
        endpoint_id="ep1",
        message_id="m0",
        event_type="room.ended",
        trigger="resend",
        origin="dlv_first",
        accepted_at=NOW,
        source_partition=0,
        source_offset=0,
    )
    log = log_of(
        ("routings", batch(routing(0, "ep1"))),
        ("attempts", attempt(0, "ep1", 1, "failed")),
        ("routings", ResentBatch("c1", "acme", "admin", NOW, (made,))),
    )
    project(log, store)
    found = store.history.delivery("dlv_again", "acme")
    assert found is not None
    assert (found["status"], found["origin"], found["message_id"], found["attempts"]) == (
        *("pending", "dlv_first", "m0"),
        0,
    )
    assert store.history.delivery("dlv_again", "other") is None
    account = store.history.accounting()
    assert (account.matched, account.failed, account.pending) == (1, 1, 0)
