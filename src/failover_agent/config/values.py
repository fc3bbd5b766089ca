"""What a single value of the configuration may look like.

A value that cannot be meant raises `Unfit`: what is wrong with it, as the rest of a sentence that
begins with the key, and the way out.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum, unique
from pathlib import Path
from urllib.parse import urlsplit

LONGEST_SOCKET_PATH = 107
"""Bytes: what Linux has room for in the address of a unix socket."""

USUAL_DOCKER_HOST = "unix:///var/run/docker.sock"

_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")
_CLUSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
LONGEST_HOST_NAME = 254
"""Letters, with a dot at its end."""


@unique
class ArbiterKind(StrEnum):
    """What the third voter is."""

    WITNESS = "witness"
    ETCD = "etcd"


USUAL_PORTS = {ArbiterKind.WITNESS: 8000, ArbiterKind.ETCD: 2379}


class Unfit(ValueError):  # noqa: N818 - it never leaves config.py, which makes a ConfigError of it
    """`what` completes a sentence that begins with the key; `todo` is one or more sentences."""

    def __init__(self, what: str, todo: str) -> None:
        super().__init__(what)
        self.what = what
        self.todo = todo


def shown(value: object) -> str:
    """A value as one would write it in TOML, cut to what fits in a sentence."""
    if isinstance(value, bool | str | list | tuple | dict) or value is None:
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, whatever its case."""
    by_lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def from_text(text: str, kinds: frozenset[type]) -> object:
    """A value of the environment as one of `kinds`; the text itself where it is none of them."""
    if tuple in kinds:
        if text.lstrip().startswith("["):
            try:
                listed: object = json.loads(text)
            except (ValueError, RecursionError):
                return text
            return listed
        return [part.strip() for part in text.split(",")] if text.strip() else []
    if bool in kinds:
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError:
                return text
    return text


# --- addresses ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens. `host` has no brackets; as text it has them where it needs them."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str, *, tls: bool = False, usual_port: int = 8000) -> Address:
    """The address in "http://HOST:PORT", with `tls` also in "https://...". Raises Unfit."""
    if "@" in text:
        scheme = text.partition("://")[0] if "://" in text else "http"
        plain = f"{scheme}://{re.split('[/?#,]', text.rpartition('@')[2])[0]}"
        raise Unfit(f"({_without_user(text)}) is more than an address", _no_more(plain))
    if text != text.strip() or not text.isprintable() or " " in text:
        raise Unfit(f"({shown(text)}) has blanks in it", 'Write it as "http://HOST:PORT".')
    if "," in text:
        each = [part if "://" in part else f"http://{part}" for part in text.split(",") if part]
        raise Unfit(f"({shown(text)}) is more than one address", f"Write a list: {shown(each)}.")
    if "://" not in text:
        host = re.sub(r"^https?:/?", "", text) or f"HOST:{usual_port}"
        raise Unfit(f"({shown(text)}) has no scheme", f'Write "http://{host}".')
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise _unfit_netloc(text, error) from error
    if parts.scheme == "https" and not tls:
        raise Unfit(
            f"({shown(text)}) asks for TLS, which is not in this version yet",
            f'Write "http{text[len("https") :]}"; the secret signs every message all the same.',
        )
    if parts.scheme not in {"http", "https"}:
        raise Unfit(
            f"({shown(text)}) has the scheme {parts.scheme}",
            'Agents speak HTTP: "http://HOST:PORT".',
        )
    if parts.path not in {"", "/"} or "?" in text or "#" in text:
        plain = f"{parts.scheme}://{parts.netloc}"
        raise Unfit(f"({shown(text)}) is more than an address", _no_more(plain))
    if parts.netloc.count(":") > 1 and "[" not in parts.netloc:
        raise _unfit_netloc(text, ValueError())
    host = parts.hostname or ""
    if not _is_host(host):
        problem = f"names {shown(host)}, which is no host name and no IP address"
        problem = problem if host else "names no host"
        raise Unfit(f"({shown(text)}) {problem}", 'Write it as "http://HOST:PORT".')
    if not port:
        fixed = f"{parts.scheme}://{Address(host, usual_port)}"
        raise Unfit(f"({shown(text)}) names no port", f'Write "{fixed}".')
    if is_unspecified(host):
        raise Unfit(
            f"({shown(text)}) is every address of a host and so nobody's",
            "Write the address at which this node reaches the other one.",
        )
    _refuse_unreachable(text, host)
    return Address(host, port)


