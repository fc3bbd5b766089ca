"""A socket proxy, as people put it before an engine: a real haproxy, whose rules are variables.

The rules are those of docker-socket-proxy, and so are the names of its variables: first whatever is
no GET is denied without POST=1, then each part of the API is let through by a variable of its own.
With `orders_first` the ALLOW_ rules come before that, as in the proxy of the same name by others.
"""

from collections.abc import Mapping
from pathlib import Path

DEFAULTS: Mapping[str, int] = {"EVENTS": 1, "PING": 1, "VERSION": 1}
"""What it lets through when nothing is said."""

NEEDED: Mapping[str, int] = {**DEFAULTS, "INFO": 1, "CONTAINERS": 1, "POST": 1}
"""What the agent needs."""

_API = r"^(/v[0-9.]+)?/"
_ORDERS = {
    "ALLOW_START": "containers/[^/]+/start",
    "ALLOW_STOP": "containers/[^/]+/stop",
    "ALLOW_RESTARTS": "containers/[^/]+/(stop|restart|kill)",
}
_PARTS = {
    "CONTAINERS": "containers",
    "EVENTS": "events",
    "INFO": "info",
    "PING": "_ping",
    "VERSION": "version",
}


def configuration(
    listen: Path, engine: Path, *, orders_first: bool = False, idle_s: float = 600.0
) -> str:
    """For haproxy. `idle_s`: a connection on which nothing is said for so long is cut."""
    deny = "http-request deny unless METH_GET || { env(POST) -m bool }"
    orders = [_allow(variable, path) for variable, path in _ORDERS.items()]
    idle = f"{idle_s * 1000:g}ms"
    return "\n".join(
        [
            "defaults",
            "  mode http",
            "  timeout connect 10s",
            f"  timeout client {idle}",
            f"  timeout server {idle}",
            "backend engine",
            f"  server engine unix@{engine}",
            "frontend proxy",
            f"  bind unix@{listen} mode 666",
            *(f"  {rule}" for rule in ([*orders, deny] if orders_first else [deny, *orders])),
            *(f"  {_allow(variable, path)}" for variable, path in _PARTS.items()),
            "  http-request deny",
            "  default_backend engine",
            "",
        ]
    )


def environment(permissions: Mapping[str, int]) -> dict[str, str]:
    """Of the proxy: what is not named is denied."""
    return {name: str(value) for name, value in permissions.items()}


def _allow(variable: str, path: str) -> str:
    return f"http-request allow if {{ path -m reg {_API}{path} }} {{ env({variable}) -m bool }}"
