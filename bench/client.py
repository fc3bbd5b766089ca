"""Who uses the service, from a third host: when it answers first, and when it falls silent."""

import ctypes
import os
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.host import CLONE_NEWNET, Host
from tests.lab.truth import now_s

PAUSE_S = 0.002
"""Between two attempts."""

LIMIT_S = 60.0
PATIENCE_S = 0.5
"""For one attempt."""


class Client:
    """Asks from inside a host's network, in threads of its own."""

    def __init__(self, host: Host) -> None:
        self._pid = host.pid
        self._threads = ThreadPoolExecutor(max_workers=4, initializer=self._enter)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    def first_answer(self, address: str, port: int) -> "Future[float]":
        """The moment (CLOCK_BOOTTIME) at which a GET was answered with 200; asks every 2 ms."""
        return self._threads.submit(_first_answer, address, port)

    def silence(self, address: str, port: int) -> "Future[float]":
        """The moment at which a connection, open when this returns, was closed by the other end."""
        opened: Future[None] = Future()
        closed = self._threads.submit(_silence, address, port, opened)
        opened.result(LIMIT_S)
        return closed

    def _enter(self) -> None:
        """A thread's own network; its sockets stay in it."""
        with Path(f"/proc/{self._pid}/ns/net").open("rb") as network:
            if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _first_answer(address: str, port: int) -> float:
    end_s = now_s() + LIMIT_S
    while now_s() < end_s:
        try:
            with socket.create_connection((address, port), timeout=PATIENCE_S) as line:
                line.sendall(b"GET / HTTP/1.0\r\n\r\n")
                if b" 200 " in line.recv(64):
                    return now_s()
        except OSError:
            pass
        time.sleep(PAUSE_S)
    raise TimeoutError(f"nobody answers at {address}:{port}")


def _silence(address: str, port: int, opened: "Future[None]") -> float:
    try:
        line = socket.create_connection((address, port), timeout=PATIENCE_S)
    except OSError as error:
        opened.set_exception(error)
        raise
    with line:
        line.settimeout(LIMIT_S)
        opened.set_result(None)
        with suppress(ConnectionResetError):
            line.recv(1)
        return now_s()
