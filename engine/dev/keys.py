"""Secrets of an embedded stack: made once, kept in its folder, readable by their owner only."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def new_master_key() -> str:
    """32 random bytes in base64."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def new_admin_key() -> str:
    """`hl_<id>_<256 bits in hex>`."""
    return f"hl_{secrets.token_hex(6)}_{secrets.token_hex(32)}"


def kept_secret(file: Path, new: Callable[[], str]) -> str:
    """What the file holds; made, readable by its owner only, if there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        part = file.with_suffix(".part")
        part.unlink(missing_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(new() + "\n")
        part.rename(file)
    return file.read_text().strip()
