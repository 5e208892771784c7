"""Reconcile: what it proves, and each thing it must find."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumers.projector import Projector
from engine.core.accounting import Account, Range
from engine.core.model import DeliveryScheduled, MessagePublished, Skipped
from engine.core.routing import delivery_id
from engine.ports import Output
from engine.runtime.clock import SystemClock
from engine.runtime.memory import MemoryLog
from engine.runtime.reconcile import GRACE_US, Report, reconcile, summary
from tests.integration.history_fixtures import CODEC, TOPIC, Store, attempt, batch, routing, unasked

pytestmark = pytest.mark.integration
LATER = 2 * GRACE_US


class Hour:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.us = SystemClock().now()

    def now(self) -> int:
        """Wall clock, microseconds."""
        return self.us

    def monotonic(self) -> float:
        """Seconds."""
        return self.us / 1e6


class Scene:
    """A log of one partition with its clock, and the history projected from it."""

    def __init__(self, store: Store) -> None:
        self.clock = Hour()
        self.log = MemoryLog(1, self.clock)
        self.store = store

    def add(self, topic: str, *values: object) -> None:
        """Append values now."""
        for value in values:
            self.log.append(Output(topic, 0, None, CODEC.encode(value)))

    def publish(self, count: int) -> None:
        """Append messages."""
        self.add(
            "messages", *(MessagePublished("acme", f"m{n}", "room.ended", b"{}", 0) for n in range(count))
        )

    def project(self) -> None:
        """Bring ClickHouse up to date."""
        projector = Projector(self.store.history, self.store.settings, self.clock.monotonic, log=self.log)
        projector.consumer = self.log.consumer("projector", ("routings", "attempts"), projector)
        projector.step(0)
        projector.close()
        projector.consumer.close()

    def reconcile(self, after: int = 0) -> Report:
        """Reconcile some microseconds from now."""
        reader = self.log.reader()
        return reconcile(reader, self.log, self.store.history, self.store.settings, self.clock.us + after)


@pytest.fixture
def scene(store: Store) -> Scene:
    """An empty log and an empty history."""
    return Scene(store)


def waiting(offset: int, endpoint: str, number: int) -> DeliveryScheduled:
    """A delivery that waits for its attempt `number`."""
    return DeliveryScheduled(
        delivery_id=delivery_id(TOPIC, 0, offset, endpoint),
        tenant="acme",
        endpoint_id=endpoint,
        message_id=f"m{offset}",
        event_type="room.ended",
        attempt=number,
        trigger="scheduled",
        origin="",
        accepted_at=0,
        published_at=0,
        profile="standard",
        endpoint_epoch=0,
        view_offset=0,
        source_partition=0,
        source_offset=offset,
        body=b"{}",
    )


def test_everything_accounted_for(scene: Scene) -> None:
    """Every state once, retries waiting in a tier: no finding, and the sum in words."""
    scene.publish(3)
    passed_over = replace(routing(1), skipped=(Skipped("ep1", "disabled"),))
    scene.add(
        "deliveries", waiting(0, "ep1", 1), waiting(0, "ep2", 1), waiting(2, "ep1", 1), waiting(2, "ep2", 1)
    )
    scene.add("routings", batch(routing(0, "ep1", "ep2"), passed_over, routing(2, "ep1", "ep2")))
    due = replace(attempt(2, "ep1", 1, "retry"), retry_at=scene.clock.us + 10 * GRACE_US)
    scene.add("attempts", attempt(0, "ep1", 1, "delivered"), attempt(0, "ep2", 1, "failed"), due)
    scene.add("attempts", unasked(attempt(2, "ep2", 1, "skipped")))
    scene.add("retry.2m", waiting(2, "ep1", 2))
    scene.project()
    report = scene.reconcile(LATER)
    assert report.account == Account(matched=5, delivered=1, failed=1, pending=1, skipped=2)
    assert report.ok
    assert (report.unrouted, report.moving, report.lost, report.gaps) == (0, 0, [], {})
    assert summary(report)[-1] == (
        "accounted: 5 deliveries = 1 delivered + 1 failed + 2 skipped + 1 pending, 0 unaccounted"
    )


def test_copies_and_overlaps_change_nothing(scene: Scene) -> None:
    """Two owners at once: batches that overlap and disagree, attempts twice; the union, each once."""
    scene.publish(2)
    scene.add(
        "routings", batch(replace(routing(0, "ep1"), skipped=(Skipped("ep2", "disabled"),)), routing(1))
    )
    scene.add("routings", batch(routing(0, "ep1", "ep2"), routing(1, "ep1")))
    scene.add("attempts", attempt(0, "ep1", 1, "delivered"), attempt(0, "ep1", 1, "failed"))
    scene.add("attempts", attempt(0, "ep2", 1, "delivered"), unasked(attempt(1, "ep1", 1, "skipped")))
    scene.add("attempts", attempt(1, "ep1", 1, "delivered"))
    scene.project()
    report = scene.reconcile(LATER)
    assert report.account == Account(matched=3, delivered=2, skipped=1)
    assert report.ok, summary(report)


def test_gap_in_routings(scene: Scene) -> None:
    """An offset that no RoutedBatch covers is named; what is after the last one is not routed yet."""
    scene.publish(6)
    scene.add("routings", batch(routing(0), routing(1)), batch(routing(3)))
    scene.project()
    report = scene.reconcile()
    assert report.gaps == {0: [Range(2, 2)]}
    assert report.unrouted == 2
    assert not report.ok
    assert "offsets 2 to 2" in summary(report)[0]


@pytest.mark.parametrize("topic", ["deliveries", "retry.0", "retry.2h"])
def test_pending_is_found_where_it_waits(scene: Scene, topic: str) -> None:
    """A retry that is not overdue counts as pending wherever it waits."""
    scene.publish(1)
    scene.add("routings", batch(routing(0, "ep1")))
    due = scene.clock.us + 10 * GRACE_US
    scene.add("attempts", replace(attempt(0, "ep1", 1, "retry"), retry_at=due))
    scene.add(topic, waiting(0, "ep1", 2))
    scene.project()
    assert scene.reconcile(LATER).account == Account(matched=1, pending=1)
    late = scene.reconcile(12 * GRACE_US)
    assert late.account.unaccounted == 1
    assert "overdue" in late.lost[0].problem


def test_retry_that_nobody_scheduled_is_lost(scene: Scene) -> None:
    """Within the grace it may be on its way; after that, a retry found nowhere is unaccounted."""
    scene.publish(1)
    scene.add("deliveries", waiting(0, "ep1", 1))
    scene.add("routings", batch(routing(0, "ep1")))
    scene.add("attempts", replace(attempt(0, "ep1", 1, "retry"), retry_at=scene.clock.us + 10 * GRACE_US))
    scene.project()
    assert scene.reconcile(0).account.unaccounted == 0
    report = scene.reconcile(LATER)
    assert report.account == Account(matched=1)
    assert report.account.unaccounted == 1
    assert "attempt 2 is neither" in report.lost[0].problem
    assert not report.ok


def test_attempt_without_routing(scene: Scene) -> None:
    """A delivery that no RoutedBatch names is found, unless its message's batch is still to be written."""
    scene.publish(2)
    scene.add("routings", batch(routing(0, "ep1")))
    scene.add("attempts", attempt(0, "ep1", 1, "delivered"), attempt(0, "ep2", 1, "delivered"))
    scene.add("attempts", attempt(1, "ep1", 1, "delivered"))
    scene.project()
    report = scene.reconcile(LATER)
    assert [finding.delivery_id for finding in report.illegal_shown] == [delivery_id(TOPIC, 0, 0, "ep2")]
    assert report.account == Account(matched=1, delivered=1)


