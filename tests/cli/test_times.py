"""Times on the command line, and what is no range."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from engine.cli.errors import CommandError
from engine.cli.main import app
from engine.cli.times import duration_of, time_of

NOW = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z."""


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2h", NOW - 7_200_000_000),
        ("250ms", NOW - 250_000),
        ("2026-01-01T00:00:00Z", NOW),
        ("2026-01-01T02:00:00+02:00", NOW),
        ("2025-12-31T23:59:59.5Z", NOW - 500_000),
    ],
)
def test_a_time_is_rfc_3339_or_a_duration_back(text: str, time: int) -> None:
    """Microseconds since 1970 UTC."""
    assert time_of(text, "--since", NOW) == time


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("yesterday", "'yesterday' is no time: write RFC 3339"),
        ("2 h", "is no duration"),
        ("2y", "is no duration"),
        ("2026-13-01T00:00:00Z", "is no time"),
        ("2026-01-01T00:00:00", "says no time zone"),
        ("", "is no time"),
    ],
)
def test_anything_else_is_refused_with_the_option_and_the_reason(text: str, says: str) -> None:
    """The error says what to write."""
    with pytest.raises(CommandError, match=says) as refused:
        time_of(text, "--since", NOW)
    assert str(refused.value).startswith("--since: ")


def test_a_grace_is_a_duration() -> None:
    """And nothing else."""
    assert duration_of("90s", "--grace") == 90_000_000
    with pytest.raises(CommandError, match="--grace: 'long' is no duration"):
        duration_of("long", "--grace")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--since", "yesterday"], "--since: 'yesterday' is no time"),
        (["--since", "1h", "--until", "2h"], "--since must be before --until"),
        (["--since", "2999-01-01T00:00:00Z"], "--since is in the future"),
        (["--grace", "soon"], "--grace: 'soon' is no duration"),
    ],
)
def test_reconcile_refuses_what_is_no_range(arguments: list[str], says: str) -> None:
    """Before it connects to anything: exit status 2 and one line."""
    ended = CliRunner().invoke(app, ["reconcile", *arguments])
    assert (ended.exit_code, says in ended.stderr) == (2, True)
