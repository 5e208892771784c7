"""The dashboard: pages for people, made of the same functions as the routes under /v1."""
