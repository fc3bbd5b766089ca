"""`failover-agent init`: one configuration and one secret, the same for all hosts."""

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
# failover-agent: the same file on {hosts}; --role picks the table of the host.
# Every other setting, with its default: config.example.toml.

cluster = {cluster}
containers = {containers}  # in the order of their start; the same names on both hosts

[primary]  # {primary}
port = {port}
endpoint = {to_backup}  # the OTHER agent: the backup

[backup]  # {backup}
port = {port}
endpoint = {to_primary}  # the OTHER agent: the primary
{third_vote}
[security]
secret_file = "secret"  # beside this file; the same on {hosts}, for nobody else to read
"""

THIRD_VOTE = """
[arbiter]  # the third vote: with it, never two, not even when the wire between the nodes is cut
kind = "witness"
endpoint = {to_witness}

[witness]  # {witness}
port = {port}
"""

WITHOUT_WITNESS = """

Without a witness both hosts run the containers while the wire between them is cut. A third machine
(--witness) ends that; without one, partition_policy in config.example.toml has the choice."""


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

    primary = _checked("--primary", arguments.primary, values.check_host)
    backup = _checked("--backup", arguments.backup, values.check_host)
    cluster = _checked("--cluster", arguments.cluster, values.check_cluster)
    witness = None
    if arguments.witness is not None:
        witness = _checked("--witness", arguments.witness, values.check_host)
    _check_hosts(primary, backup, witness)
    names = [name.strip() for name in arguments.containers.split(",") if name.strip()]
    for name in names:
        _checked("--containers", name, values.check_container)
    if not names or len(set(names)) < len(names):
        raise ConfigError(
            where="--containers",
            what="it names a container twice" if names else "it names no container",
            todo="Write each once, in the order of their start: --containers db,web",
        )
    third_vote = ""
    if witness is not None:
        third_vote = THIRD_VOTE.format(witness=witness, to_witness=_endpoint(witness), port=PORT)
    return TEMPLATE.format(
        hosts=_hosts(arguments),
        cluster=json.dumps(cluster),
        containers=json.dumps(names),
        primary=primary,
        backup=backup,
        port=PORT,
        to_backup=_endpoint(backup),
        to_primary=_endpoint(primary),
        third_vote=third_vote,
    )


def _endpoint(host: str) -> str:
    from failover_agent.config import values

    return json.dumps(f"http://{values.Address(host, PORT)}")


def _hosts(arguments: argparse.Namespace) -> str:
    return "both hosts" if arguments.witness is None else "all three hosts"


def _check_hosts(primary: str, backup: str, witness: str | None) -> None:
    """Raises ConfigError unless they can be three."""
    from failover_agent.config import values

    options = {"--primary": primary, "--backup": backup}
    if witness is not None:
        options["--witness"] = witness
    seen: dict[str, str] = {}
    for option, host in options.items():
        if values.is_loopback(host):
            raise ConfigError(
                where=option,
                what=f"{host} is every host's own address, so a node would call itself",
                todo="Write the address at which the other hosts reach this one.",
            )
        if host.lower() in seen:
            wants = "A pair needs two hosts."
            if option == "--witness":
                wants = "The third vote must not die with a node: a witness needs a third host."
            raise ConfigError(
                where=option,
                what=f"it is the same host as {seen[host.lower()]} ({host})",
                todo=wants,
            )
        seen[host.lower()] = option


def _checked(option: str, text: str, check: Callable[[str], str]) -> str:
    from failover_agent.config.values import Unfit

    try:
        return check(text)
    except Unfit as unfit:
        raise ConfigError(where=option, what=unfit.what, todo=unfit.todo) from unfit


def _next_steps(arguments: argparse.Namespace, config_file: Path, secret_file: Path) -> str:
    config_file, secret_file = config_file.absolute(), secret_file.absolute()
    place = shlex.quote(f"{config_file.parent}/")
    files = f"{shlex.quote(str(config_file))} {shlex.quote(str(secret_file))}"
    others = [arguments.backup] + ([arguments.witness] if arguments.witness else [])
    copies = "\n".join(
        f"     ssh root@{host} mkdir -p {place}\n     scp -p {files} root@{_for_scp(host)}:{place}"
        for host in others
    )
    to_others = "the other host" if len(others) == 1 else "each of the other two hosts"
    nodes = "both hosts" if len(others) == 1 else "primary and backup"
    return f"""\
Written, the same for {_hosts(arguments)}:
  {config_file}
  {secret_file}  (mode 0600)

Next:
  1. Copy both files, with their modes, to {to_others}.
     From the primary:
{copies}
  2. Create the containers on {nodes}. Those that run on the
     primary already go on running.
{_start(arguments, config_file)}{"" if arguments.witness else WITHOUT_WITNESS}"""


def _for_scp(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _start(arguments: argparse.Namespace, config_file: Path) -> str:
    """How to go on: with systemd where its unit looks for the file, else by hand."""
    if config_file.parent == USUAL_DIR:
        return _start_with_systemd(arguments)
    where = f"--config {shlex.quote(str(config_file))}"
    by_hand = [
        f"""\
     On {host}, the {role}:
     failover-agent check --role {role} {where}
     failover-agent run --role {role} {where}"""
        for role, host in _by_role(arguments)
    ]
    return "\n".join(
        [
            "  3. Check and start, in this order:",
            *by_hand,
            f"     (The systemd units read {USUAL_DIR}/config.toml, and not this file.)",
            f"  4. See who is active: failover-agent status {where}",
        ]
    )


def _by_role(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """The witness first: with its answer the primary need not wait."""
    nodes = [("primary", arguments.primary), ("backup", arguments.backup)]
    return [("witness", arguments.witness), *nodes] if arguments.witness else nodes


def _start_with_systemd(arguments: argparse.Namespace) -> str:
    witness = f"""\
  3. On {arguments.witness}, the witness, which needs no Docker:
     failover-agent check --role witness
     systemctl enable --now failover-agent-witness    # in deploy/systemd/ too
"""
    first = 4 if arguments.witness else 3
    on_each = "On primary and backup" if arguments.witness else "On each host"
    return f"""\
{witness if arguments.witness else ""}\
  {first}. {on_each} say which it is, check, and start (here the primary):
     echo FAILOVER_AGENT_ROLE=primary > /etc/failover-agent/environment
     failover-agent check --role primary
     systemctl enable --now failover-agent    # its unit is in deploy/systemd/
     Until both agents run, check warns of a peer that does not answer.
  {first + 1}. See who is active: failover-agent status"""
