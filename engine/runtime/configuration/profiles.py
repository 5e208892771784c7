"""Reads wire profiles: the shipped ones, and a platform's own `*.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path

from engine.core.profile import Profile, ProfileError, parse_profile

_SHIPPED = Path(__file__).parents[2] / "profiles"


def load_profiles(extra: Path | None = None) -> dict[str, Profile]:
    """Profiles by name (the file's, without `.toml`); ProfileError names file, field and rule."""
    profiles = _load_folder(_SHIPPED)
    if extra is None:
        return profiles
    if not extra.is_dir():
        raise ProfileError(f"{extra}: there is no such folder of profiles")
    own = _load_folder(extra)
    for name in own.keys() & profiles.keys():
        raise ProfileError(f"{extra / name}.toml: name: {name} is a shipped profile; give yours another name")
    return profiles | own


def _load_folder(folder: Path) -> dict[str, Profile]:
    return {file.stem: _load(file) for file in sorted(folder.glob("*.toml"))}


def _load(file: Path) -> Profile:
    try:
        return parse_profile(file.stem, tomllib.loads(file.read_text(encoding="utf-8")))
    except ProfileError as error:
        raise ProfileError(f"{file}: {error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{file}: is no TOML: {error}") from None
    except RecursionError:
        raise ProfileError(f"{file}: is nested too deep") from None
    except OSError as error:
        raise ProfileError(f"{file}: cannot be read: {error.strerror}") from None
