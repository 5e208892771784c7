"""The consumer groups, one a module, and the composition root."""
