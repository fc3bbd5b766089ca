"""The Docker Engine of this host: events out, effects in.

client     the calls, and how they fail; the only module that knows aiodocker
parse      the engine's JSON, understood; pure
processes  is a container's process alive, without the engine
sights     what is known of each container, and what the core was told
watch      the stream, and the slow list behind it
lane       start, repair, stop, and Docker's own restart policy
"""

from failover_agent.adapters.docker.engine import DockerEngine, EngineReport
from failover_agent.adapters.docker.watch import Clock, Timing

__all__ = ["Clock", "DockerEngine", "EngineReport", "Timing"]
