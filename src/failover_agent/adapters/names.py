"""The addresses of host names, looked up in the background.

No message waits for DNS, which may be one of the containers: the last good addresses are used until
there are new ones. Only before the first ones are known does a message wait, within its deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterable

from aiohttp.abc import AbstractResolver, ResolveResult

from failover_agent.adapters.worker import Worker

LOOK_UP_S = 10.0
REFRESH_S = 30.0
RETRY_S = (1.0, 2.0, 5.0, 10.0)

log = logging.getLogger(__name__)

Addresses = tuple[tuple[socket.AddressFamily, str], ...]
LookUp = Callable[[str], Addresses]


def look_up(host: str) -> Addresses:
    """Ask the system; blocks. Raises OSError, or UnicodeError for what is no name at all."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


class Name:
    """One host name."""

    def __init__(self, host: str, ask: LookUp) -> None:
        self.host = host
        self.addresses: Addresses = ()
        self.error = ""
        self._ask = ask
        self._worker: Worker | None = None
        self._looked = asyncio.Event()
        self._wanted = asyncio.Event()

    async def refresh(self) -> bool:
        """Look it up. False: that failed, `error` says why, and the addresses are as before."""
        self._worker = self._worker or Worker(f"name {self.host}", limit=1)
        try:
            self.addresses = await self._worker.run(
                lambda: self._ask(self.host), deadline_s=LOOK_UP_S
            )
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "no answer in time"
            self.error = f"{self.host} does not resolve: {reason}"
            return False
        finally:
            self._looked.set()
        self.error = ""
        return True

    async def known(self) -> Addresses:
        """The last good addresses. Raises OSError where there are none, after the first look."""
        await self._looked.wait()
        if not self.addresses:
            raise OSError(self.error)
        return self.addresses

    def doubt(self) -> None:
        """Nobody could be reached there: look again before it is due."""
        self._wanted.set()

    async def keep(self, lost: Callable[[str], None]) -> None:
        """Look it up again and again; `lost` is told each time that there is no address at all."""
        failures = 0
        while True:
            if await self.refresh():
                if failures:
                    _tell(logging.INFO, f"{self.host} resolves again")
                failures, rest_s = 0, REFRESH_S
            else:
                if not failures and self.addresses:
                    last = ", ".join(address for _, address in self.addresses)
                    _tell(logging.WARNING, f"{self.error}; the last good address is used: {last}")
                rest_s = RETRY_S[min(failures, len(RETRY_S) - 1)]
                failures += 1
                if not self.addresses:
                    lost(self.error)
            await asyncio.sleep(RETRY_S[0])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest_s - RETRY_S[0]):
                    await self._wanted.wait()
            self._wanted.clear()


def name_of(host: str, ask: LookUp) -> Name | None:
    """None for an address: there is nothing to look up."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return Name(host, ask)
    return None


def _tell(level: int, sentence: str) -> None:
    log.log(level, "name", extra={"fields": {"sentence": sentence}})


class Names(AbstractResolver):
    """What aiohttp asks for the address of a host; it answers from memory."""

    def __init__(self, names: Iterable[Name]) -> None:
        self._names = {name.host: name for name in names}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError where the name never had an address."""
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=of_family,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for of_family, address in await self._names[host].known()
            if family in (socket.AF_UNSPEC, of_family)
        ]

    async def close(self) -> None:
        """There is nothing to close."""
