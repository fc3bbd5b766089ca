"""LISTENS. Parse, ask, answer; it is handed what it asks, and knows nothing else."""
