"""Measurements, each a program that prints a table: `PYTHONPATH=. .venv/bin/python bench/X.py`."""
