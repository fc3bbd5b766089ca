"""Plain functions; no mocks for the core."""
