"""Making requests: what the dispatcher is made of."""
