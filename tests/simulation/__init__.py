"""Whole clusters of the shipped core in virtual time, each from one seed."""
