"""`python -m engine.dev.chaos`: the chaos test from the command line; exit status 0 if everything agrees."""

from __future__ import annotations

import argparse
import secrets
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from engine.dev.chaos.mutants import MUTANTS
from engine.dev.chaos.plan import make_plan
from engine.dev.chaos.run import Options, run_chaos

_TAIL_S = 1.0


def _say(line: str) -> None:
    print(line, flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m engine.dev.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the plan; drawn and printed if left out")
    parser.add_argument("--minutes", type=float, default=4.0, help="how long messages are published")
    parser.add_argument("--kills", type=int, default=24, help="how many SIGKILLs")
    parser.add_argument("--rate", type=float, default=40.0, help="messages a second")
    parser.add_argument("--only-kills", action="store_true", help="no outages, freezes or scaling")
    parser.add_argument(
        "--folder", type=Path, help="an empty folder, kept; else a temporary one, kept if red"
    )
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="break one rule: this must turn red")
    parser.add_argument("--mutants", action="store_true", help="all of them; exit status 0 if all are red")
    return parser.parse_args()


def _plain(chosen: argparse.Namespace, seed: int) -> Options:
    length_s = chosen.minutes * 60
    plan = make_plan(seed, length_s, chosen.kills, trouble=not chosen.only_kills)
    return Options(seed, length_s, chosen.rate, plan, chosen.folder)


def _broken(chosen: argparse.Namespace, seed: int, name: str) -> Options:
    _, plan = MUTANTS[name]
    folder = chosen.folder / name if chosen.folder and chosen.mutants else chosen.folder
    return Options(seed, plan[-1].at + _TAIL_S, chosen.rate, plan, folder, name)


def _all_red(run: Callable[[str], bool]) -> int:
    survivors = [name for name in MUTANTS if run(name)]
    _say(f"mutants that nothing noticed: {', '.join(survivors)}" if survivors else "every mutant turned red")
    return 1 if survivors else 0


def main() -> int:
    """Run it."""
    chosen = _parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops everything in order, as Ctrl-C does
    seed = secrets.randbelow(1 << 31) if chosen.seed is None else chosen.seed
    _say(f"seed {seed}: repeat with --seed {seed} and the same other options")
    try:
        if chosen.mutants:
            return _all_red(lambda name: run_chaos(_broken(chosen, seed, name), partial(_named, name)))
        options = _broken(chosen, seed, chosen.mutant) if chosen.mutant else _plain(chosen, seed)
        ok = run_chaos(options, _say)
    except KeyboardInterrupt:
        return 130
    _say("everything agrees" if ok else f"RED: repeat with --seed {seed}")
    return 0 if ok else 1


def _named(name: str, line: str) -> None:
    _say(f"{name}: {line}" if line else "")


if __name__ == "__main__":
    raise SystemExit(main())
