"""Endpoint health: its state on the log, and telling people by mail and by operational webhooks."""
