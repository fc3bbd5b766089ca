"""The composition root: builds a node or a witness from its settings, and runs it until it is over.

Everything that runs is a task of one TaskGroup: one that dies takes the process with it, loudly.
Started by its guard, as `python -m failover_agent.run`; without one no lease can be had.
"""
