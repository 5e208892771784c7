"""The benchmark: a paced publisher, a light receiver, and what the stack between them costs."""
