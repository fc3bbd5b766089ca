"""The Docker Engine's HTTP API over its unix socket, in the few lines that a test needs.

Not the product's adapter: what is being tested must not be what tests it.
"""

import http.client
import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine said: the status, and the body as text, exactly as sent."""

    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("engine", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def call(
    engine_socket: Path, method: str, path: str, body: object = None, *, timeout_s: float = 30.0
) -> Answer:
    """One request. Raises OSError (TimeoutError among them) where the engine does not answer."""
    connection = _UnixConnection(engine_socket, timeout_s)
    try:
        if isinstance(body, bytes):
            connection.request(method, path, body, {"Content-Type": "application/x-tar"})
        elif body is not None:
            content = json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"})
        else:
            connection.request(method, path)
        response = connection.getresponse()
        return Answer(response.status, response.read().decode())
    except http.client.HTTPException as error:
        raise ConnectionError(f"the engine broke off {method} {path}: {error!r}") from error
    finally:
        connection.close()
