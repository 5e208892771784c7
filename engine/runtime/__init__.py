"""Adapters: what the ports mean on Kafka, HTTP, ClickHouse and this machine."""
