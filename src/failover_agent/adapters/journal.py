"""The journal: why this node did what it did, in state_dir/journal.jsonl.

One JSON object a line for each step that changed something other than times: the state before, the
event and the moment, which are all that `step` needs to do it again, and what came of it. Written
beside the loop: a disk that is full or hangs loses lines, which are counted, and holds up nobody.
"""

import errno
import functools
import json
import logging
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import TypedDict

from failover_agent.adapters.clock import wall_text
from failover_agent.adapters.worker import Worker
from failover_agent.core.effects import (
    Exit,
    ManageRestartPolicy,
    RepairContainer,
    ReplyToOperator,
    StartContainers,
    StopContainers,
)
from failover_agent.core.events import Event
from failover_agent.core.plan import Step
from failover_agent.core.policy import Policy
from failover_agent.core.state import Durable, State
from failover_agent.protocol.codec import encode

NAME = "journal.jsonl"
OLD_FILES = 2
LARGEST_BYTES = 8_000_000
LINES_WAITING = 500
TRANSITIONS_KEPT = 1000
UNCOUNTED = frozenset({"counters", "beats", "beat_number", "newest_renewal"})
"""Fields that change with each beat, and tell nothing."""

WORTH_A_LINE = (
    StartContainers,
    RepairContainer,
    StopContainers,
    ManageRestartPolicy,
    ReplyToOperator,
    Exit,
)
"""Orders that are journaled even when the step changed nothing but times."""

log = logging.getLogger(__name__)

Transition = TypedDict(
    "Transition",
    {"from": str, "to": str, "reason": str, "term": int, "rule": str, "sentence": str},
)
"""A change of phase, as log, journal and history tell it."""


def transitions_of(step: Step) -> list[Transition]:
    """The changes of phase in a step, as they are told: it may pass through a phase."""
    return [
        {
            "from": change.before,
            "to": change.after,
            "reason": change.reason,
            "term": change.term,
            "rule": change.rule,
            "sentence": change.sentence,
        }
        for change in step.transitions
    ]


