"""The record: what must survive a crash, in state_dir/record.json.

Written whole to a temporary file, fsynced, renamed, and the directory fsynced: a crash leaves the
old record or the new one, never half of one. It is bound to cluster, role and machine. The boot id
in it is that of the boot in which `term` was granted, so that a restarted agent can tell whether
its containers can still be those of the term that it held.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from failover_agent.adapters.worker import Worker
from failover_agent.core.messages import LONGEST_LEASE_S
from failover_agent.core.policy import Role
from failover_agent.core.state import Durable, Holder
from failover_agent.errors import (
    ForeignRecordError,
    FutureRecordError,
    RecordError,
    UnreadableRecordError,
)

SCHEMA = 1
HIGHEST_TERM = 2**53
"""What every reader of JSON can tell apart."""
PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
NAME = "record.json"
LARGEST_BYTES = 100_000
"""A hundred times what is ever written."""
MACHINE_IDS = (Path("/etc/machine-id"), Path("/sys/class/dmi/id/product_uuid"))
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Host:
    """The machine and the boot we run in; empty where the system does not tell."""

    machine: str
    boot_id: str


@dataclass(frozen=True, slots=True)
class Record:
    """The content of the file."""

    cluster: str
    role: Role
    node_id: str
    host: Host
    durable: Durable


def read_host(machine_ids: tuple[Path, ...] = MACHINE_IDS, boot_id: Path = BOOT_ID) -> Host:
    """Who this machine is. Its id is hashed, as machine-id(5) asks of everyone who passes it on."""
    machine = next(filter(None, map(_line, machine_ids)), "")
    hashed = hashlib.sha256(f"failover-agent {machine}".encode()).hexdigest()[:32]
    return Host(machine=hashed if machine else "", boot_id=_line(boot_id))


def read_record(state_dir: Path) -> Record | None:
    """The record as it is on disk, for whoever only looks; None when there is none.

    Raises UnreadableRecordError or FutureRecordError.
    """
    path = state_dir / NAME
    try:
        text = _text(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        problem = error.strerror or str(error)
        raise UnreadableRecordError(path=path, problem=problem) from error
    except UnicodeDecodeError as error:
        raise UnreadableRecordError(path=path, problem="damaged: it is no text") from error
    if not text:
        raise UnreadableRecordError(path=path, problem="damaged: it is empty")
    try:
        return _decode(json.loads(text), path)
    except KeyError as error:
        problem = f"damaged: nothing stands under {error}"
        raise UnreadableRecordError(path=path, problem=problem) from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UnreadableRecordError(path=path, problem=f"damaged: {error}") from error


def _text(path: Path) -> str:
    """Raises OSError, also for what is no file or far too large; UnicodeDecodeError."""
    # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        content = os.read(opened, LARGEST_BYTES + 1)
    finally:
        os.close(opened)
    if len(content) > LARGEST_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {LARGEST_BYTES} bytes")
    return content.decode()


def _refuse_what_passes(error: UnreadableRecordError) -> None:
    """Too few file descriptors, or no memory, say nothing of the file: a good one is not lost (V4).

    Raises the OSError that it was.
    """
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno in PASSING:
        raise cause


class RecordStore:
    """The record of a running agent; nobody else uses `state_dir` meanwhile.

    `is_lost`: no grant is on record, because there was no record, or none that could be read, or
    one that never saw a grant; so one may have been lost (V4). `set_aside` is where an unreadable
    one went. `boot_is_new`: the host was started anew since the term on record was granted.
    """

    def __init__(
        self, path: Path, lock: int, record: Record, host: Host, deadline_s: float
    ) -> None:
        self.node_id = record.node_id
        self.durable = record.durable
        self.is_lost = record.durable.holder is None
        known = record.host.boot_id and host.boot_id
        self.boot_is_new = bool(known) and record.host.boot_id != host.boot_id
        self.set_aside: Path | None = None
        self._path = path
        self._lock = lock
        self._saved = record
        self._host = host
        self._deadline_s = deadline_s
        self._worker: Worker | None = None

    @classmethod
    def open(
        cls, state_dir: Path, *, cluster: str, role: Role, host: Host, deadline_s: float
    ) -> Self:
        """Lock `state_dir`, made when missing, and read the record, or begin one.

        An existing record need not be writable: a running service outlives a full disk. Raises
        ForeignRecordError, FutureRecordError, or RecordError for a directory that is in use or
        cannot be used.
        """
        path = state_dir / NAME
        lock = _lock(state_dir)
        try:
            set_aside = None
            try:
                record = read_record(state_dir)
            except UnreadableRecordError as error:
                _refuse_what_passes(error)
                record, set_aside = None, _set_aside(path)
            if record is None:
                record = Record(cluster, role, secrets.token_hex(8), host, Durable())
                _write(path, record)
            _refuse_foreign(path, record, cluster, role, host)
            store = cls(path, lock, record, host, deadline_s)
            store.set_aside = set_aside
            return store
        except OSError as error:
            os.close(lock)
            raise _unusable(state_dir, error) from error
        except RecordError:
            os.close(lock)
            raise

    async def save(self, durable: Durable) -> None:
        """On disk, fsynced, when this returns. Raises OSError; a TimeoutError is one.

        What timed out may still reach the disk, and nothing is saved before it has: so the disk is
        at most one save ahead of what was answered for, as after a crash.
        """
        new = replace(self._saved, durable=durable)
        if (durable.term, durable.holder) != (self._saved.durable.term, self._saved.durable.holder):
            new = replace(new, host=self._host)
        await self._beside(lambda: _write(self._path, new))
        self._saved = new

    async def probe(self) -> None:
        """Try whether a save would succeed, changing nothing. Raises OSError, as `save` does."""
        beside = self._path.with_suffix(".probe")
        content = _encode(self._saved)

        def write() -> None:
            _write_synced(beside, content)
            beside.unlink()

        await self._beside(write)

    async def _beside(self, job: Callable[[], None]) -> None:
        """In a thread that is made when it is first needed: a witness has many records."""
        self._worker = self._worker or Worker("record", limit=4)
        await self._worker.run(job, deadline_s=self._deadline_s)

    def close(self) -> None:
        """Let another agent have the directory."""
        os.close(self._lock)


def _line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _lock(state_dir: Path) -> int:
    """Hold the directory itself: that needs no file, and works on a full or read-only disk."""
    try:
        state_dir.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            state_dir.mkdir(mode=0o700)
        lock = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(state_dir, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise RecordError(
            where=str(state_dir),
            what="another agent uses this state_dir",
            todo=f"`fuser {state_dir}` names it: end it, or give each node a state_dir of its own.",
        ) from None
    except OSError as error:
        os.close(lock)
        raise _unusable(state_dir, error) from error
    return lock


def _unusable(state_dir: Path, error: OSError) -> RecordError:
    return RecordError(
        where=str(state_dir),
        what=f"this state_dir cannot be used ({error.strerror or error})",
        todo="It has to be a directory on a local disk that the user of the agent may write to; "
        "state_dir in the role's table of the configuration names another one.",
    )


def _set_aside(path: Path) -> Path:
    """Keep what cannot be read for whoever wants to know why, under the next free name."""
    number = 1
    while (aside := path.with_name(f"{NAME}.broken-{number}")).exists():
        number += 1
    path.rename(aside)
    return aside


def _refuse_foreign(path: Path, record: Record, cluster: str, role: Role, host: Host) -> None:
    if (record.cluster, record.role) != (cluster, role):
        raise ForeignRecordError(
            path=path,
            its=f"the {record.role} of cluster {record.cluster!r}",
            ours=f"the {role} of cluster {cluster!r}",
        )
    if record.host.machine and host.machine and record.host.machine != host.machine:
        raise ForeignRecordError(path=path, its="another machine", ours="not that one")


def _write(path: Path, record: Record) -> None:
    temporary = path.with_suffix(".new")
    _write_synced(temporary, _encode(record))
    temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write_synced(path: Path, content: str) -> None:
    """Raises OSError, and leaves nothing then: a full disk is not to be filled by us."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _encode(record: Record) -> str:
    """Spelled out, and not derived: this file outlives versions, so its form is a decision."""
    durable, holder = record.durable, record.durable.holder
    content = {
        "schema": SCHEMA,
        "cluster": record.cluster,
        "role": record.role,
        "node_id": record.node_id,
        "machine": record.host.machine,
        "boot_id": record.host.boot_id,
        "term": durable.term,
        "holder": None if holder is None else {"role": holder.role, "node_id": holder.node_id},
        "released": durable.released,
        "led": durable.led,
        "hold": durable.hold,
        "longest_lease_s": durable.longest_lease_s,
        "heard": sorted(durable.heard),
        "peer_fingerprint": durable.peer_fingerprint,
        "on_hold_for_flapping": durable.on_hold_for_flapping,
    }
    return json.dumps(content, indent=1) + "\n"


