"""`failover-agent init`: one configuration and one secret, the same for both hosts."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
from collections.abc import Callable
from pathlib import Path

from failover_agent.cli import output
from failover_agent.errors import ConfigError, ExitCode, FailoverAgentError

PORT = 8000
USUAL_DIR = Path("/etc/failover-agent")

TEMPLATE = """\
# failover-agent: the same file on both hosts; --role picks the table of the host.
# Every other setting, with its default: config.example.toml.

cluster = {cluster}
containers = {containers}  # in the order of their start; the same names on both hosts

[primary]  # {primary}
port = {port}
endpoint = {to_backup}  # the OTHER agent: the backup

[backup]  # {backup}
port = {port}
endpoint = {to_primary}  # the OTHER agent: the primary

[security]
secret_file = "secret"  # beside this file; the same on both hosts, for nobody else to read
"""


def main(arguments: argparse.Namespace) -> int:
    """Writes both files or neither, and overwrites nothing."""
    text = _configuration(arguments)
    directory: Path = arguments.dir
    config_file, secret_file = directory / "config.toml", directory / "secret"
    for path in (config_file, secret_file):
        if path.is_symlink() or path.exists():
            raise FailoverAgentError(
                where=str(path),
                what="this file exists already, and init overwrites nothing: neither file was "
                "written",
                todo="Move it away, or choose another place with --dir.",
            )
    written: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path, content, mode in (
            (secret_file, f"{secrets.token_urlsafe(48)}\n", 0o600),
            (config_file, text, 0o644),
        ):
            _create(path, content, mode, written)
    except OSError as error:
        for path in written:
            path.unlink()
        raise FailoverAgentError(
            where=str(error.filename or directory),
            what=f"nothing was written here ({error.strerror or error})",
            todo="Run it as root, or choose another place with --dir.",
        ) from error
    output.say(_next_steps(arguments, config_file, secret_file))
    return ExitCode.FINE


def _create(path: Path, content: str, mode: int, written: list[Path]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    written.append(path)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)


def _configuration(arguments: argparse.Namespace) -> str:
    """The file. Raises ConfigError for an argument that cannot be meant."""
    from failover_agent.config import values

    if arguments.witness is not None:
        raise ConfigError(
            where="--witness",
            what="a witness is not in this version yet",
            todo="Leave it out: the pair runs without a third voter.",
        )
    primary = _checked("--primary", arguments.primary, values.check_host)
    backup = _checked("--backup", arguments.backup, values.check_host)
    cluster = _checked("--cluster", arguments.cluster, values.check_cluster)
    if primary.lower() == backup.lower():
        raise ConfigError(
            where="--backup",
            what=f"it is the same host as --primary ({primary})",
            todo="A pair needs two hosts.",
        )
    for option, host in (("--primary", primary), ("--backup", backup)):
        if values.is_loopback(host):
            raise ConfigError(
                where=option,
                what=f"{host} is every host's own address, so a node would call itself",
                todo="Write the address at which the other host reaches this one.",
            )
    names = [name.strip() for name in arguments.containers.split(",") if name.strip()]
    for name in names:
        _checked("--containers", name, values.check_container)
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            where="--containers",
            what="it names a container twice" if names else "it names no container",
            todo="Write each once, in the order of their start: --containers db,web",
        )
    return TEMPLATE.format(
        cluster=json.dumps(cluster),
        containers=json.dumps(names),
        primary=primary,
        backup=backup,
        port=PORT,
        to_backup=json.dumps(f"http://{values.Address(backup, PORT)}"),
        to_primary=json.dumps(f"http://{values.Address(primary, PORT)}"),
    )


def _checked(option: str, text: str, check: Callable[[str], str]) -> str:
    from failover_agent.config.values import Unfit

    try:
        return check(text)
    except Unfit as unfit:
        raise ConfigError(where=option, what=unfit.what, todo=unfit.todo) from unfit


def _next_steps(arguments: argparse.Namespace, config_file: Path, secret_file: Path) -> str:
    config_file, secret_file = config_file.absolute(), secret_file.absolute()
    directory = config_file.parent
    host = f"[{arguments.backup}]" if ":" in arguments.backup else arguments.backup
    place = shlex.quote(f"{directory}/")
    return f"""\
Written, the same for both hosts:
  {config_file}
  {secret_file}  (mode 0600)

Next:
  1. Copy both files to the other host, with their modes. From the primary:
     ssh root@{arguments.backup} mkdir -p {place}
     scp -p {shlex.quote(str(config_file))} {shlex.quote(str(secret_file))} root@{host}:{place}
  2. Create the containers on both hosts. Those that run on the primary already
     go on running.
{_start(arguments, config_file)}"""


def _start(arguments: argparse.Namespace, config_file: Path) -> str:
    """How to go on: with systemd where its unit looks for the file, else by hand."""
    if config_file.parent == USUAL_DIR:
        return """\
  3. On each host say which it is (primary, or backup), check, and start:
     echo FAILOVER_AGENT_ROLE=primary > /etc/failover-agent/environment
     failover-agent check --role primary
     systemctl enable --now failover-agent    # its unit is in deploy/systemd/
     Until both agents run, check warns of a peer that does not answer.
  4. See who is active: failover-agent status"""
    where = f"--config {shlex.quote(str(config_file))}"
    return f"""\
  3. On {arguments.primary}, the primary, check and start:
     failover-agent check --role primary {where}
     failover-agent run --role primary {where}
     On {arguments.backup}, the backup:
     failover-agent check --role backup {where}
     failover-agent run --role backup {where}
     (The systemd unit reads {USUAL_DIR}/config.toml, and not this file.)
  4. See who is active: failover-agent status {where}"""