def _without_user(text: str) -> str:
    """As `shown`; a password is nobody else's business, whatever there is in it."""
    return shown(re.sub(r"^(\w+://)?.*@", r"\1...@", text, flags=re.DOTALL))


def _no_more(plain: str) -> str:
    return f'Write "{plain}" and no more.'


def _refuse_unreachable(text: str, host: str) -> None:
    """Addresses that nobody can be called at from another host. Raises Unfit."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if address.is_multicast or str(address) == "255.255.255.255":
        raise Unfit(
            f"({shown(text)}) is the address of many hosts",
            "Write the address of the one that is meant.",
        )
    if address.version == 6 and address.is_link_local and not address.scope_id:
        raise Unfit(
            f"({shown(text)}) means something else on every wire (link-local)",
            "Give the hosts addresses of their own there, such as fd00::1 and fd00::2.",
        )


def check_arbiter_endpoint(text: str, kind: ArbiterKind | None) -> str:
    """Where an arbiter of `kind` (None: not known) listens, written in one way. Raises Unfit."""
    usual_port = USUAL_PORTS[kind or ArbiterKind.WITNESS]
    address = parse_endpoint(text, tls=kind is not ArbiterKind.WITNESS, usual_port=usual_port)
    return f"{urlsplit(text).scheme}://{address}"


def address_of(endpoint: str) -> Address:
    """The address in an endpoint that was checked before."""
    return parse_endpoint(endpoint, tls=True)


def _unfit_netloc(text: str, error: ValueError) -> Unfit:
    netloc = text.partition("://")[2].partition("/")[0]
    host, _, port = netloc.rpartition(":")
    for candidate, wanted in ((host, port), (netloc, "8000")):
        number = _port(wanted)
        if number and _is_ipv6(candidate):
            fixed = f"http://{Address(candidate, number)}"
            return Unfit(
                f"({shown(text)}) has an IPv6 address without brackets", f'Write "{fixed}".'
            )
    if "ort" in str(error):
        return Unfit(f"({shown(text)}) has no valid port", "A port is a number from 1 to 65535.")
    return Unfit(f"({shown(text)}) is not an address", 'Write it as "http://HOST:PORT".')


def check_host(text: str) -> str:
    """A host name or an address alone, for `bind` and for `init`. Raises Unfit."""
    if _is_host(text):
        return text
    scheme, separator, rest = text.partition("://")
    bare = (rest if separator else scheme).rstrip("/")
    if bare.startswith("[") and bare.endswith("]") and _is_ipv6(bare[1:-1]):
        raise Unfit(f"({shown(text)}) has brackets", f'Write "{bare[1:-1]}".')
    host, _, port = bare.rpartition(":")
    if host and _port(port) and _is_host(host.strip("[]")):
        what = "is a URL" if separator else "has a port"
        raise Unfit(f"({shown(text)}) {what}", f'Write "{host.strip("[]")}" alone.')
    if bare != text and _is_host(bare):
        raise Unfit(f"({shown(text)}) is a URL", f'Write "{bare}" alone.')
    raise Unfit(
        f"({shown(text)}) is neither a host name nor an IP address",
        'Write one such as "10.0.0.1", "fd00::1" or "host-a.example".',
    )


def is_own_address(endpoint: Address, bind: str, port: int) -> bool:
    """Would a message to `endpoint` certainly come back to who listens on `bind`:`port`?"""
    if endpoint.port != port:
        return False
    return endpoint.host == bind.lower() or (is_unspecified(bind) and is_loopback(endpoint.host))


def check_docker_host(text: str) -> str:
    """Where the engine listens: unix:///PATH, tcp://HOST:PORT, https://HOST:PORT. Raises Unfit."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        fixed = f"unix://{text}" if text.startswith("/") else USUAL_DOCKER_HOST
        raise Unfit(f"({shown(text)}) has no scheme", f'Write "{fixed}".')
    match scheme:
        case "unix" if rest.startswith("/") and rest != "/":
            return text
        case "unix":
            raise Unfit(
                f"({shown(text)}) needs the whole path of the socket",
                f'Write "{USUAL_DOCKER_HOST}", with three slashes.',
            )
        case "tcp" | "http" | "https":
            address = _address(rest.removesuffix("/"))
            if address is None:
                usual = "https://HOST:2376" if scheme == "https" else "tcp://HOST:2375"
                raise Unfit(f"({_without_user(text)}) needs a host and a port", f'Write "{usual}".')
            return f"https://{address}" if scheme == "https" else f"tcp://{address}"
        case "ssh":
            raise Unfit(
                f"({shown(text)}) goes through a login, which an agent cannot keep alive",
                f'An agent runs on the host of its engine: write "{USUAL_DOCKER_HOST}"; or '
                '"https://HOST:2376" for an engine with TLS.',
            )
        case _:
            raise Unfit(
                f"({shown(text)}) cannot be used: an agent speaks to the engine of its own host",
                f'Write "{USUAL_DOCKER_HOST}" or "tcp://HOST:2375", or leave it out.',
            )


