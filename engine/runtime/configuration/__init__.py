"""What is known of endpoints, tenants and secrets."""
