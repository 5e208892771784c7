"""health: attempts that lead to nothing wait for their commit; who reads them again learns the same."""

from __future__ import annotations

from prometheus_client import REGISTRY

from consumers.health import COMMIT_EVERY_S
from tests.pipeline.health_scene import Scene

EP = "ep_1"


def committed(scene: Scene) -> int:
    """Attempts that the group has committed."""
    positions = scene.log._groups["health"].positions
    return sum(position.offset for at, position in positions.items() if at[0] == "attempts")


def failing(state: str) -> float | None:
    """How many endpoints the metric says are in this state."""
    return REGISTRY.get_sample_value("hooklog_endpoints_failing", {"state": state})


def a_scene() -> Scene:
    """One process that has just committed, one endpoint."""
    scene = Scene()
    scene.endpoint(EP)
    scene.settle()
    scene.attempt(EP, "delivered")
    scene.step("0")
    assert committed(scene) == 1
    scene.clock.us += 100_000
    return scene


def test_successes_of_healthy_endpoints_share_a_commit() -> None:
    """None at once; one for all of them when it is time."""
    scene = a_scene()
    for _ in range(3):
        scene.attempt(EP, "delivered")
        scene.step("0")
        scene.clock.us += 100_000
    assert committed(scene) == 1
    scene.clock.us += int(COMMIT_EVERY_S * 1e6)
    scene.step("0")
    assert committed(scene) == 4


def test_what_leads_to_something_is_committed_with_it() -> None:
    """And with what came before it."""
    scene = a_scene()
    scene.attempt(EP, "delivered")
    scene.step("0")
    assert committed(scene) == 1
    scene.clock.us += 100_000
    scene.attempt(EP, "retry")
    scene.step("0")
    assert committed(scene) == 3
    assert scene.snapshots()[EP].failures == 1


def test_a_success_that_was_not_committed_is_known_after_a_crash() -> None:
    """It is read again: the streak begins after it."""
    scene = a_scene()
    scene.attempt(EP, "delivered")
    succeeded_at = scene.clock.us
    scene.step("0")
    scene.kill("0")
    scene.clock.us += 1_000_000
    scene.attempt(EP, "retry")
    scene.settle()
    assert scene.snapshots()[EP].succeeded_at == succeeded_at


def test_who_leaves_commits() -> None:
    """So that the next owner need not begin in the past."""
    scene = a_scene()
    scene.attempt(EP, "delivered")
    scene.step("0")
    scene.step("0")
    assert committed(scene) == 1
    scene.members["0"].close()
    assert committed(scene) == 2


def test_endpoints_in_trouble_are_counted_by_what_was_done_about_it() -> None:
    """Failing, warned, disabled; none any more once it succeeds."""
    scene = a_scene()
    states = ("failing", "warned", "disabled")
    found = []
    for hours in (0.1, 80, 60):
        scene.attempt(EP, "retry")
        scene.settle(hours)
        scene.attempt(EP, "retry")
        scene.settle()
        found.append(tuple(failing(state) for state in states))
    assert found == [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    scene.endpoint(EP, version=3)
    scene.attempt(EP, "delivered", version=3)
    scene.settle()
    assert [failing(state) for state in states] == [0, 0, 0]