def _address(netloc: str) -> Address | None:
    host, _, port = netloc.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    number = _port(port)
    if not number or not _is_host(bare) or (":" in bare and bare == host):
        return None
    return Address(bare, number)


def _port(text: str) -> int | None:
    is_number = text.isdecimal() and len(text) <= 5
    return int(text) if is_number and 1 <= int(text) <= 65535 else None


def _is_host(text: str) -> bool:
    if re.fullmatch(r"[0-9.]+", text):
        return _is_ipv4(text)
    return _is_ipv6(text) or (
        len(text) <= LONGEST_HOST_NAME and _HOST_NAME.fullmatch(text) is not None
    )


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def is_unspecified(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Does `host` mean, on every host, that host itself?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


# --- commands -------------------------------------------------------------------------------------


def split_command(line: str) -> tuple[str, ...]:
    """The words of a command line as a shell would split it, without one. Raises Unfit."""
    if line.lstrip().startswith("["):
        try:
            listed = json.loads(line)
        except (ValueError, RecursionError):
            listed = None
        if isinstance(listed, list) and all(isinstance(word, str) for word in listed):
            return tuple(listed)
    try:
        return tuple(shlex.split(line))
    except ValueError as error:
        raise Unfit(
            f"({shown(line)}) cannot be split into words ({str(error).lower()})",
            'Write it as a list: ["/usr/local/sbin/power-off", "host-b"].',
        ) from error


def check_command(words: tuple[str, ...]) -> tuple[str, ...]:
    """A program and its arguments; no words at all mean none. Raises Unfit."""
    if words and not words[0].strip():
        raise Unfit(
            f"({shown(words)}) names no program",
            'The first word is the program: ["/usr/local/sbin/power-off", "host-b"].',
        )
    if any("\0" in word for word in words):
        raise Unfit(f"({shown(words)}) has a zero byte in it", "Write plain words.")
    return words


# --- names and paths ------------------------------------------------------------------------------

AGENT = "failover-agent"
"""The name of an agent's container in compose.yaml, and the title of its image."""


def check_container(name: str) -> str:
    """A name that Docker would take for a container, and not for an agent's own. Raises Unfit."""
    if name.strip().removeprefix("/") == AGENT:
        raise Unfit(
            f"({shown(name)}) is the container that the agent itself runs in (compose.yaml)",
            "Leave it out: an agent that stopped it would stop itself.",
        )
    if _CONTAINER.fullmatch(name):
        return name
    if _CONTAINER.fullmatch(name.strip().removeprefix("/")):
        raise Unfit(
            f"({shown(name)}) has a blank or a slash around the name",
            f'Write "{name.strip().removeprefix("/")}".',
        )
    raise Unfit(
        f"({shown(name)}) is not a name that Docker gives to a container",
        "It has two characters or more: letters, digits, and after the first also _ . and -. "
        "`docker ps -a` shows it in the column NAMES.",
    )


def check_cluster(name: str) -> str:
    """A name that can be part of a file's name. Raises Unfit."""
    if _CLUSTER.fullmatch(name):
        return name
    raise Unfit(
        f"({shown(name)}) is part of file names",
        "Use 1 to 63 letters, digits, and after the first also _ . and -.",
    )


def check_file(path: Path) -> Path:
    """A path. Raises Unfit."""
    if not str(path).isprintable():
        raise Unfit(f"({shown(str(path))}) has control characters in it", "Write a plain path.")
    return path


def check_path(path: Path) -> Path:
    """An absolute path. Raises Unfit."""
    if not check_file(path).is_absolute():
        raise Unfit(
            f"({shown(str(path))}) depends on where the agent is started",
            "Write the whole path, beginning with a slash.",
        )
    return path


def check_socket_path(path: Path) -> Path:
    """An absolute path that the kernel takes for a socket. Raises Unfit."""
    length = len(os.fsencode(check_path(path)))
    if length > LONGEST_SOCKET_PATH:
        raise Unfit(
            f"({shown(str(path))}) has {length} bytes, and the path of a socket has room for "
            f"{LONGEST_SOCKET_PATH}",
            "Choose a shorter one.",
        )
    return path
