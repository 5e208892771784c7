"""The variables at the top of the dashboards."""

from __future__ import annotations

from grafana.generate.model import Picker
from grafana.generate.sql import OF_TENANT

_KNOWN = "FROM endpoint_hours WHERE hour >= toStartOfHour($__fromTime) AND hour <= $__toTime"
_TENANTS = f"SELECT DISTINCT tenant {_KNOWN} ORDER BY tenant"
_ENDPOINTS = f"SELECT DISTINCT endpoint_id {_KNOWN} AND {OF_TENANT} ORDER BY endpoint_id"

JOB = Picker("job", "Deployment", "prometheus", "label_values(hooklog_broker_up, job)", many=True)
TENANT = Picker("tenant", "Tenant", "clickhouse", _TENANTS, many=True)
ENDPOINTS = Picker("endpoint", "Endpoint", "clickhouse", _ENDPOINTS, many=True)
ENDPOINT = Picker("endpoint", "Endpoint", "clickhouse", _ENDPOINTS)
MESSAGE = Picker("message", "Message id", "text")
