"""The embedded stack: a real broker, the real ClickHouse engine, a supervisor, the demo."""
