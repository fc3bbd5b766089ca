"""Where the engine is, and what is shown to it: [docker], else the environment as docker has it.

DOCKER_HOST stands for docker.host; DOCKER_TLS_VERIFY (whatever it holds) for docker.tls_verify; and
DOCKER_CERT_PATH, else ~/.docker, for the folder of ca.pem, cert.pem and key.pem. TLS without a look
at the engine's certificate protects from nobody: there is none here.
"""

from __future__ import annotations

import os
from pathlib import Path

from failover_agent.config import values
from failover_agent.config.files import check_tls
from failover_agent.config.keys import DockerKeys, Keys
from failover_agent.config.mistakes import EXAMPLES, Source
from failover_agent.config.values import Unfit
from failover_agent.errors import ConfigError
from failover_agent.guard.engine import NO_FILES, TLS, TlsFiles

_FILES = ("ca_file", "cert_file", "key_file")
_OF_THE_FOLDER = ("ca.pem", "cert.pem", "key.pem")


def find_address(source: Source, keys: Keys) -> tuple[str, TlsFiles]:
    """The host, as unix://, tcp:// or with TLS https://, and the files for it.

    What contradicts itself goes to `source`.
    """
    docker = keys.docker
    host = docker.host or _host_of_environment(source)
    named = [name for name in _FILES if getattr(docker, name) is not None]
    _find_contradictions(source, docker, host, named)
    if host.startswith("unix:"):
        return host, NO_FILES
    wants_tls = docker.tls_verify
    if wants_tls is None:
        wants_tls = bool(named or host.startswith(TLS) or os.environ.get("DOCKER_TLS_VERIFY"))
    if not wants_tls:
        return host, NO_FILES
    folder = source.path.parent
    files = [getattr(docker, name) for name in _FILES]
    paths = [folder / it if it else None for it in files] if named else _files_of_environment()
    return TLS + host.partition("://")[2], TlsFiles(*(str(path or "") for path in paths))


def check_files(keys: Keys, files: TlsFiles) -> None:
    """Can they be used, and do they fit each other? Raises ConfigError."""
    docker = keys.docker
    is_named = any(getattr(docker, name) is not None for name in _FILES)
    check_tls(
        Path(files.ca_file) if files.ca_file else None,
        Path(files.cert_file) if files.cert_file else None,
        Path(files.key_file) if files.key_file else None,
        table="[docker]" if is_named else "DOCKER_CERT_PATH:",
    )


def _host_of_environment(source: Source) -> str:
    text = os.environ.get("DOCKER_HOST") or values.USUAL_DOCKER_HOST
    try:
        return values.check_docker_host(text)
    except Unfit as unfit:
        source.mistakes.append(
            ConfigError(where="environment", what=f"DOCKER_HOST {unfit.what}", todo=unfit.todo)
        )
        return values.USUAL_DOCKER_HOST


def _files_of_environment() -> list[Path | None]:
    """Those of DOCKER_CERT_PATH, all three; of ~/.docker the ones that are there."""
    chosen = os.environ.get("DOCKER_CERT_PATH")
    if chosen:
        return [Path(chosen) / name for name in _OF_THE_FOLDER]
    home = os.environ.get("HOME")
    if not home or not os.environ.get("DOCKER_TLS_VERIFY"):
        return [None] * len(_OF_THE_FOLDER)
    usual = [Path(home) / ".docker" / name for name in _OF_THE_FOLDER]
    return [path if path.exists() else None for path in usual]


def _find_contradictions(source: Source, docker: DockerKeys, host: str, named: list[str]) -> None:
    if not source.is_fine(*(("docker", name) for name in ("host", "tls_verify", *_FILES))):
        return
    of_tls = ["tls_verify", *named] if docker.tls_verify else named
    if of_tls and host.startswith("unix:"):
        source.add(
            ("docker", of_tls[0]),
            f"changes nothing: the engine is at {host}, a socket without TLS",
            'Take it out, or name an engine behind TLS: host = "https://HOST:2376".',
        )
    elif docker.tls_verify is False and (named or host.startswith(TLS)):
        what = f"{named[0]} is named" if named else f"the engine is at {host}"
        source.add(
            ("docker", "tls_verify"),
            f"(false) cannot be: {what}, and TLS that checks no certificate protects from nobody",
            "Take it out; ca_file names the authority that signed the engine's certificate.",
        )
    elif docker.key_file is not None and docker.cert_file is None:
        source.add(
            ("docker", "key_file"),
            "is the key of no certificate",
            f"Name the certificate too: cert_file = {EXAMPLES['cert_file']}",
        )
