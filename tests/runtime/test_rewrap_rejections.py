"""Changing the master key: which refusals of control end it."""

from __future__ import annotations

import pytest

from engine.core.change import CommandRejected
from engine.core.directory import DataKey, RewrapDataKey
from engine.ports import Output
from engine.runtime.configuration.rewrapping import RewrapError, raise_rejected
from engine.runtime.memory import MemoryLog
from tests.integration.api_fixtures import make_context

KEY = DataKey("dk_1", "acme", "mk_2", b"nonce", b"wrapped")
ASKED = {"cmd_1": RewrapDataKey("cmd_1", "acme", "rotate-master-key", 5, "mk_1", KEY)}


def look(*codes: str) -> None:
    """Have control refuse with these codes, and look at what it said."""
    context = make_context()
    log = context.log
    assert isinstance(log, MemoryLog)
    for n, code in enumerate(codes):
        fact = CommandRejected("cmd_1", "acme", "a", n, "", "RewrapDataKey", "in words", code)
        log.append(Output("changes", 0, b"acme", context.codec.encode(fact)))
    follower = log.follower({("changes", 0): 0})
    try:
        raise_rejected(context, follower, ASKED)
    finally:
        follower.close()


def test_what_somebody_else_did_meanwhile_is_no_failure() -> None:
    """The data key was changed or deleted: whether it is as wanted is looked at, not guessed."""
    look("conflict", "not_found")


@pytest.mark.parametrize("code", ["unopenable", "", "of_a_newer_one"])
def test_any_other_refusal_ends_it_with_the_reason(code: str) -> None:
    """Also one without a code, of an older control group: run again, it goes on where it was."""
    with pytest.raises(RewrapError, match="data key dk_1 of tenant acme: in words"):
        look(code)
