"""Parts of the queries of ClickHouse: which rollup, which tenants and endpoints, what both dashboards ask."""

from __future__ import annotations

from inspect import cleandoc

from grafana.generate.model import Sql

OF_TENANT = "$__conditionalAll(tenant IN (${tenant:singlequote}), $tenant)"
OF_ENDPOINTS = "$__conditionalAll(endpoint_id IN (${endpoint:singlequote}), $endpoint)"
OF_ENDPOINT = "endpoint_id = ${endpoint:singlequote}"
OF_MESSAGE = "message_id = ${message:singlequote}"
TO_MESSAGE = "/d/hooklog-history?${__url_time_range}&var-message=${__value.raw}"
"""Where a message's id leads."""
IN_TIME = "$__timeFilter(accepted_at)"

_QUANTILES = "quantilesBFloat16Merge(0.5, 0.95, 0.99)(durations)"
_SUCCESS_SHARE = "sumIf(attempts, outcome = 'success') / nullIf(sum(attempts), 0)"
# Minutes while there are few of them to read, hours from then on; the branch not wanted reads nothing.
_IS_SHORT = "($__fromTime > $__toTime - INTERVAL 2 DAY)"


def sql(text: str) -> Sql:
    """A query written over several lines, without the indentation of the code around it."""
    return Sql(cleandoc(text))


class Rollup:
    """Attempts by endpoint and time, from minutes or hours, where the conditions hold."""

    def __init__(self, *conditions: str) -> None:
        chosen = " AND ".join(conditions)
        columns = "tenant, endpoint_id, outcome, error_class, attempts, durations"
        self._rows = f"""(
    SELECT minute AS at, {columns} FROM endpoint_minutes
    WHERE $__timeFilter(minute) AND {_IS_SHORT} AND {chosen}
    UNION ALL
    SELECT hour AS at, {columns} FROM endpoint_hours
    WHERE hour >= toStartOfHour($__fromTime) AND hour <= $__toTime AND NOT {_IS_SHORT} AND {chosen}
)"""

    def success_share(self) -> Sql:
        """The share of attempts that succeeded."""
        return Sql(f"SELECT {_SUCCESS_SHARE} AS succeed\nFROM {self._rows}")

    def p99(self) -> Sql:
        """The 99th percentile of a request's duration, milliseconds."""
        # no answer rather than NaN where there was no request
        return Sql(f"SELECT if(count() = 0, NULL, {_QUANTILES}[3]) AS p99\nFROM {self._rows}")

    def outcomes(self) -> Sql:
        """Requests by time and outcome."""
        return Sql(
            "SELECT $__timeInterval(at) AS time, outcome, sum(attempts) AS requests\n"
            f"FROM {self._rows}\nGROUP BY time, outcome ORDER BY time"
        )

    def durations(self) -> Sql:
        """Quantiles by time, milliseconds."""
        return Sql(
            "SELECT time, quantiles[1] AS p50, quantiles[2] AS p95, quantiles[3] AS p99 FROM (\n"
            f"SELECT $__timeInterval(at) AS time, {_QUANTILES} AS quantiles\n"
            f"FROM {self._rows}\nGROUP BY time\n) ORDER BY time"
        )

    def failures_in_time(self) -> Sql:
        """Failed requests by time and class."""
        return Sql(
            "SELECT $__timeInterval(at) AS time, error_class, sum(attempts) AS failed\n"
            f"FROM {self._rows}\nWHERE outcome != 'success'\nGROUP BY time, error_class ORDER BY time"
        )

    def failures(self) -> Sql:
        """Failed requests by class."""
        return Sql(
            "SELECT error_class, sum(attempts) AS failed\n"
            f"FROM {self._rows}\nWHERE outcome != 'success'\nGROUP BY error_class ORDER BY failed DESC"
        )

    def most_failing(self) -> Sql:
        """Endpoints by failed requests."""
        return Sql(
            "SELECT tenant, endpoint_id, sumIf(attempts, outcome != 'success') AS failed,\n"
            f"       {_SUCCESS_SHARE} AS succeeded,\n"
            "       argMaxIf(error_class, attempts, outcome != 'success') AS mostly,\n"
            "       maxOrNullIf(at, outcome = 'success') AS last_success\n"
            f"FROM {self._rows}\n"
            "GROUP BY tenant, endpoint_id HAVING failed > 0\nORDER BY failed DESC, endpoint_id LIMIT 20"
        )

    def slowest(self) -> Sql:
        """Endpoints by the 99th percentile of their requests."""
        return Sql(
            "SELECT tenant, endpoint_id, requests, quantiles[1] AS p50, quantiles[2] AS p95,\n"
            "       quantiles[3] AS p99 FROM (\n"
            f"SELECT tenant, endpoint_id, sum(attempts) AS requests, {_QUANTILES} AS quantiles\n"
            f"FROM {self._rows}\nGROUP BY tenant, endpoint_id HAVING requests >= 10\n"
            ") ORDER BY p99 DESC, endpoint_id LIMIT 20"
        )


def count_of(status: str, where: str) -> Sql:
    """Deliveries of a status."""
    return sql(f"""
        SELECT countIf(status = '{status}') AS {status} FROM delivery_status
        WHERE {where}""")
