"""Stops the containers, whatever happens to the agent: rules G1 to G4 of section 4 of the design.

watch       what is armed, and when it is over; pure
lifeline    the messages between guard and agent
file        what outlives the guard, on tmpfs
kill        ends processes and control groups, without the engine
engine      has the engine end containers
rounds      both, again and again
system      memory, signals, log, watchdog: what a process needs that must not block
supervisor  starts the agent, listens to it, and kills when the time has come

The standard library alone, and no asyncio: it has to be small, and to run when nothing else does.
"""
