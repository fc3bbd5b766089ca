"""A port of this machine that leads to one inside a host of the lab."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.lab.host import Host

CHUNK = 65536


class _Gate(socketserver.ThreadingTCPServer):
    """Each connection on a thread of its own, which ends with it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: Host, port: int) -> None:
        self._host = host
        self._port = port
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)

    def finish_request(self, request: object, client_address: object) -> None:
        """Both ways, until one side has ended."""
        del client_address
        assert isinstance(request, socket.socket)
        with suppress(OSError), self._host.open_socket() as inner:
            inner.connect((self._host.address, self._port))
            back = threading.Thread(target=_pump, args=(inner, request), daemon=True)
            back.start()
            _pump(request, inner)
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(CHUNK):
            sink.sendall(chunk)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def gate(host: Host, port: int) -> Iterator[int]:
    """Gives the port at 127.0.0.1 that leads to `port` at the address of `host`."""
    with _Gate(host, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            number: int = server.server_address[1]
            yield number
        finally:
            server.shutdown()
            thread.join()
