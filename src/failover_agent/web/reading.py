"""Who may read, and how a load balancer or a supervisor is told yes or no."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from aiohttp import web

from failover_agent.web.context import ReadAccess, answer, error


class Readers:
    """Those who may read by `access` (security.read_access). `is_reader` judges their token."""

    def __init__(self, access: ReadAccess, is_reader: Callable[[str], bool]) -> None:
        self._access = access
        self._is_reader = is_reader

    def may_read(self, http: web.Request) -> bool:
        """May whoever asks this read?"""
        match self._access:
            case "open":
                return True
            case "local":
                return _is_local(http)
            case "secret":
                scheme, _, token = http.headers.get("Authorization", "").partition(" ")
                return scheme.lower() == "bearer" and self._is_reader(token.strip())

    def forbidden(self) -> web.Response:
        """The answer to one who may not."""
        if self._access == "local":
            return error(403, "local_only", "Only this host may read (security.read_access).")
        refusal = error(401, "token_needed", "Reading needs a token (security.read_access).")
        refusal.headers["WWW-Authenticate"] = "Bearer"
        return refusal

    def verdict(self, http: web.Request, because: Sequence[str]) -> web.Response:
        """200, or 503 with the reasons: the code is for everybody, they are for readers."""
        told = list(because) if self.may_read(http) else []
        return answer({"ok": not because, "because": told}, 503 if because else 200)


def _is_local(http: web.Request) -> bool:
    """Does it come from a loopback address?"""
    try:
        address = ipaddress.ip_address((http.remote or "").partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
