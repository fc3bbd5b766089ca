"""Ports of loopback that nobody listened on a moment ago."""

import socket
from contextlib import ExitStack


def free_ports(count: int) -> list[int]:
    """All different: each is kept until the last one is found."""
    with ExitStack() as stack:
        kept = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in kept:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in kept]
