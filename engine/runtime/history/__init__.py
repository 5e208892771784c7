"""What ClickHouse holds: its tables, what fills them, what asks them."""
