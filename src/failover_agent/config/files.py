"""What is read from disk: the file itself, and the secret that it names."""

from __future__ import annotations

import errno
import os
import re
import shlex
import stat
import tomllib
from pathlib import Path
from typing import Any

from failover_agent.errors import ConfigError, SecretError

LONGEST_FILE = 1_000_000
"""Bytes."""

SHORTEST_SECRET = 16
LONGEST_SECRET = 4096


class _NoFileError(OSError):
    """Something else has that name."""


def parse(path: Path) -> dict[str, Any]:
    """The file as TOML. Raises ConfigError."""
    try:
        content, _ = _read(path, LONGEST_FILE + 1)
    except FileNotFoundError as error:
        raise ConfigError(
            where=str(path),
            what="there is no such file",
            todo="Name yours with --config, or write one with `failover-agent init --primary HOST "
            "--backup HOST --containers NAME,NAME`.",
        ) from error
    except OSError as error:
        raise ConfigError(
            where=str(path),
            what=f"the file cannot be read ({error.strerror or error}{_permissions(path)})",
            todo=f"{_way_to_read(path, error)}, or name another one with --config.",
        ) from error
    if len(content) > LONGEST_FILE:
        raise ConfigError(
            where=str(path),
            what=f"the file has more than {LONGEST_FILE} bytes",
            todo="This is no configuration; name yours with --config.",
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            where=f"{path}, line {line}",
            what=f"the file is not UTF-8 (byte 0x{content[error.start]:02x})",
            todo="Save it as UTF-8.",
        ) from error
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _syntax_error(path, text, error) from error


def _read(path: Path, most: int) -> tuple[bytes, os.stat_result]:
    """The first `most` bytes of a regular file, and its status. Raises OSError.

    A directory, a pipe or a device is an error too: it might have no end, or never begin.
    """
    _refuse_no_file(path.stat())
    # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        _refuse_no_file(status)
        return file.read(most), status


