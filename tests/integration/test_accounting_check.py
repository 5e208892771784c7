"""The continuous check: what it exports, each thing it must find, and what it must not cry about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from consumers.accounting import Accounting
from engine.core.model import Skipped
from engine.core.routing import delivery_id
from engine.runtime.accounting.reconcile import GRACE_US
from tests.integration.history_fixtures import TOPIC, attempt, batch, routing
from tests.integration.scene import Scene, waiting

pytestmark = pytest.mark.integration
SECOND = 1_000_000
HOUR = 3_600 * SECOND
PROBLEMS = ("overdue", "unrouted", "contradiction", "history")
ALL_RIGHT = dict.fromkeys(PROBLEMS, 0)


class Watch:
    """A running check of a scene."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.accounting: Accounting = scene.accounting()
        assert self.accounting.begin()

    def check(self) -> dict[str, float]:
        """One check from now; what it exports of each problem."""
        self.scene.clock.us += 15 * SECOND
        self.accounting.step(0)
        return {p: REGISTRY.get_sample_value("hooklog_unaccounted", {"problem": p}) or 0 for p in PROBLEMS}

    def later(self, us: int = 2 * GRACE_US) -> dict[str, float]:
        """The same after a while, of which the checks in between have seen the ends of the log."""
        self.check()
        self.scene.clock.us += us
        self.check()
        return self.check()


def pending(state: str) -> float:
    """What is exported of the pending deliveries."""
    return REGISTRY.get_sample_value("hooklog_deliveries_pending", {"state": state}) or 0


def checked_at() -> float:
    """When the last whole check was, seconds."""
    return REGISTRY.get_sample_value("hooklog_accounting_checked_timestamp_seconds") or 0


def accept(scene: Scene, offset: int, *endpoints: str, routed: bool = True) -> None:
    """A message that is accepted now and matched."""
    scene.publish(1)
    if routed:
        scene.add("routings", batch(replace(routing(offset, *endpoints), accepted_at=scene.clock.us)))


def deliver(scene: Scene, offset: int, endpoint: str) -> None:
    """Its one attempt, a success; accepted when the clock says."""
    scene.add("attempts", replace(attempt(offset, endpoint, 1, "delivered"), accepted_at=scene.clock.us))


@pytest.fixture
def watch(scene: Scene) -> Iterator[Watch]:
    """A check that began when the log was empty."""
    watched = Watch(scene)
    yield watched
    watched.accounting.close()


def test_all_right_is_said_with_its_time(scene: Scene, watch: Watch) -> None:
    """Delivered, skipped, and a retry that is not due: nothing unaccounted, one pending."""
    scene.publish(1)
    routed = replace(routing(0, "ep1", "ep2"), skipped=(Skipped("ep3", "disabled"),))
    deliver(scene, 0, "ep1")
    due = scene.clock.us + HOUR
    scene.add("routings", batch(replace(routed, accepted_at=scene.clock.us)))
    retry = replace(attempt(0, "ep2", 1, "retry"), accepted_at=scene.clock.us, retry_at=due)
    scene.add("attempts", retry)
    scene.project()
    assert watch.later() == ALL_RIGHT
    assert (pending("waiting"), pending("overdue"), pending("parked")) == (1, 0, 0)
    assert checked_at() == pytest.approx(scene.clock.us / 1e6)


def test_delivery_that_was_dropped(scene: Scene, watch: Watch) -> None:
    """Matched and never attempted; once it is, all is right again."""
    accept(scene, 0, "ep1")
    scene.project()
    assert watch.check() == ALL_RIGHT
    assert watch.later() == {**ALL_RIGHT, "overdue": 1}
    assert pending("overdue") == 1
    scene.add("attempts", attempt(0, "ep1", 1, "delivered"))
    assert watch.check() == ALL_RIGHT


def test_retry_that_was_lost(scene: Scene, watch: Watch) -> None:
    """Not before its time plus the grace."""
    accept(scene, 0, "ep1")
    due = scene.clock.us + 10 * GRACE_US
    lost = replace(attempt(0, "ep1", 1, "retry"), accepted_at=scene.clock.us, retry_at=due)
    scene.add("attempts", lost)
    scene.project()
    assert watch.later() == ALL_RIGHT
    assert watch.later(10 * GRACE_US) == {**ALL_RIGHT, "overdue": 1}


@pytest.mark.parametrize("routed", [(1, 2), (0, 2), (0, 1)], ids=["first", "in the middle", "at the end"])
def test_batch_that_is_missing(scene: Scene, watch: Watch, routed: tuple[int, int]) -> None:
    """A gap, or messages that nobody routes for longer than the grace."""
    for offset in range(3):
        accept(scene, offset, routed=offset in routed)
    scene.project()
    assert watch.later() == {**ALL_RIGHT, "unrouted": 1}
    scene.add("routings", batch(routing(3 - sum(routed))))
    assert watch.check() == ALL_RIGHT


