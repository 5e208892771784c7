"""The chaos test, short: crashes lose nothing, and the test can tell a broken product."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.dev.chaos.mutants import MUTANTS
from engine.dev.chaos.plan import make_plan, scaled
from engine.dev.chaos.run import Options, run_chaos
from engine.runtime.topics import GROUPS

_LENGTH_S = 15.0
_RATE = 30.0


@pytest.mark.e2e
def test_kills_lose_nothing(tmp_path: Path) -> None:
    """Every group is killed under load, one is scaled; the log, ClickHouse and the receivers' books agree."""
    kills = make_plan(1, _LENGTH_S, len(GROUPS), trouble=False)
    plan = sorted([*kills, *scaled("dispatcher", (2, 1), 4.0)], key=lambda step: step.at)
    lines: list[str] = []
    ok = run_chaos(Options(1, _LENGTH_S, _RATE, plan, tmp_path), lines.append)
    assert ok, "\n".join(lines)
    assert f"kills {len(GROUPS)}: {', '.join(f'{group} 1' for group in sorted(GROUPS))}" in lines


@pytest.mark.e2e
def test_a_broken_rule_is_noticed(tmp_path: Path) -> None:
    """Without the read-back, deliveries that were made are made again after a kill: red, and it says so."""
    name = "no-read-back"
    plan = MUTANTS[name][1][:1]
    lines: list[str] = []
    assert not run_chaos(Options(2, plan[-1].at + 1, _RATE, plan, tmp_path, name), lines.append)
    assert any("nothing explains it" in line for line in lines), "\n".join(lines)
