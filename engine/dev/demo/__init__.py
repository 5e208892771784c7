"""Messages all the way to receivers, judged by code that shares nothing with the product."""
