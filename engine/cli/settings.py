"""Settings of commands, and `hooklog config`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from engine.cli.output import Format, Output, print_json

if TYPE_CHECKING:
    from engine.runtime.settings import Settings

_MASK = "********"


def read_settings() -> Settings:
    """Load the settings and turn on logs (standard error); SettingsError."""
    from engine.runtime import telemetry  # noqa: PLC0415
    from engine.runtime.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    # It logs what it also raises; without a handler that would go to standard error.
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())
    telemetry.configure(settings.log_level)
    return settings


def config(output: Output = Format.text) -> None:
    """Print the effective settings, secrets masked."""
    from engine.runtime.settings import PREFIX, Settings  # noqa: PLC0415

    shown = masked(read_settings())
    if output is Format.json:
        print_json(shown)
        return
    for name, field in Settings.model_fields.items():
        print(f"# {field.description}\n{PREFIX}{name.upper()}={_plain(shown[name])}")


def masked(settings: Settings) -> dict[str, object]:
    """Settings as plain values; a secret that is set is only said to be set."""
    from urllib.parse import urlsplit  # noqa: PLC0415

    from pydantic import SecretStr  # noqa: PLC0415

    shown: dict[str, object] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            value = _MASK if value.get_secret_value() else ""
        elif isinstance(value, tuple):
            value = [str(item) for item in value]
        elif isinstance(value, str) and (password := urlsplit(value).password):
            value = value.replace(f":{password}@", f":{_MASK}@")
        shown[name] = value
    return shown


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
