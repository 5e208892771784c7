"""The chaos test's plans: seeded, bounded, nobody left out; and its mutants fit the product."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engine.dev.chaos.plan import FROZEN_S, make_plan
from engine.runtime.topics import GROUPS


@given(st.integers(0, 2**31), st.integers(20, 60), st.floats(120, 600))
def test_a_plan_kills_every_group_twice(seed: int, kills: int, length_s: float) -> None:
    """As many kills as asked for, each group's twice at least, all within the time, in order."""
    plan = make_plan(seed, length_s, kills, trouble=True)
    killed = Counter(step.target for step in plan if step.action == "kill")
    assert killed.total() == kills
    assert all(killed[group] >= 2 for group in GROUPS)
    assert all(0 < step.at < length_s for step in plan)
    assert plan == sorted(plan, key=lambda step: step.at)
    assert plan == make_plan(seed, length_s, kills, trouble=True)


@given(st.integers(0, 2**31), st.floats(120, 600))
def test_all_that_is_taken_away_comes_back(seed: int, length_s: float) -> None:
    """Every outage and freeze ends, one at a time for each server; every group is scaled back."""
    away: set[str] = set()
    counts = dict.fromkeys(GROUPS, "1")
    for step in make_plan(seed, length_s, 20, trouble=True):
        if step.action in ("stop", "crash", "freeze"):
            assert step.target not in away
            away.add(step.target)
        elif step.action in ("back", "thaw"):
            away.remove(step.target)
        elif step.action == "scale":
            counts[step.target] = step.value
    assert away == set()
    assert set(counts.values()) == {"1"}


def test_a_freeze_outlasts_a_session() -> None:
    """The groups' default session is over before a frozen process goes on."""
    assert FROZEN_S > 6


def test_mutants_fit_the_product() -> None:
    """What the mutants break is there, with the parameters they expect; tried in a process of its own."""
    script = "from engine.dev.chaos.mutants import MUTANTS\nfor broken, _ in MUTANTS.values(): broken()"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
