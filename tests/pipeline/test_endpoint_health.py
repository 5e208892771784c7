"""health: what follows from sustained failure, told once, whoever is killed whenever."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import headers
from tests.pipeline.health_scene import HOUR_US, Crash, Scene
from tests.pipeline.world import CODEC, TENANT

DAY = 24.0


def fail_for(scene: Scene, name: str, days: float, version: int = 1) -> None:
    """A failure now, another half a day later, then nothing until the time is over."""
    for _ in range(2):
        scene.attempt(name, "retry", version=version)
        scene.settle(12.5)
    scene.settle(days * DAY - 25)


def test_an_endpoint_that_keeps_failing_is_warned_about_and_then_disabled() -> None:
    """Once each; the command holds for the version that failed, and says why in words."""
    scene = Scene()
    scene.endpoint("ep")
    fail_for(scene, "ep", 3.1)
    assert scene.kinds() == ["warned"]
    (warned,) = scene.notices()
    assert (warned.tenant, warned.endpoint_id, warned.failures, warned.url) == (
        TENANT,
        "ep",
        2,
        "https://hooks.example.com/ep",
    )
    assert warned.disable_at == warned.since + 5 * 24 * HOUR_US
    assert scene.commands() == []
    scene.settle(2 * DAY)
    scene.settle(2 * DAY)
    (command,) = scene.commands()
    assert (command.command_id, command.expected_version, command.actor) == ("failing:ep:v1", 1, "health")
    assert "only failures since" in command.reason
    assert "has a fault" in command.reason
    assert scene.kinds() == ["warned"], "that it is disabled is told when it is"


def test_that_it_was_disabled_is_told_when_it_was() -> None:
    """By the fact on `changes`; what people disable themselves they know."""
    scene = Scene()
    scene.endpoint("ep", 2, enabled=False)
    scene.disabled("ep", 2, reason="gone")
    scene.disabled("ep", 4, actor="key:1", reason="disabled by hand")
    scene.settle()
    (told,) = scene.notices()
    assert (told.kind, told.reason, told.url) == ("disabled", "gone", "https://hooks.example.com/ep")
    assert told.since == told.at


def test_recovery_is_told_when_trouble_was() -> None:
    """After a warning the next success; a short trouble begins and ends in silence."""
    scene = Scene()
    scene.endpoint("ep")
    scene.attempt("ep", "retry")
    scene.settle(1)
    scene.attempt("ep", "delivered")
    scene.settle(1)
    assert scene.kinds() == []
    fail_for(scene, "ep", 3.1)
    scene.attempt("ep", "delivered")
    scene.attempt("ep", "delivered")
    scene.settle(1)
    assert scene.kinds() == ["warned", "recovered"]
    assert scene.notices()[1].since == scene.notices()[0].since
    assert scene.snapshots() == {}


@pytest.mark.parametrize("change", [{"enabled": False}, {"deleted": True, "enabled": False}])
def test_nothing_is_done_about_an_endpoint_that_somebody_disabled_or_deleted(
    change: dict[str, object],
) -> None:
    """Neither warned about nor disabled; a deleted one is forgotten."""
    scene = Scene()
    scene.endpoint("ep")
    scene.attempt("ep", "retry")
    scene.settle(13)
    scene.attempt("ep", "retry")
    scene.endpoint("ep", 2, **change)
    scene.settle(9 * DAY)
    assert (scene.kinds(), scene.commands()) == ([], [])
    assert ("ep" in scene.snapshots()) == ("deleted" not in change)


def test_it_is_never_disabled_where_the_settings_say_so() -> None:
    """Warned about as ever."""
    scene = Scene(disable_after="none")
    scene.endpoint("ep")
    fail_for(scene, "ep", 9)
    assert (scene.kinds(), scene.commands()) == (["warned"], [])
    assert scene.notices()[0].disable_at == 0


def test_test_sends_and_copies_say_nothing() -> None:
    """What overlapping owners wrote twice counts once; trying things out does not count at all."""
    scene = Scene()
    scene.endpoint("ep")
    scene.attempt("ep", "failed", trigger="test")
    scene.settle(1)
    assert scene.snapshots() == {}
    scene.attempt("ep", "failed", copies=3)
    scene.attempt("ep", "delivered", trigger="test")
    scene.settle()
    assert (scene.snapshots()["ep"].failures, scene.snapshots()["ep"].exhausted) == (1, 1)


def test_a_copy_that_a_new_process_meets_counts_once() -> None:
    """It reads below its commit what was seen in the last minute."""
    scene = Scene()
    scene.endpoint("ep")
    scene.attempt("ep", "failed")
    scene.settle()
    scene.kill("0")
    copy = scene.records("attempts")[0]
    value = CODEC.decode(copy.value)
    scene.append("attempts", "ep", value, **copy.headers)
    scene.settle()
    assert scene.snapshots()["ep"].exhausted == 1


def test_exhausted_deliveries_are_told_of_in_digests() -> None:
    """A minute after the first, then not within the hour, however many there are."""
    scene = Scene()
    scene.endpoint("ep")
    for _ in range(3):
        scene.attempt("ep", "failed")
    scene.settle(0.1)
    for _ in range(6):
        scene.attempt("ep", "failed")
        scene.settle(0.25)
    told = scene.notices()
    assert [notice.exhausted for notice in told] == [3, 4]
    assert told[1].at - told[0].at >= HOUR_US
    scene.settle(1.1)
    assert [notice.exhausted for notice in scene.notices()] == [3, 4, 2]


def test_outputs_name_their_cause() -> None:
    """The attempt that led to them; a notice lies where its endpoint does."""
    scene = Scene()
    scene.endpoint("ep")
    scene.attempt("ep", "failed")
    scene.settle(0.1)
    (notice,), attempt = scene.records("notices"), scene.records("attempts")[0]
    assert notice.headers[headers.CAUSE] == headers.cause_for(attempt)
    assert (notice.partition, notice.key) == (attempt.partition, b"ep")


def test_a_healthy_endpoint_leaves_nothing_behind() -> None:
    """No snapshot, no memory but its last success: a million of them cost nothing."""
    scene = Scene()
    for n in range(50):
        scene.attempt(f"ep_{n}", "delivered")
    scene.settle()
    assert scene.records("health") == []
    assert not any(mine.states for mine in scene.members["0"]._states._partitions.values())


def test_the_state_outlives_what_attempts_keep() -> None:
    """A new process has the snapshot, whether or not the attempts are still there."""
    scene = Scene()
    scene.endpoint("ep")
    scene.attempt("ep", "retry")
    scene.settle(13)
    before = scene.snapshots()["ep"]
    scene.kill("0")
    scene.attempt("ep", "retry")
    scene.settle()
    after = scene.snapshots()["ep"]
    assert (after.since, after.failures) == (before.since, 2)


# -- killed anywhere, with several processes ---------------------------------------------

NAMES = ("a", "b", "c")
PROCESSES = ("0", "1", "2")
ACTIONS = st.one_of(
    st.tuples(st.sampled_from(("retry", "failed", "delivered")), st.sampled_from(NAMES)),
    st.tuples(st.just("step"), st.sampled_from(PROCESSES)),
    st.tuples(st.sampled_from(("kill", "leave")), st.sampled_from(PROCESSES)),
    st.tuples(st.just("crash"), st.sampled_from(("before", "after"))),
    st.tuples(st.just("hours"), st.sampled_from(("1", "13", "40"))),
)


def leave(scene: Scene, name: str) -> None:
    """A process ends in an orderly way, or in its last transaction; others own its partitions meanwhile."""
    try:
        scene.members[name].close()
    except Crash:
        scene.kill(name)
        return
    for other in PROCESSES:
        if other != name:
            scene.step(other)
    scene.start(name)


@dataclass(slots=True)
class Expected:
    """What must come of what was done."""

    exhausted: Counter[str] = field(default_factory=Counter)
    streak: Counter[str] = field(default_factory=Counter)


def act(scene: Scene, expected: Expected, action: str, of: str) -> None:
    """Do one thing."""
    match action:
        case "retry" | "failed" | "delivered":
            scene.attempt(of, action)
            scene.clock.us += 1_000_000
            expected.exhausted[of] += action == "failed"
            expected.streak[of] = 0 if action == "delivered" else expected.streak[of] + 1
        case "step":
            scene.step(of)
        case "kill":
            scene.kill(of)
        case "leave":
            leave(scene, of)
        case "crash":
            scene.log.crash = of
        case "hours":
            scene.clock.us += int(of) * HOUR_US


def check(scene: Scene, expected: Expected, name: str) -> None:
    """The state of an endpoint is the fold of its attempts, and what was told of it adds up."""
    told = [notice for notice in scene.notices() if notice.endpoint_id == name]
    assert sum(n.exhausted for n in told if n.kind == "exhausted") == expected.exhausted[name]
    kinds = Counter(notice.kind for notice in told)
    assert kinds["recovered"] <= kinds["warned"] <= kinds["recovered"] + 1
    snapshot = scene.snapshots().get(name)
    assert (snapshot.failures if snapshot else 0) == expected.streak[name]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ACTIONS, max_size=60))
def test_nothing_is_lost_or_told_twice(actions: list[tuple[str, str]]) -> None:
    """Whatever is killed whenever, the state is the fold of the attempts, and each notice is there once."""
    scene, expected = Scene(processes=3), Expected()
    for name in NAMES:
        scene.endpoint(name)
    for action, of in actions:
        act(scene, expected, action, of)
    scene.settle(1.1)
    scene.settle(1.1)
    for name in NAMES:
        check(scene, expected, name)
    for ids in ([n.id for n in scene.notices()], [c.command_id for c in scene.commands()]):
        assert len(set(ids)) == len(ids)


def test_a_partition_that_comes_back_is_read_anew() -> None:
    """What somebody else folded meanwhile is in it."""
    scene = Scene(processes=2)
    scene.endpoint("a")
    scene.attempt("a", "failed")
    scene.settle()
    scene.members["0"].close()
    scene.attempt("a", "failed")
    scene.step("1")
    scene.step("1")
    assert scene.snapshots()["a"].exhausted == 2
    scene.start("0")
    scene.settle(0.1)
    assert [notice.exhausted for notice in scene.notices()] == [2]
