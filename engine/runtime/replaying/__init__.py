"""Deliveries made again: what the replayer is made of."""
