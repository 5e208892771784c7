"""Charts as inline SVG: shapes with classes, sized by the viewBox, coloured by the style sheet.

Each is one image to who cannot see it, with what it shows as its name; who
points at a bar is told its figures. No value reaches the markup unescaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 600.0, 120.0
_GAP = 0.2
"""Of a bar's place that stays empty."""


@dataclass(frozen=True, slots=True)
class Series:
    """Values in order, drawn in the colour of the class `c-<kind>`."""

    kind: str
    values: Sequence[float]


def stacked(series: Sequence[Series], labels: Sequence[str], said: str) -> Markup:
    """Draw a column a label, the series on top of each other from the bottom."""
    top = max((sum(each.values[n] for each in series) for n in range(len(labels))), default=0) or 1.0
    place = _WIDTH / max(len(labels), 1)
    columns = [_column(series, n, top, place, label) for n, label in enumerate(labels)]
    return _image(said, "".join(columns))


def _column(series: Sequence[Series], n: int, top: float, place: float, label: str) -> str:
    drawn, floor = [], _HEIGHT
    for each in series:
        height = each.values[n] / top * _HEIGHT
        if height > 0:
            height = max(height, 1.5)  # a single failure among thousands must be seen
            floor -= height
            drawn.append(_rectangle(each.kind, n * place, floor, place, height))
    hover = f'<rect class="hit" x="{n * place:.2f}" y="0" width="{place:.2f}" height="{_HEIGHT:g}"/>'
    return f"<g><title>{escape(label)}</title>{hover}{''.join(drawn)}</g>"


def _rectangle(kind: str, x: float, y: float, place: float, height: float) -> str:
    width = place * (1 - _GAP)
    return (
        f'<rect class="c-{escape(kind)}" x="{x + place * _GAP / 2:.2f}" y="{max(y, 0):.2f}"'
        f' width="{width:.2f}" height="{height:.2f}"/>'
    )


def _image(said: str, shapes: str) -> Markup:
    return Markup(  # noqa: S704  made here, of numbers and of what is escaped above
        f'<svg class="chart" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" preserveAspectRatio="none"'
        f' role="img" aria-label="{escape(said)}">{shapes}</svg>'
    )