def alarms_between(before: State, after: State) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the alarms that this step opened, and of those that it closed."""
    if before.alarms is after.alarms:
        return (), ()
    return (
        tuple(sorted(after.alarms.keys() - before.alarms.keys())),
        tuple(sorted(before.alarms.keys() - after.alarms.keys())),
    )


class Journal:
    """Writes the journal, and remembers the transitions in it."""

    def __init__(
        self, state_dir: Path, *, wall: Callable[[], datetime], largest_bytes: int = LARGEST_BYTES
    ) -> None:
        self._path = state_dir / NAME
        self._wall = wall
        self._largest_bytes = largest_bytes
        self._worker = Worker("journal", limit=LINES_WAITING)
        self._recent: deque[dict[str, object]] = deque(maxlen=TRANSITIONS_KEPT)
        self._earlier: list[dict[str, object]] = []
        # Two threads count, each its own, so that no count is lost; `_told` of both were told of.
        self._refused = 0
        self._failed = 0
        self._told = 0
        self._worker.offer(self._read_earlier)

    def started(
        self, *, version: str, run_id: str, node_id: str, policy: Policy, now: float
    ) -> None:
        """The first line of a run: whose it is, and the settings by which it decides."""
        who = {"version": version, "run_id": run_id, "node_id": node_id}
        self._offer({"now": now}, lambda: {"started": {**who, "policy": encode(policy)}})

    def stepped(self, before: State, event: Event, now: float, after: Step) -> None:
        """A line, if the step changed something other than times. Encoded in the thread."""
        transitions = transitions_of(after)
        opened, closed = alarms_between(before, after.state)
        loud = any(isinstance(effect, WORTH_A_LINE) for effect in after.effects)
        if not transitions and not loud and same_but_for_times(before, after.state):
            return
        head: dict[str, object] = {"now": now}
        if transitions:
            head["transitions"] = transitions
            wall = wall_text(self._wall())
            self._recent.extend({"wall": wall, **transition} for transition in transitions)
        if opened or closed:
            head["alarms"] = {"opened": opened, "closed": closed}

        def rest() -> dict[str, object]:
            return {
                "rule": transitions[-1]["rule"] if transitions else None,
                "reason": after.state.reason,
                "event": encode(event),
                "effects": [encode(effect) for effect in after.effects],
                "before": encode(before),
            }

        self._offer(head, rest)

    def broke(self, before: State, event: Event, now: float, error: BaseException) -> None:
        """The program is wrong: keep what is needed to see why."""
        self._offer(
            {"now": now, "broke": repr(error)},
            lambda: {"event": encode(event), "before": encode(before)},
        )

    def history(self, limit: int) -> list[dict[str, object]]:
        """The last `limit` transitions, newest last; those of earlier runs too."""
        return [*self._earlier, *self._recent][-limit:] if limit > 0 else []

    def close(self, deadline_s: float) -> None:
        """Wait until what was journaled is written, but not for ever."""
        if not self._worker.drain(deadline_s):
            log.warning("journal", extra={"fields": {"sentence": "its last lines are lost"}})

    def _offer(self, head: dict[str, object], rest: Callable[[], dict[str, object]]) -> None:
        stamped = {"wall": wall_text(self._wall()), **head}
        if self._worker.offer(lambda: self._write({**stamped, **rest()})):
            return
        if self._lost == 0:
            _complain("the disk does not keep up")
        self._refused += 1

    @property
    def _lost(self) -> int:
        return self._refused + self._failed - self._told

    # --- in the thread ---------------------------------------------------------------------------

    def _read_earlier(self) -> None:
        self._earlier = read_history(self._path.parent, TRANSITIONS_KEPT)

    def _write(self, line: dict[str, object]) -> None:
        lost = self._lost
        if lost:
            line["lost_before"] = lost
        text = json.dumps(line, separators=(",", ":"), ensure_ascii=False)
        try:
            self._append(text.encode() + b"\n")
        except OSError as error:
            if lost == 0:
                _complain(str(error))
            self._failed += 1
            return
        if lost:
            self._told += lost
            sentence = f"the journal is written again; {lost} lines were lost"
            log.info("journal", extra={"fields": {"sentence": sentence}})

    def _append(self, line: bytes) -> None:
        """Opened for each line: so a file that was moved away is no trouble."""
        if self._size() + len(line) > self._largest_bytes:
            for number in range(OLD_FILES, 0, -1):
                older = _numbered(self._path, number - 1)
                if older.exists():
                    older.replace(_numbered(self._path, number))
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line  # The line before was cut off; this one is whole.
            written = os.write(file, line)
            if written < len(line):
                raise OSError(f"only {written} of {len(line)} bytes were written")
        finally:
            os.close(file)

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0


def read_history(state_dir: Path, limit: int) -> list[dict[str, object]]:
    """The last `limit` transitions on disk, newest last; none where there is no journal.

    A line that is cut off or damaged is passed over.
    """
    newest_first: list[dict[str, object]] = []
    for number in range(OLD_FILES + 1):
        if len(newest_first) >= limit:
            break
        newest_first += reversed(list(_transitions(_numbered(state_dir / NAME, number))))
    return newest_first[:limit][::-1]


def _complain(error: str) -> None:
    """Once for a whole gap."""
    sentence = "the journal cannot be written, its lines are lost; nothing else depends on it"
    log.warning("journal", extra={"fields": {"error": error, "sentence": sentence}})


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def _transitions(path: Path) -> Iterator[dict[str, object]]:
    try:
        lines = _tail(path).splitlines()
    except OSError:
        return
    for line in lines:
        if b'"transitions":' not in line:
            continue
        try:
            content = json.loads(line)
            told = [
                {"wall": content["wall"], **transition} for transition in content["transitions"]
            ]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        yield from filter(_is_told, told)


def _tail(path: Path) -> bytes:
    """As much as we ever write into one file, the end of it. Raises OSError."""
    # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        most = 2 * LARGEST_BYTES
        return os.pread(opened, most, max(0, status.st_size - most))
    finally:
        os.close(opened)


def _is_told(content: dict[str, object]) -> bool:
    """Is it one of ours, and not only similar?"""
    texts = {"wall", *Transition.__annotations__} - {"term"}
    return type(content.get("term")) is int and all(
        isinstance(content.get(name), str) for name in texts
    )


def same_but_for_times(one: object, other: object) -> bool:
    """Are the two alike in all but moments and lengths (what the core names `..._s`), counters,
    and numbers of beats?

    What is durable is compared to the last bit; a moment that comes or goes is a difference.
    """
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, Durable):
        return one == other
    if is_dataclass(one):
        for name in _compared(type(one)):  # type: ignore[arg-type]  # for mypy no class has a hash
            its, others = getattr(one, name), getattr(other, name)
            if its is not others and not _alike(name, its, others):
                return False
        return True
    if isinstance(one, Mapping):
        assert isinstance(other, Mapping)
        return one.keys() == other.keys() and all(
            same_but_for_times(value, other[key]) for key, value in one.items()
        )
    return one == other


@functools.cache
def _compared(kind: type) -> tuple[str, ...]:
    """The names of its fields, as far as they count."""
    return tuple(entry.name for entry in fields(kind) if entry.name not in UNCOUNTED)


def _alike(name: str, one: object, other: object) -> bool:
    if name.endswith("_s"):
        if isinstance(one, tuple) and isinstance(other, tuple):
            return len(one) == len(other)
        return (one is None) == (other is None)
    return same_but_for_times(one, other)