@pytest.mark.parametrize(
    ("damage", "differences"),
    [
        ("ALTER TABLE deliveries DELETE WHERE endpoint_id = 'ep1' SETTINGS mutations_sync = 2", 2),
        ("ALTER TABLE attempts DELETE WHERE endpoint_id = 'ep1' SETTINGS mutations_sync = 2", 1),
        (
            "INSERT INTO deliveries SELECT * REPLACE ('dlv_x' AS delivery_id, 0 AS attempts) FROM deliveries"
            " WHERE endpoint_id = 'ep2'",
            1,
        ),
        ("INSERT INTO attempts SELECT * REPLACE (2 AS attempt) FROM attempts WHERE endpoint_id = 'ep1'", 1),
    ],
    ids=["a delivery's row deleted", "an attempt's deleted", "a delivery's doubled", "an attempt's doubled"],
)
def test_rows_that_are_not_as_the_log_says(scene: Scene, watch: Watch, damage: str, differences: int) -> None:
    """Found though the minute agreed before; a difference is told at the second look."""
    accept(scene, 0, "ep1", "ep2")
    deliver(scene, 0, "ep1")
    deliver(scene, 0, "ep2")
    scene.project()
    assert watch.later() == ALL_RIGHT
    scene.store.client.command(damage)
    scene.clock.us += 600 * SECOND
    assert watch.check() == ALL_RIGHT
    assert watch.check() == {**ALL_RIGHT, "history": differences}


def test_parked_backlog_is_not_unaccounted(scene: Scene, watch: Watch) -> None:
    """However late, while its lane is parked and for the grace after that; others are late."""
    accept(scene, 0, "ep1", "ep2")
    scene.park("ep1", 0)
    scene.project()
    assert watch.later(HOUR // 2) == {**ALL_RIGHT, "overdue": 1}
    assert (pending("parked"), pending("overdue")) == (1, 1)
    scene.unpark("ep1")
    assert watch.check()["overdue"] == 1
    assert watch.later()["overdue"] == 2


def test_attempts_out_of_order_are_told(scene: Scene, watch: Watch) -> None:
    """Attempt 2 where attempt 1 was never recorded: a record is missing."""
    accept(scene, 0, "ep1")
    scene.add("attempts", attempt(0, "ep1", 2, "delivered"))
    assert watch.check() == {**ALL_RIGHT, "contradiction": 1}


def test_the_past_comes_from_clickhouse(scene: Scene) -> None:
    """What was pending before the window is known, with the attempt it waits for; then it is followed."""
    accept(scene, 0, "ep1", "ep2")
    due = scene.clock.us + 2 * HOUR
    retry = replace(attempt(0, "ep1", 1, "retry"), accepted_at=scene.clock.us, retry_at=due)
    scene.add("attempts", retry)
    deliver(scene, 0, "ep2")
    scene.project()
    scene.clock.us += 2 * HOUR
    watch = Watch(scene)
    assert len(watch.accounting.books.ledger) == 1
    assert watch.check() == ALL_RIGHT
    assert watch.later() == {**ALL_RIGHT, "overdue": 1}
    scene.add("attempts", attempt(0, "ep1", 2, "delivered"))
    assert watch.check() == ALL_RIGHT
    assert len(watch.accounting.books.ledger) == 0
    watch.accounting.close()


def test_what_clickhouse_does_not_have_yet_is_read_from_the_log(scene: Scene) -> None:
    """The projector is behind by more than the window: what it has not written is folded."""
    scene.project()
    accept(scene, 0, "ep1", "ep2")
    deliver(scene, 0, "ep2")
    scene.clock.us += 2 * HOUR
    watch = Watch(scene)
    assert watch.check()["overdue"] == 1
    assert len(watch.accounting.books.ledger) == 1
    watch.accounting.close()


def test_while_the_projection_is_late_the_age_grows(scene: Scene, watch: Watch) -> None:
    """The log is checked all the same; ClickHouse is compared when it has caught up."""
    assert watch.check() == ALL_RIGHT
    accept(scene, 0, "ep1")
    accepted_at = scene.clock.us
    assert watch.later(3 * GRACE_US) == {**ALL_RIGHT, "overdue": 1}
    assert scene.clock.us / 1e6 - checked_at() > 3 * GRACE_US / 1e6
    scene.add("attempts", replace(attempt(0, "ep1", 1, "delivered"), accepted_at=accepted_at))
    scene.project()
    assert watch.later() == ALL_RIGHT
    assert checked_at() == pytest.approx(scene.clock.us / 1e6)


def test_it_names_what_it_misses(scene: Scene, watch: Watch, capfd: pytest.CaptureFixture[str]) -> None:
    """One line, with the delivery's id as everybody writes it."""
    accept(scene, 0, "ep1")
    scene.project()
    watch.later()
    said = capfd.readouterr()
    assert delivery_id(TOPIC, 0, 0, "ep1") in said.out + said.err


def test_resends_and_waiting_records_are_no_business_of_the_batches(scene: Scene, watch: Watch) -> None:
    """A delivery that no RoutedBatch names is followed by its attempts alone."""
    accept(scene, 0)
    scene.add("deliveries", waiting(0, "ep1", 1))
    resent = replace(attempt(0, "ep1", 1, "retry"), delivery_id="dlv_resent", origin="rs_1", trigger="resend")
    scene.add("attempts", replace(resent, accepted_at=scene.clock.us, retry_at=scene.clock.us + HOUR))
    scene.project()
    assert watch.later() == ALL_RIGHT
    assert pending("waiting") == 1
