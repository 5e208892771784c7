"""Prometheus's rules: sound, each tried firing and not firing, each with a section of the runbooks."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.runtime.topics import GROUPS
from tests.runtime.test_telemetry import METRICS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "grafana" / "prometheus"
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()
ALERTS_TEXT = (FOLDER / "alerts.yml").read_text()
RULES_TEXT = ALERTS_TEXT + (FOLDER / "recording.yml").read_text()
CASES = ("tests.yml", "slo_tests.yml")
ALERTS = re.findall(r"- alert: (\w+)", ALERTS_TEXT)
COMMAND = re.compile(r"`(hooklog [^`]+)`")


def promtool(*arguments: str) -> None:
    """Run it on files of the folder; its complaint if it has one."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing: install Prometheus")
    ran = subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_rules_are_sound() -> None:
    """As Prometheus reads them, and through the configuration that names them."""
    promtool("check", "rules", "recording.yml", "alerts.yml")
    promtool("check", "config", "prometheus.yml")


@pytest.mark.parametrize("cases", CASES)
def test_alerts_fire_when_they_must_and_only_then(cases: str) -> None:
    """Every case, on Prometheus's own evaluation."""
    promtool("test", "rules", cases)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_tried_firing_and_not_firing(alert: str) -> None:
    """At least one case of each, so that none is there that never fires, or always does."""
    tried = re.findall(
        rf'alertname="{alert}", alertstate="firing"}}\)\n +eval_time: \w+\n +exp_samples: (.*)',
        "".join((FOLDER / cases).read_text() for cases in CASES),
    )
    assert {samples == "[]" for samples in tried} == {True, False}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_how_bad_it_is_and_what_to_do(alert: str) -> None:
    """Severity, a summary, and a runbook section that is there."""
    rule = ALERTS_TEXT.partition(f"- alert: {alert}\n")[2].partition("- alert:")[0]
    assert re.search(r"severity: (page|ticket)\n", rule)
    assert re.search(r'summary: "\S.+"\n +description: "\S.+"\n', rule)
    assert f"runbook_url: docs/runbooks.md#{alert.lower()}\n" in rule
    section = RUNBOOKS.partition(f"\n## {alert}\n")[2].partition("\n## ")[0]
    assert len(section.strip()) > 100


def test_there_is_no_section_for_an_alert_that_is_gone() -> None:
    """Whoever follows one would look for what is not measured any more."""
    assert set(re.findall(r"^## (Hooklog\w+)$", RUNBOOKS, re.MULTILINE)) == set(ALERTS)


def exported() -> set[str]:
    """Every name that a process exports."""
    names = set()
    for metric in METRICS.values():
        name = next(iter(metric.describe())).name
        names |= {name, *(f"{name}_{part}" for part in ("total", "bucket", "count", "sum"))}
    return names


@pytest.mark.parametrize("text", [RULES_TEXT, RUNBOOKS, *((FOLDER / cases).read_text() for cases in CASES)])
def test_every_metric_that_is_asked_for_is_exported(text: str) -> None:
    """In rules, their cases, and the runbooks' queries; recorded ones have a rule."""
    assert set(re.findall(r"\bhooklog_[a-z_]+[a-z](?![\w.])", text)) <= exported()
    recorded = set(re.findall(r"- record: (\S+)", RULES_TEXT))
    assert set(re.findall(r"\bhooklog:[\w:]+", text)) <= recorded


def test_every_command_of_the_runbooks_is_there() -> None:
    """With its options, by its own --help."""
    for command in {" ".join(found.split()) for found in COMMAND.findall(RUNBOOKS)}:
        words = [word for word in command.split()[1:] if re.fullmatch(r"[a-z][a-z-]+", word)][:2]
        options = re.findall(r"--[a-z-]+", command)
        assert known(tuple(words), frozenset(options)), command


def known(words: tuple[str, ...], options: frozenset[str]) -> bool:
    """Whether the command line has the command, and the command the options."""
    from typer.main import get_command

    from engine.cli.main import app

    command = get_command(app)
    for word in words:
        within = getattr(command, "commands", {})
        if word not in within:
            return not within and command.name not in (None, "hooklog")
        command = within[word]
    return options <= {option for each in command.params for option in each.opts}


def test_every_process_is_scraped() -> None:
    """Each group and the API, by the names they have in docker-compose.yml."""
    targets = set(re.findall(r"- ([a-z]+):\d+", (FOLDER / "prometheus.yml").read_text()))
    assert targets == {"api", *GROUPS}
