"""Profiles by the name given to an option."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.cli.errors import CommandError
from engine.cli.settings import read_settings

if TYPE_CHECKING:
    from engine.core.profile import Profile


def profile_named(name: str) -> Profile:
    """Load a profile; CommandError if there is none of that name."""
    from engine.runtime.configuration.profiles import load_profiles  # noqa: PLC0415

    profiles = load_profiles(read_settings().profiles_dir)
    if name not in profiles:
        raise CommandError(f"there is no profile {name!r}: choose among {', '.join(sorted(profiles))}")
    return profiles[name]
