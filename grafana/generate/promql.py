"""PromQL as the panels need it: every series of the chosen deployment, rates over what Grafana chooses."""

from __future__ import annotations

_RANGE = "[$__rate_interval]"


def series(name: str, where: str = "") -> str:
    """Select the series of a metric of the chosen deployments; `where` adds matchers."""
    matchers = ",".join(filter(None, ('job=~"$job"', where)))
    return f"{name}{{{matchers}}}"


def rate(name: str, by: str = "", where: str = "") -> str:
    """A counter's rate a second, added up, `by` labels."""
    return f"sum{_by(by)} (rate({series(name, where)}{_RANGE}))"


def total(name: str, by: str = "", where: str = "") -> str:
    """A gauge added up over processes."""
    return f"sum{_by(by)} ({series(name, where)})"


def worst(name: str, by: str = "", where: str = "") -> str:
    """A gauge's largest value over processes."""
    return f"max{_by(by)} ({series(name, where)})"


def quantile(share: float, name: str, by: str = "", where: str = "") -> str:
    """A histogram's quantile, from the rates of its buckets."""
    labels = ", ".join(filter(None, ("le", by)))
    buckets = f"sum by ({labels}) (rate({series(f'{name}_bucket', where)}{_RANGE}))"
    return f"histogram_quantile({share:g}, {buckets})"


def ratio(part: str, whole: str) -> str:
    """A share from 0 to 1; 0 while there is nothing to take it of."""
    return f"({part}) / ({whole} > 0) or on() vector(0)"


def or_zero(expression: str) -> str:
    """The expression, or 0 while no process has such a series: nothing of the kind has happened."""
    return f"{expression} or on() vector(0)"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
