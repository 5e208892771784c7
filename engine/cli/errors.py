"""Expected failures end a command with one line and an exit status, anything else with a traceback.

With `-o json` the line is a problem document (RFC 9457), the API's own if it
is the API that refuses. It too is on standard error: standard output only ever
holds the answer, so that `… -o json | jq .id` cannot take an error for one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from typer.core import TyperGroup

FAILED = 1
WRONG_INPUT = 2
UNREACHABLE = 3
JSON = "hooklog.json"
"""In a context's `meta`: whether JSON was asked for."""
_TITLES = {
    FAILED: "Refused or failed",
    WRONG_INPUT: "Wrong input or settings",
    UNREACHABLE: "A service is unreachable",
}

# By name, since importing them would cost every command the start-up of all libraries.
_STATUS: Mapping[str, int] = {
    "engine.cli.errors.CommandError": FAILED,
    "engine.core.submission.RefusedError": WRONG_INPUT,
    "engine.core.profile_table.ProfileError": WRONG_INPUT,
    "engine.dev.broker.BrokerError": FAILED,
    "engine.dev.demo.publisher.PublishError": FAILED,
    "engine.dev.demo.run.DemoError": FAILED,
    "engine.dev.jars.JarsError": UNREACHABLE,
    "engine.dev.stack.StackError": FAILED,
    "engine.dev.supervisor.SupervisorError": FAILED,
    "engine.ports.BrokerUnreachableError": UNREACHABLE,
    "engine.ports.LogError": FAILED,
    "engine.runtime.history.migration.MigrationError": FAILED,
    "engine.runtime.history.clickhouse.RefusedError": WRONG_INPUT,
    "engine.runtime.history.clickhouse.UnavailableError": UNREACHABLE,
    "engine.runtime.history.rebuild.RebuildError": FAILED,
    "engine.runtime.settings.SettingsError": WRONG_INPUT,
    "builtins.ConnectionError": UNREACHABLE,
    "builtins.TimeoutError": UNREACHABLE,
    "builtins.OSError": WRONG_INPUT,
    "httpx.TransportError": UNREACHABLE,
}


class CommandError(Exception):
    """A command cannot do what was asked; the message says why and what to do."""

    def __init__(
        self, message: str, status: int = WRONG_INPUT, problem: Mapping[str, object] | None = None
    ) -> None:
        """`problem`: what the API answered."""
        super().__init__(message)
        self.status = status
        self.problem = problem


def status_of(error: BaseException) -> int | None:
    """Exit status of an expected failure; None for one of ours."""
    if isinstance(error, CommandError):
        return error.status
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return next((_STATUS[name] for name in names if name in _STATUS), None)


class Commands(TyperGroup):
    """A group of commands whose expected failures are told in one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; exits with 1, 2 or 3 on an expected failure."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            status = status_of(error)
            if status is None:
                raise
            print(_line(error, status, as_json=ctx.meta.get(JSON, False)), file=sys.stderr)
            raise SystemExit(status) from None


def _line(error: Exception, status: int, *, as_json: bool) -> str:
    """What is wrong, in words or as a problem document."""
    import json  # noqa: PLC0415

    said = str(error) or type(error).__name__
    if not as_json:
        return f"error: {said}"
    known = error.problem if isinstance(error, CommandError) else None
    return json.dumps(known or {"type": "about:blank", "title": _TITLES[status], "detail": said})
