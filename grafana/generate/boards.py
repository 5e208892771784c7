"""All dashboards."""

from __future__ import annotations

from pathlib import Path

from grafana.generate import delivery, endpoint, groups, history, overview
from grafana.generate.build import to_json

FOLDER = Path(__file__).parent.parent / "dashboards"
BOARDS = (overview.BOARD, delivery.BOARD, groups.BOARD, history.BOARD, endpoint.BOARD)


def files() -> dict[str, str]:
    """Return every dashboard's file name and content."""
    return {f"{board.uid}.json": to_json(board) for board in BOARDS}


def write() -> None:
    """Write them all, and remove what is no dashboard any more."""
    made = files()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    for file in set(FOLDER.glob("*.json")) - {FOLDER / name for name in made}:
        file.unlink()