def _refuse_no_file(status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
    raise _NoFileError(errno.EINVAL, f"it is {kind} and no file")


def _way_to_read(path: Path, error: OSError) -> str:
    """How to come to what cannot be read; the beginning of a sentence."""
    quoted = shlex.quote(str(path))
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "Run as its owner or as root"
    if error.errno == errno.ELOOP:
        return f"The links lead round in a circle: mend them (`namei -l {quoted}` shows each)"
    if error.errno == errno.EIO:
        return "Look at the disk (`dmesg`)"
    return "Name the file itself" if isinstance(error, _NoFileError) else "Mend the name"


_QUOTES = re.compile("[\u2018\u2019\u201c\u201d\u00ab\u00bb]")
"""Those of a word processor."""


def _syntax_error(path: Path, text: str, error: Exception) -> ConfigError:
    message, _, place = str(error).partition(" (at ")
    found = re.match(r"line (\d+), column (\d+)", place)
    lines = text.splitlines()
    number = int(found[1]) if found else len(lines)
    # Where something was never closed the last line is nothing but the last one of the file.
    line = lines[number - 1].strip() if found and 0 < number <= len(lines) else ""
    column = f", column {found[2]}" if found else ""
    todo = "Text stands in double quotes, lists in [ ], and no setting is given twice."
    if _QUOTES.search(line):
        todo = 'Its quotes are those of a word processor: write plain ones, ".'
    if any(word in line.lower() for word in ("secret", "password")):
        line = f"{re.split(r'[^A-Za-z_.]', line)[0]} ..."
    if line:
        todo = f"The line reads `{line[:60]}`. {todo}"
    return ConfigError(
        where=f"{path}, line {number}{column}",
        what=f"this is not TOML: {_in_words(message)}",
        todo=todo,
    )


def _in_words(message: str) -> str:
    """What tomllib says, without its own inner names."""
    if message == "Cannot overwrite a value":
        return "this setting is given twice"
    if message.startswith("Cannot declare ("):
        names = re.findall("'([^']+)'", message)
        return f"[{'.'.join(names)}] is there twice"
    return f"{message[:1].lower()}{message[1:]}"


def _permissions(path: Path) -> str:
    """Owner and mode, where they can be seen, and who asked."""
    try:
        status = path.stat()
    except OSError:
        return f"; this is uid {os.geteuid()}"
    return (
        f"; mode {stat.S_IMODE(status.st_mode):04o}, owner uid {status.st_uid}, this is uid "
        f"{os.geteuid()}"
    )


def making_of(path: Path) -> str:
    """The command that makes a secret."""
    return f"(umask 077; head -c 32 /dev/urandom | base64 > {shlex.quote(str(path))})"


def read_secret(path: Path) -> bytes:
    """The shared secret, without blanks and newlines around it. Raises SecretError."""
    make = making_of(path)
    # An editor may have left blank lines on one of the hosts.
    secret = _read_private(path, f"make it with {make}").strip()
    if len(secret) < SHORTEST_SECRET:
        raise SecretError(
            where=str(path),
            what=f"the secret has {len(secret)} bytes, and fewer than {SHORTEST_SECRET} "
            "can be guessed",
            todo=f"Make a new one with {make} and copy it to the other node.",
        )
    return secret


def read_password(path: Path) -> str:
    """The password of the arbiter, without the newline at its end. Raises SecretError."""
    password = _read_private(path, "write the password of [arbiter] username into it")
    try:
        text = password.decode()
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise SecretError(
            where=str(path),
            what="there is no text in it that could be a password",
            todo="Write the password of [arbiter] username into it, in UTF-8, on one line.",
        )
    return text


def _read_private(path: Path, making: str) -> bytes:
    """What only its owner may read, without the newline at its end; `making` says how to make it.

    Raises SecretError.
    """
    quoted = shlex.quote(str(path))
    try:
        content, status = _read(path, LONGEST_SECRET + 1)
    except FileNotFoundError as error:
        todo = "Copy it from the other node, with its mode. If neither has one, "
        todo += f"{making} and copy it there."
        if "~" in path.parts:
            todo = "Nobody's home is meant by ~ here: write the whole path."
        raise SecretError(
            where=str(path), what="there is no file with the secret", todo=todo
        ) from error
    except _NoFileError as error:
        raise SecretError(
            where=str(path),
            what=f"the secret cannot be read ({error.strerror})",
            todo="Name the file that it is in.",
        ) from error
    except OSError as error:
        raise SecretError(
            where=str(path),
            what=f"the secret cannot be read ({error.strerror or error}{_permissions(path)})",
            todo=f"{_way_to_read(path, error)}. `ls -l {quoted}` names its owner.",
        ) from error
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise SecretError(
            where=str(path),
            what="the secret is open to other users "
            f"(mode {stat.S_IMODE(status.st_mode):04o}, wanted 0600)",
            todo=f"chmod 600 {quoted}",
        )
    if len(content) > LONGEST_SECRET:
        raise SecretError(
            where=str(path),
            what=f"the secret is longer than {LONGEST_SECRET} bytes",
            todo="This is probably another file: name the one with the secret.",
        )
    return content.removesuffix(b"\n").removesuffix(b"\r")


def check_tls(
    ca_file: Path | None, cert_file: Path | None, key_file: Path | None, table: str = "[arbiter]"
) -> None:
    """Can the certificates be used, and do they fit each other? `table`: who names them.

    Raises ConfigError.
    """
    import ssl  # not every command that reads the configuration needs it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if ca_file is not None:
            context.load_verify_locations(ca_file)
    except (OSError, ValueError) as error:
        raise _unusable(f"{table} ca_file", ca_file, error) from error
    try:
        if cert_file is not None:
            # An empty passphrase: a key that has one would ask for it on the terminal.
            context.load_cert_chain(cert_file, key_file, password="")
    except (OSError, ValueError) as error:
        raise _unusable(f"{table} cert_file", cert_file, error, key_file) from error


def _unusable(
    name: str, path: Path | None, error: Exception, key_file: Path | None = None
) -> ConfigError:
    """Of a missing file ssl says no more than that it is missing, and not which."""
    missing = next((each for each in (path, key_file) if each and not _is_readable(each)), None)
    if missing is not None:
        name = name.replace("cert_file", "key_file") if missing == key_file else name
        problem = _why_not_readable(missing)
    else:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        problem = str(reason).replace("_", " ").lower()
    beside = f" with key_file {key_file}" if missing is None and key_file is not None else ""
    return ConfigError(
        where=f"{name} = {missing or path}{beside}",
        what=f"it cannot be used ({problem})" if missing is None else problem,
        todo="It is a file in PEM, readable for the agent; the key has no passphrase, and belongs "
        "to the certificate.",
    )


def _is_readable(path: Path) -> bool:
    return not _why_not_readable(path)


def _why_not_readable(path: Path) -> str:
    """Empty where it can be read."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except FileNotFoundError:
        return "there is no such file"
    except OSError as error:
        return f"it cannot be read ({error.strerror or error}{_permissions(path)})"
    return ""
