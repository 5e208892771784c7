"""Reconcile: what it proves, and each thing it must find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from engine.core.accounting import Account, Range
from engine.core.model import Skipped
from engine.core.routing import delivery_id
from engine.ports import Consumer, Position, TopicPartition
from engine.runtime.accounting.reconcile import GRACE_US, Scope, summary
from tests.integration.history_fixtures import TOPIC, attempt, batch, routing, unasked
from tests.integration.scene import LATER, Scene, waiting

pytestmark = pytest.mark.integration


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


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("deliveries SELECT * REPLACE (addMilliseconds(accepted_at, 1) AS accepted_at)", "more than one row"),
        ("attempts SELECT * REPLACE (addMilliseconds(accepted_at, 1) AS accepted_at)", "2 rows"),
        ("attempts SELECT * REPLACE ('dlv_x' AS delivery_id)", "attempts, and not on the log"),
    ],
)
def test_doubled_rows_differ(scene: Scene, damage: str, says: str) -> None:
    """Two rows where the log has one delivery, or one attempt."""
    scene.publish(1)
    scene.add("routings", batch(routing(0, "ep1")))
    scene.add("attempts", attempt(0, "ep1", 1, "delivered"))
    scene.project()
    scene.store.client.command(f"INSERT INTO {damage} FROM {damage.split(maxsplit=1)[0]}")
    report = scene.reconcile(LATER)
    assert [says in finding.problem for finding in report.differences_shown] == [True]
    assert not report.ok


def test_delivery_that_was_never_written_is_lost(scene: Scene) -> None:
    """Matched, and on no topic: the finding says where it should be."""
    scene.publish(1)
    scene.add("routings", batch(routing(0, "ep1")))
    scene.project()
    report = scene.reconcile(LATER)
    assert report.account == Account(matched=1)
    assert [finding.delivery_id for finding in report.lost] == [delivery_id(TOPIC, 0, 0, "ep1")]
    assert "should be in deliveries/0, for endpoint ep1" in report.lost[0].problem


def test_parked_backlog_is_pending_however_late(scene: Scene) -> None:
    """From the cursor on; what lies before it is judged as usual, and other endpoints are."""
    scene.publish(3)
    scene.add("deliveries", *(waiting(n, "ep1", 1) for n in range(3)), waiting(0, "ep2", 1))
    scene.add("routings", batch(routing(0, "ep1", "ep2"), routing(1, "ep1"), routing(2, "ep1")))
    scene.park("ep1", 1)
    scene.project()
    report = scene.reconcile(100 * GRACE_US)
    assert report.account == Account(matched=4, pending=2)
    assert report.parked == 2
    assert sorted(f.delivery_id for f in report.lost) == sorted(
        delivery_id(TOPIC, 0, 0, endpoint) for endpoint in ("ep1", "ep2")
    )
    assert "it lies at deliveries/0 offset 0" in " ".join(f.problem for f in report.lost)


def test_lane_that_unparked_has_the_grace_to_finish(scene: Scene) -> None:
    """Its last deliveries are under way; after the grace they are late like any."""
    scene.publish(1)
    scene.add("deliveries", waiting(0, "ep1", 1))
    scene.add("routings", batch(routing(0, "ep1")))
    scene.park("ep1", 0)
    scene.project()
    scene.clock.us += 100 * GRACE_US
    scene.unpark("ep1")
    assert scene.reconcile(GRACE_US // 2).account == Account(matched=1, pending=1)
    assert scene.reconcile(LATER).account == Account(matched=1)


def test_last_batch_missing_is_told_when_it_is_late(scene: Scene) -> None:
    """A message that nobody routes is no gap, and not all right either."""
    scene.publish(2)
    scene.add("routings", batch(routing(0)))
    scene.project()
    recent, later = scene.reconcile(), scene.reconcile(LATER)
    assert (recent.unrouted, recent.unrouted_late, recent.ok) == (1, 0, True)
    assert (later.unrouted, later.unrouted_late, later.ok) == (1, 1, False)
    assert "1 messages wait for a RoutedBatch" in summary(later)[0]


def test_range_is_by_acceptance(scene: Scene) -> None:
    """What was accepted outside the range is not judged: on the log, in gaps, or in ClickHouse."""
    times = []
    for offset in range(3):
        times.append(scene.clock.us - scene.clock.us % 1000)
        scene.publish(1)
        routed = replace(routing(offset, "ep1"), accepted_at=times[-1])
        if offset != 1:  # the batch of the one in the middle is missing, and nothing has been written of it
            scene.add("routings", batch(routed))
            scene.add("deliveries", waiting(offset, "ep1", 1))
            scene.add("attempts", replace(attempt(offset, "ep1", 1, "delivered"), accepted_at=times[-1]))
        scene.clock.us += 10 * GRACE_US
    scene.project()
    one, two, three = times
    assert scene.reconcile().gaps == {0: [Range(1, 1)]}
    first = scene.reconcile(scope=Scope(0, until=two))
    middle = scene.reconcile(scope=Scope(0, since=two, until=three))
    last = scene.reconcile(scope=Scope(0, since=three))
    assert [r.account.delivered for r in (first, middle, last)] == [1, 0, 1]
    assert [r.gaps for r in (first, middle, last)] == [{}, {0: [Range(1, 1)]}, {}]
    assert [r.ok for r in (first, middle, last)] == [True, False, True]
    scene.store.client.command(
        f"ALTER TABLE deliveries DELETE WHERE delivery_id = '{delivery_id(TOPIC, 0, 0, 'ep1')}'"
        " SETTINGS mutations_sync = 2"
    )
    assert not scene.reconcile(scope=Scope(0, since=one, until=two)).ok
    assert scene.reconcile(scope=Scope(0, since=three)).ok


def test_the_grace_is_an_option(scene: Scene) -> None:
    """How late is late is for whoever asks to say."""
    scene.publish(1)
    scene.add("deliveries", waiting(0, "ep1", 1))
    scene.add("routings", batch(replace(routing(0, "ep1"), accepted_at=scene.clock.us)))
    scene.project()
    assert scene.reconcile(LATER, Scope(0, grace_us=3 * GRACE_US)).ok
    report = scene.reconcile(LATER, Scope(0, grace_us=GRACE_US))
    assert "attempt 1 is overdue by 120 s: it lies at deliveries/0 offset 0" in report.lost[0].problem


class Scheduler:
    """ports.Rebalance of a scheduler that has committed the beginning and is down."""

    def __init__(self, scene: Scene) -> None:
        self.consumer: Consumer = scene.log.consumer("scheduler", ("attempts",), self)
        self.consumer.poll(0, 1)
        self.consumer.commit({("attempts", 0): Position(0, "")}, wait=True)
        self.consumer.close()

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Start at 0."""
        return dict.fromkeys(partitions, 0)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Nothing is under way."""

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Nothing is under way."""


def test_retry_that_waits_for_the_scheduler_is_pending(scene: Scene) -> None:
    """It is found on `attempts`, and late like any when its time is over."""
    scene.publish(1)
    scene.add("deliveries", waiting(0, "ep1", 1))
    scene.add("routings", batch(routing(0, "ep1")))
    scene.add("attempts", replace(attempt(0, "ep1", 1, "retry"), retry_at=scene.clock.us + 10 * GRACE_US))
    scene.project()
    Scheduler(scene)
    assert scene.reconcile(LATER).account == Account(matched=1, pending=1)
    late = scene.reconcile(12 * GRACE_US)
    assert "at attempts/0 offset 0, which the scheduler has not finished with" in late.lost[0].problem
