"""The log against itself and against ClickHouse, delivery by delivery."""
