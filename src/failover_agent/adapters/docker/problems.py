"""Why the engine cannot be reached, or does not do what it is asked: for people, with the way out.

What aiodocker raises hides what is below it: so the chain of causes is looked through.
"""

import errno
import re
import socket
import ssl
from collections.abc import Iterator

import aiodocker
import aiohttp

PROBLEMS = {
    errno.ENOENT: "there is no such socket: Docker is not installed, or not running",
    errno.EACCES: "no permission to use it: run as root, or as a member of the group docker",
    errno.ECONNREFUSED: "it is not running: docker.host was tried, and nobody listens there",
    errno.EHOSTUNREACH: "no way leads to that host: is docker.host the right one, and up?",
    errno.ENETUNREACH: "no way leads to that host: is docker.host the right one, and up?",
}

GATEWAY_STATUSES = (502, 503, 504)
"""A proxy's word that the engine behind it does not answer."""

NO_TLS_THERE = (
    "it speaks no TLS there: is it the port of an engine without (tcp:// and mostly 2375), or is no"
    " engine there?"
)
TLS_WANTED = (
    "it speaks only TLS there: set docker.tls_verify = true, and docker.ca_file, cert_file and"
    " key_file"
)
CERTIFICATE_WANTED = (
    "it wants a certificate of ours: docker.cert_file and key_file, signed by the authority of its"
    " tlscacert"
)

# Codes of X.509 verification, as OpenSSL counts.
_NOT_YET_VALID, _EXPIRED, _OTHER_HOST, _OTHER_ADDRESS = 9, 10, 62, 64

_REASONS = {
    "WRONG_VERSION_NUMBER": NO_TLS_THERE,
    "RECORD_LAYER_FAILURE": NO_TLS_THERE,
    "UNEXPECTED_EOF_WHILE_READING": NO_TLS_THERE,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": CERTIFICATE_WANTED,
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust the certificate that we show (docker.cert_file):"
    " its tlscacert has to be the authority that signed it",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it takes exception to the certificate that we show"
    " (docker.cert_file): its authority, its dates, or that it is none for clients",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the certificate that we show has expired: renew"
    " docker.cert_file",
}

PERMISSIONS = (
    ("GET", r"/version", "VERSION=1"),
    ("GET", r"/info", "INFO=1"),
    ("GET", r"/events", "EVENTS=1"),
    ("GET", r"/containers/.*json", "CONTAINERS=1"),
    ("POST", r"/containers/[^/]+/start", "POST=1, and CONTAINERS=1 or ALLOW_START=1"),
    ("POST", r"/containers/[^/]+/stop", "POST=1, and CONTAINERS=1 or ALLOW_STOP=1"),
    ("POST", r"/containers/[^/]+/kill", "POST=1, and CONTAINERS=1 or ALLOW_RESTARTS=1"),
    ("POST", r"/containers/[^/]+/(unpause|update)", "POST=1 and CONTAINERS=1"),
)
"""What the agent asks for, and how docker-socket-proxy is told to let it."""


def denied(method: str, path: str, words: str) -> str:
    """A 403: engines have none of their own, but for what they ask a plugin.

    `words` is what came with it: a proxy's page, or the engine's sentence.
    """
    request = f"{method} {re.sub(r'^/v[0-9.]+(?=/)', '', path)}"
    if "plugin" in words:
        return f"the engine's authorization plugin denies {request}: {words.strip()}"
    _, _, bare = request.partition(" ")
    for wanted, pattern, needed in PERMISSIONS:
        if method == wanted and re.fullmatch(pattern, bare):
            way_out = f"docker-socket-proxy needs {needed}"
            return f"a proxy in front of the engine denies {request}: {way_out}"
    return f"a proxy in front of the engine denies {request}"


def problem(error: BaseException, *, shows_certificate: bool) -> str:
    """Why nobody answered. `shows_certificate`: we have one to show."""
    for below in _chain(error):
        # Some of aiohttp's are of both kinds, and know nothing of what is in the one below.
        if isinstance(below, ssl.SSLError) and not isinstance(below, aiohttp.ClientError):
            return _of_tls(below, shows_certificate)
        if isinstance(below, socket.gaierror):
            return f"the name in docker.host is not known ({below.strerror or below})"
        if isinstance(below, OSError) and below.errno in PROBLEMS:
            return PROBLEMS[below.errno]
    if isinstance(error, aiodocker.DockerError) and error.status in GATEWAY_STATUSES:
        return f"a proxy in front of the engine cannot reach it (status {error.status})"
    if isinstance(error, aiodocker.DockerError) and error.status < 900:
        words = error.message.strip()
        return TLS_WANTED if wants_tls(error) else words
    return f"the connection broke off ({error})"


def wants_tls(error: aiodocker.DockerError) -> bool:
    """What a server in Go says to plain HTTP on a port with TLS."""
    return error.status == 400 and "HTTP request to an HTTPS server" in error.message


def _of_tls(error: ssl.SSLError, shows_certificate: bool) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        match error.verify_code:
            case code if code == _EXPIRED:
                return "the engine's certificate has expired: make it a new one, and restart it"
            case code if code == _NOT_YET_VALID:
                return "the engine's certificate is not valid yet: is this host's clock right?"
            case code if code in {_OTHER_HOST, _OTHER_ADDRESS}:
                return (
                    f"the engine's certificate is for another host ({why}): docker.host has to be"
                    " one of its names (subjectAltName)"
                )
            case _:
                return (
                    f"the engine's certificate is not one to trust ({why}): docker.ca_file has to"
                    " be the authority that signed it"
                )
    reason = error.reason or ""
    if reason == "SSLV3_ALERT_BAD_CERTIFICATE" and not shows_certificate:
        return CERTIFICATE_WANTED  # so do engines before 24 ask for one
    return _REASONS.get(reason) or f"no TLS with the engine ({_in_words(reason or str(error))})"


def _in_words(reason: str) -> str:
    return reason.lower().replace("_", " ")


def _chain(error: BaseException) -> Iterator[BaseException]:
    below: BaseException | None = error
    while below is not None:
        yield below
        below = below.__cause__ or below.__context__
