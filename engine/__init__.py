"""hooklog's engine: pure rules, the ports they need, and the adapters behind the ports."""