def _decode(content: dict[str, Any], path: Path) -> Record:
    """Raises FutureRecordError; ValueError, TypeError, KeyError or AttributeError for nonsense."""
    schema = _a(int, content["schema"])
    if schema < 1:
        raise ValueError(f"schema is {schema}")
    if schema > SCHEMA:
        raise FutureRecordError(path=path, schema=schema, known=SCHEMA)
    holder = content["holder"]
    return Record(
        cluster=_a(str, content["cluster"]),
        role=Role(content["role"]),
        node_id=_a(str, content["node_id"]),
        host=Host(machine=_a(str, content["machine"]), boot_id=_a(str, content["boot_id"])),
        durable=Durable(
            term=_term(content["term"]),
            holder=None if holder is None else _decode_holder(holder),
            released=_a(bool, content["released"]),
            led=_a(bool, content["led"]),
            hold=_a(bool, content["hold"]),
            longest_lease_s=_length_s(content["longest_lease_s"]),
            heard=frozenset(Role(role) for role in content["heard"]),
            peer_fingerprint=_a(str, content.get("peer_fingerprint", "")),
            on_hold_for_flapping=_a(bool, content["on_hold_for_flapping"]),
        ),
    )


def _decode_holder(content: dict[str, Any]) -> Holder:
    return Holder(Role(content["role"]), _a(str, content["node_id"]))


def _term(value: object) -> int:
    term = _a(int, value)
    if not 0 <= term <= HIGHEST_TERM:
        raise ValueError(f"term is {term}")
    return term


def _length_s(value: object) -> float:
    """Of a lease that was granted: others are refused before."""
    length_s = float(_a(int, value)) if type(value) is int else _a(float, value)
    if not 0 <= length_s <= LONGEST_LEASE_S:
        raise ValueError(f"longest_lease_s is {length_s:g}")
    return length_s


def _a(kind: type[T], value: object) -> T:
    """`value`, if it is of this very type: true is no term, and null no name."""
    if type(value) is not kind:
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
