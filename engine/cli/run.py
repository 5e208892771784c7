"""`hooklog run`: consumer groups, or the API."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.errors import CommandError
from engine.cli.settings import read_settings

API = "api"


def run(
    groups: Annotated[list[str], typer.Argument(metavar="GROUP…", help="Names of groups, or api.")],
) -> None:
    """Run consumer groups in this process, or the HTTP API, until SIGINT or SIGTERM."""
    settings = read_settings()
    if groups == [API]:
        from engine.api.serve import serve  # noqa: PLC0415

        serve(settings)
        return
    if API in groups:
        raise CommandError("the API runs in a process of its own: hooklog run api")
    from consumers.main import run as run_groups  # noqa: PLC0415

    raise typer.Exit(run_groups(list(dict.fromkeys(groups)), settings))
