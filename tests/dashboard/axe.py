"""What axe-core (beside this file, as it was published) finds that keeps people from using a page."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from playwright.sync_api import Page

SOURCE = Path(__file__).with_name("axe-core-4.14.1.min.js")
_SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
_RUN = """async () => {
  const found = await axe.run(document, {resultTypes: ["violations"]});
  return found.violations.filter(each => ["serious", "critical"].includes(each.impact))
    .map(each => `${each.id}: ${each.help}: ${each.nodes.map(node => node.target.join(" ")).join(", ")}`);
}"""


def faults(page: Page) -> list[str]:
    """Serious and critical ones: which rule, and where on the page."""
    page.evaluate(SOURCE.read_text())  # not as a script of the page: its policy allows none of others
    return list(page.evaluate(_RUN))


def faults_in_both_themes(page: Page) -> list[str]:
    """The same in light and in dark, as the system asks for."""
    found = []
    for scheme in _SCHEMES:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found += [f"{scheme}: {each}" for each in faults(page)]
    return found
