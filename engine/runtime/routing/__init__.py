"""What the router is made of."""
