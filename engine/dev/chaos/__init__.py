"""Trouble on purpose: kills, outages and bad receivers over a real stack, judged by independent books."""
