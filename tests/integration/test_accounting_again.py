"""Deliveries that are made again: no part of the equation, in the history, and missed when they get lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from engine.core.accounting import Account
from engine.core.ledger import Attempted, Ledger, key_of
from engine.core.model import AttemptFinished, Decision, DeliveryScheduled, Trigger
from engine.core.replay import Resent, ResentBatch
from engine.runtime.accounting.reconcile import Report, summary
from tests.integration.history_fixtures import attempt, batch, routing
from tests.integration.scene import LATER, Scene, waiting
from tests.integration.test_accounting_check import ALL_RIGHT, Watch

pytestmark = pytest.mark.integration


def named(scene: Scene, trigger: Trigger) -> ResentBatch:
    """What `routings` says of one more delivery of message 0."""
    made = Resent(
        *(f"again-{trigger}", "ep1", "m0", "room.ended", trigger, "origin", routing(0).accepted_at, 0, 0)
    )
    return ResentBatch("cmd", "acme", "hl", scene.clock.us, (made,))


def again(trigger: Trigger) -> DeliveryScheduled:
    """The delivery."""
    first = waiting(0, "ep1", 1)
    return replace(first, delivery_id=f"again-{trigger}", trigger=trigger, origin="origin")


def tried(trigger: Trigger, decision: Decision) -> AttemptFinished:
    """Its attempt."""
    first = attempt(0, "ep1", 1, decision)
    return replace(first, delivery_id=f"again-{trigger}", trigger=trigger, origin="origin")


def deliver_first(scene: Scene) -> None:
    """One message, delivered in the ordinary way."""
    scene.publish(1)
    scene.add("deliveries", waiting(0, "ep1", 1))
    scene.add("routings", batch(routing(0, "ep1")))
    scene.add("attempts", attempt(0, "ep1", 1, "delivered"))


def rows(scene: Scene) -> set[tuple[object, ...]]:
    """Status and origin of every delivery in ClickHouse."""
    sql = "SELECT status, origin, attempts FROM delivery_status"
    return {tuple(row) for row in scene.store.history.query(sql).rows}


ONE = Account(matched=1, delivered=1)


@pytest.mark.parametrize("trigger", ["resend", "replay", "test"])
def test_it_is_shown_and_counts_apart(scene: Scene, trigger: Trigger) -> None:
    """Pending, then delivered, with its origin; the sum of first-time deliveries stays what it was."""
    deliver_first(scene)
    scene.add("deliveries", again(trigger))
    scene.add("routings", named(scene, trigger))
    scene.project()
    assert rows(scene) == {("delivered", "", 1), ("pending", "origin", 0)}
    report = scene.reconcile()
    assert (report.account, report.resends) == (ONE, Account(matched=1, pending=1))
    assert report.ok, summary(report)
    assert scene.store.history.accounting() == ONE
    scene.add("attempts", tried(trigger, "delivered"))
    scene.project()
    assert rows(scene) == {("delivered", "", 1), ("delivered", "origin", 1)}
    report = scene.reconcile(LATER)
    assert (report.account, report.resends) == (ONE, ONE)
    assert report.ok, summary(report)
    assert "made again or tested: 1 deliveries = 1 delivered" in summary(report)[-2]


@pytest.mark.parametrize("is_there", [True, False])
def test_one_that_never_ends_is_found(scene: Scene, is_there: bool) -> None:
    """Overdue on `deliveries`, or not there at all: named, and not all right."""
    deliver_first(scene)
    if is_there:
        scene.add("deliveries", again("resend"))
    scene.add("routings", named(scene, "resend"))
    scene.project()
    assert scene.reconcile().ok
    report: Report = scene.reconcile(LATER)
    assert not report.ok
    assert [each.delivery_id for each in report.lost] == ["again-resend"]
    assert (report.account.unaccounted, report.resends.unaccounted) == (0, 1)


@pytest.fixture
def watch(scene: Scene) -> Iterator[Watch]:
    """A check that began when the log was empty."""
    watched = Watch(scene)
    yield watched
    watched.accounting.close()


def test_the_continuous_check_finds_it_too(scene: Scene, watch: Watch) -> None:
    """Overdue until it is attempted; a copy of what names it changes nothing then."""
    scene.add("routings", named(scene, "replay"))
    scene.project()
    assert watch.check() == ALL_RIGHT
    assert watch.later() == {**ALL_RIGHT, "overdue": 1}
    scene.add("attempts", tried("replay", "delivered"))
    scene.add("routings", named(scene, "replay"))
    scene.project()
    assert watch.check() == ALL_RIGHT
    assert watch.later() == ALL_RIGHT


KEY = key_of("again")


@pytest.mark.parametrize(
    ("facts", "pending"),
    [
        (["named"], 1),
        (["named", "named"], 1),
        (["named", "ended"], 0),
        (["ended", "named"], 0),
        (["ended", "named", "named"], 0),
        (["named", "ended", "named"], 0),
    ],
)
def test_in_whatever_order_it_is_read(facts: list[str], pending: int) -> None:
    """The batch that names it, its end, and copies of the batch."""
    ledger = Ledger()
    for fact in facts:
        if fact == "named":
            ledger.made_again(KEY, "ep1", 1_000_000)
        else:
            ledger.attempted(Attempted(KEY, "ep1", 1, 0, 1_000_000))
    assert len(ledger) == pending
