"""Explores the shipped core with the operator's own timings: every history within stated bounds."""