def test_missing_attempt_is_illegal(scene: Scene) -> None:
    """Attempt 2 without attempt 1 is told, with the state that it met."""
    scene.publish(1)
    scene.add("deliveries", waiting(0, "ep1", 1))
    scene.add("routings", batch(routing(0, "ep1")))
    scene.add("attempts", attempt(0, "ep1", 2, "delivered"))
    report = scene.reconcile()
    assert report.illegal == 1
    assert "Finished(number=2" in report.illegal_shown[0].problem


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("ALTER TABLE deliveries DELETE WHERE 1 SETTINGS mutations_sync = 2", "deliveries"),
        ("ALTER TABLE attempts DELETE WHERE 1 SETTINGS mutations_sync = 2", "attempts"),
        (
            "ALTER TABLE deliveries UPDATE status = 'failed' WHERE 1 SETTINGS mutations_sync = 2",
            "failed after 1",
        ),
    ],
)
def test_damaged_history_differs(scene: Scene, damage: str, says: str) -> None:
    """What ClickHouse lost or has wrong is a difference once it is too old to be still on its way."""
    scene.publish(1)
    scene.add("routings", batch(routing(0, "ep1")))
    scene.add("attempts", attempt(0, "ep1", 1, "delivered"))
    scene.project()
    scene.store.client.command(damage)
    recent, later = scene.reconcile(0), scene.reconcile(LATER)
    assert (recent.differences, recent.moving) == (0, 1)
    assert (later.differences, later.moving, later.ok) == (1, 0, False)
    assert says in later.differences_shown[0].problem


def test_history_of_another_log_differs(scene: Scene) -> None:
    """A delivery in ClickHouse that the log knows nothing of is a difference."""
    scene.publish(1)
    scene.add("routings", batch(routing(0, "ep1", "ep2")))
    scene.project()
    other = Scene(scene.store)
    other.publish(1)
    other.add("deliveries", waiting(0, "ep1", 1))
    other.add("routings", batch(routing(0, "ep1")))
    report = other.reconcile(LATER)
    assert [finding.delivery_id for finding in report.differences_shown] == [delivery_id(TOPIC, 0, 0, "ep2")]
    assert "not on the log" in report.differences_shown[0].problem
