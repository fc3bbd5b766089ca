"""Arbiters that are not this program. For a node they are like the witness: orders in, events out.

etcd     the register of `core.register`, kept by an etcd
gateway  how an etcd is asked over HTTP, and what its refusals mean for people
parse    what goes over the wire, and how an answer is read; pure
"""

from failover_agent.adapters.arbiters.etcd import EtcdArbiter
from failover_agent.adapters.arbiters.gateway import Access

__all__ = ["Access", "EtcdArbiter"]
