"""DECIDES. Pure: standard library only; no await, no clock, no logging, no randomness."""
