"""What happens when: a plan of kills, freezes, scalings and outages, made from a seed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from engine.runtime.topics import GROUPS

Action = Literal["kill", "freeze", "thaw", "scale", "stop", "crash", "back", "mode", "create"]
_BUSY = ("dispatcher", "dispatcher", "dispatcher", "router", "scheduler")
"""Where the kills go that no group must have: three of five to the one that makes the requests."""
_START_S, _END_S = 3.0, 2.0
_ANY_MOMENT = 4
"""One kill in so many does not wait until the process is ready."""
FROZEN_S = 8.0
"""Longer than the lease and the session."""


@dataclass(frozen=True, slots=True)
class Step:
    """At `at` seconds: an action on a group or server; `value` is a count, a mode or `any moment`."""

    at: float
    action: Action
    target: str
    value: str = ""


def make_plan(seed: int, length_s: float, kills: int, *, trouble: bool) -> list[Step]:
    """Kills, every group's turn twice if there are enough; with `trouble` everything else too."""
    rng = Random(seed)  # noqa: S311  the same plan for the same seed is the point
    steps = _kills(rng, length_s, kills)
    return sorted([*steps, *(_trouble(rng, length_s) if trouble else ())], key=lambda step: step.at)


def _kills(rng: Random, length_s: float, kills: int) -> list[Step]:
    targets = list((GROUPS * 2)[:kills])
    targets += [rng.choice(_BUSY) for _ in range(kills - len(targets))]
    rng.shuffle(targets)
    slot = (length_s - _START_S - _END_S) / max(kills, 1)
    return [
        Step(
            _START_S + slot * (n + rng.random()),
            "kill",
            target,
            "" if rng.randrange(_ANY_MOMENT) else "any moment",
        )
        for n, target in enumerate(targets)
    ]


def _trouble(rng: Random, length_s: float) -> list[Step]:
    def at(part: float) -> float:
        return length_s * (part + rng.uniform(-0.02, 0.02))

    frozen = rng.choice(("router", "scheduler", "dispatcher"))
    first, second = at(0.20), at(0.55)
    return [
        Step(at(0.08), "create", "late"),
        Step(at(0.10), "scale", "dispatcher", "2"),
        Step(at(0.14), "mode", "dead", "down"),
        Step(first, "freeze", "dispatcher"),
        Step(first + FROZEN_S, "thaw", "dispatcher"),
        *_outage(rng, at(0.30), "kafka", "stop", 2),
        Step(at(0.36), "mode", "dead", ""),
        Step(at(0.40), "scale", "dispatcher", "1"),
        *_outage(rng, at(0.45), "store", "stop", 12),
        Step(at(0.48), "scale", "router", "2"),
        Step(at(0.50), "scale", "scheduler", "2"),
        Step(second, "freeze", frozen),
        Step(second + FROZEN_S, "thaw", frozen),
        *_outage(rng, at(0.65), "kafka", "crash", 2),
        Step(at(0.70), "mode", "gone", "gone"),
        Step(at(0.74), "scale", "router", "1"),
        Step(at(0.76), "scale", "scheduler", "1"),
        *_outage(rng, at(0.80), "store", "crash", 6),
    ]


def _outage(rng: Random, at: float, target: str, action: Action, least_s: float) -> list[Step]:
    return [Step(at, action, target), Step(at + least_s * (1 + rng.random()), "back", target)]


def repeated(target: str, count: int, every_s: float) -> list[Step]:
    """One group killed again and again: what a mutant must not survive."""
    return [Step(_START_S + every_s * (n + 1), "kill", target) for n in range(count)]


def scaled(target: str, counts: Sequence[int], every_s: float) -> list[Step]:
    """One group scaled up and down, and nobody killed."""
    return [Step(_START_S + every_s * (n + 1), "scale", target, str(count)) for n, count in enumerate(counts)]
