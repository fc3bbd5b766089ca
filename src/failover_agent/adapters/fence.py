"""fence_command: the program that makes sure that the peer cannot run the service.

It runs without a shell, in a session of its own, and only exit status 0 in time counts as success;
one that is late is killed with all that it started and did not detach.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from failover_agent.core.effects import RunFence
from failover_agent.core.events import Event, FenceFinished
from failover_agent.core.policy import Role

MOST_LINES = 100
"""So much of what a run prints goes to the log."""
LONGEST_LINE = 300
"""Characters, in log and error."""
LAST_WORDS_S = 0.5
"""How long what was printed may take to arrive after the end; a program left behind keeps the pipe
open for ever."""
DEAD_S = 5.0
"""A killed program that is not gone by then hangs in the kernel, and is left to it."""

_OURS = ("FAILOVER_AGENT_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_")
"""What is meant for the agent alone; its settings may hold the secret."""

log = logging.getLogger(__name__)


class Fence:
    """`command` must succeed within `timeout_s`; `hosts`: where each other node is reached.

    `environ` is the agent's; the command gets it without what is the agent's own, and with the
    cluster, roles, host, term and reason in variables of its own. `post` is told one FenceFinished
    for each order.
    """

    def __init__(
        self,
        command: tuple[str, ...],
        timeout_s: float,
        *,
        cluster: str,
        me: Role,
        hosts: Mapping[Role, str],
        post: Callable[[Event], object],
        environ: Mapping[str, str],
    ) -> None:
        self._command = command
        self._timeout_s = timeout_s
        self._cluster = cluster
        self._me = me
        self._hosts = hosts
        self._post = post
        self._environ = {k: v for k, v in environ.items() if not k.startswith(_OURS)}

    async def perform(self, effect: RunFence) -> None:
        """Run it, and post what came of it. Cancelled, it is killed, and nothing is posted."""
        error = await self._run(effect)
        fields = {"term": effect.term, "target": effect.target, "error": error}
        log.log(logging.WARNING if error else logging.INFO, "fence", extra={"fields": fields})
        self._post(FenceFinished(effect.term, effect.target, error))

    async def _run(self, effect: RunFence) -> str:
        """What went wrong, in a sentence without a full stop; "" for success."""
        environ = self._environ | self._told(effect)
        problem = why_not_runnable(self._command, environ)
        if problem:
            return problem
        output = _Output(effect.term)
        async with output.reading() as pipe:
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=pipe,
                    stderr=pipe,
                    env=environ,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                return f"fence_command cannot be run ({getattr(error, 'strerror', None) or error})"
            try:
                async with asyncio.timeout(self._timeout_s):
                    verdict = _verdict(await process.wait())
            except TimeoutError:
                verdict = f"fence_command had not ended after {self._timeout_s:g} s, and was killed"
            finally:
                if process.returncode is None:
                    await _kill(process)
        return f"{verdict}: {output.last}" if verdict and output.last else verdict

    def _told(self, effect: RunFence) -> dict[str, str]:
        return {
            "FAILOVER_AGENT_CLUSTER": self._cluster,
            "FAILOVER_AGENT_ROLE": self._me,
            "FAILOVER_AGENT_PEER": effect.target,
            "FAILOVER_AGENT_PEER_HOST": self._hosts[effect.target],
            "FAILOVER_AGENT_TERM": str(effect.term),
            "FAILOVER_AGENT_REASON": effect.reason,
        }


class _Output:
    """What a run prints, both streams in one: into the log, and `last`, its last line with text."""

    def __init__(self, term: int) -> None:
        self.last = ""
        self._term = term
        self._logged = 0

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[int]:
        """Where to write. What was written has arrived when this is left, but for what is written
        by programs that were left behind: they keep their end open, and nobody waits for them.

        A pipe of our own: with one of asyncio's, their end would be that of the process.
        """
        from_here, to_here = os.pipe()
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(from_here, "rb", 0)
        )
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read(stream))
                try:
                    yield to_here
                finally:
                    os.close(to_here)
                await asyncio.wait([reading], timeout=LAST_WORDS_S)
                reading.cancel()
        finally:
            transport.close()

    async def _read(self, stream: asyncio.StreamReader) -> None:
        """To the end, however much there is: a full pipe would stop the program."""
        rest = b""
        try:
            while chunk := await stream.read(1 << 16):
                *lines, rest = (rest + chunk).split(b"\n")
                rest = rest[: 4 * LONGEST_LINE]
                for line in lines:
                    self._take(line)
        finally:
            self._take(rest)

    def _take(self, line: bytes) -> None:
        text = line[: 4 * LONGEST_LINE].decode(errors="replace").strip()[:LONGEST_LINE]
        text = "".join(mark if mark.isprintable() else "?" for mark in text)
        if not text:
            return
        self.last = text
        self._logged += 1
        if self._logged <= MOST_LINES:
            log.info("fence", extra={"fields": {"term": self._term, "output": text}})
        elif self._logged == MOST_LINES + 1:
            log.info("fence", extra={"fields": {"term": self._term, "output": "... and more"}})


def why_not_runnable(command: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """Why the program cannot be started, in a sentence without a full stop; "" where it can."""
    program = command[0]
    if shutil.which(program, path=environ.get("PATH")):
        return ""
    if "/" not in program:
        return f"fence_command: there is no program {program} in PATH"
    if Path(program).is_file():
        return f"fence_command: {program} is not executable"
    return f"fence_command: there is no program {program}"


async def _kill(process: asyncio.subprocess.Process) -> None:
    """The whole process group; its leader has not been waited for, so the number is still its."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEAD_S):
            await process.wait()


def _verdict(code: int) -> str:
    """What an exit code means; "" for success."""
    if code < 0:
        return f"fence_command was ended by {_signal_name(-code)}"
    return f"fence_command exited with {code}" if code else ""


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
