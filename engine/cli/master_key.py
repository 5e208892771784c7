"""`hooklog rotate-master-key`: wrap every data key by the new master key."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.cli.output import Format, Output, print_json, stopped_by_signal
from engine.cli.settings import read_settings


def rotate_master_key(
    limit_s: Annotated[
        float, typer.Option("--timeout", min=1, help="How long control may take, seconds.")
    ] = 60,
    output: Output = Format.text,
) -> None:
    """Wrap every data key that is under another master key by the one of HOOKLOG_MASTER_KEY.

    1. Make the new key: 32 random bytes in base64. Set it as HOOKLOG_PREVIOUS_MASTER_KEY (or …_FILE)
    everywhere and restart: from now on every process knows both.

    2. Swap the two: the new one as HOOKLOG_MASTER_KEY, the old one as HOOKLOG_PREVIOUS_MASTER_KEY; restart.

    3. Run this, with the same two settings, until it says that nothing is left.

    4. Take HOOKLOG_PREVIOUS_MASTER_KEY away, restart, destroy the old key. The secrets of commands that were
    given before step 2 stay sealed by it on the topic `commands` until that has forgotten them (7 days).

    Who can stop everything leaves step 1 out. Secrets, signatures and endpoints do not change.
    """
    from engine.runtime.clock import SystemClock  # noqa: PLC0415
    from engine.runtime.configuration.rewrapping import rewrap  # noqa: PLC0415
    from engine.runtime.context import open_context  # noqa: PLC0415

    context = open_context(read_settings())
    with stopped_by_signal() as stop:
        report = rewrap(context, SystemClock().monotonic() + limit_s, stop)
    if output is Format.json:
        print_json({"rewrapped": report.rewrapped, "current": report.current})
    else:
        print(f"{report.rewrapped} data keys rewrapped, {report.current} were under this master key already")
