"""The guard's loop: starts the agent, listens to it, and kills when the time has come.

One loop, which waits for nothing but events and time: while a lease is armed never longer than
`TICK_S`, for a clock that stood still in a suspend wakes nobody. What might
hang (the engine, whoever reads our log) is done beside it by threads.
"""

import contextlib
import math
import os
import select
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from failover_agent.guard import engine, file, kill, lifeline, system, watch
from failover_agent.guard.lifeline import Arm, Armed, Disarm, Hello, Move, Seen, Welcome
from failover_agent.guard.rounds import Rounds
from failover_agent.guard.watch import Lease, Target, Watch

TICK_S = 0.1
IDLE_TICK_S = 0.5
"""Where nothing is armed there is no moment to be missed."""
AWAY_S = 2 * TICK_S
"""A guard that comes so late to look was frozen, or had no processor."""
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
YOUNG_S = 10.0
"""An agent that dies younger is started again later each time."""

HEARS_S = 5.0
"""So long a signal waits for an agent that has just started to be able to take it."""

MOST_MESSAGES = 1000
"""Of the agent, in one turn: one that has gone mad must not keep us from looking at the clock."""

FAILED, USAGE = 1, 2
"""Exit codes of the agent: its own mistake, and one that no restart mends."""


def supervise(
    command: Sequence[str],
    *,
    config: Path | None,
    role: str | None,
    environ: Mapping[str, str],
) -> int:
    """Be the guard of the agent that `command` starts, until it leaves by itself; the exit code.

    `config` and `role` are what the agent is told on its command line. Starts nothing before it has
    taken up what an earlier guard has left (G3). Takes over the signals of this process.
    """
    supervisor = _Supervisor(command, file.read_owner(config, role, environ), dict(environ))
    return supervisor.run()


class _Supervisor:
    def __init__(self, command: Sequence[str], owner: file.Owner, environ: dict[str, str]) -> None:
        self._command = [*command]
        self._owner = owner
        self._environ = environ
        self._watchdog = system.Watchdog(environ)
        self._log = system.Log()
        self._signals = system.Signals()
        self._oom_score = system.be_killed_last()

        self._watch = Watch()
        self._docker_host = ""
        self._docker_files = engine.NO_FILES
        self._lock: file.Lock | None = None
        self._lease_file: Path | None = None
        self._is_unsaved = False
        self._unsaved_because = ""
        self._to_answer: int | None = None  # the term of an Arm

        self._pid = 0
        self._lifeline: socket.socket | None = None
        self._started_at_s = -math.inf
        self._start_at_s = -math.inf
        self._pause_s = FIRST_PAUSE_S
        self._was_killed = False
        self._stop_wanted = False
        self._leave_with: int | None = None

        self._rounds = Rounds()
        self._turned_at_s = math.inf
        self._slept_s = 0.0  # at most, since then
        self._heard_more = False

    def run(self) -> int:
        if not self._take_up():
            return 0
        self._rounds.rehearse()
        system.lock_memory()
        while True:
            now = system.now()
            # What the agent has said comes first: a guard that was frozen has much to hear. What
            # did not fit into the line is still with the agent: it has a turn to say that too, and
            # one only, for a guard that is starved is always late.
            was_away = self._is_late(now) and bool(self._pid)
            hears_more = self._heard_more = was_away and not self._heard_more
            self._turned_at_s = now
            self._watchdog.ping(now)
            self._listen()
            self._bury()
            if watch.is_due(self._watch, now) and not hears_more:
                self._enforce(now)
            if self._watch.is_over and now >= self._rounds.due_at_s:
                self._rounds.go(self._watch, self._docker_host, self._docker_files, now)
            self._save()
            if self._leave_with is not None and self._may_leave(now):
                self._log.flush()
                return self._leave_with
            if not self._pid and self._leave_with is None and now >= self._start_at_s:
                self._start(now)
            self._pass_on(now)
            if hears_more:
                self._sleep(TICK_S)
            else:
                self._wait()

    # --- what outlives us ------------------------------------------------------------------------

    def _take_up(self) -> bool:
        """What an earlier guard has left. False where we were told to stop while another one lived.

        Where nothing of the sort can be found out there is nothing to wait for.
        """
        path = file.expect(self._owner, self._environ)
        is_certain = path is not None
        path = path or file.search(self._owner, self._environ)
        if path is None or not self._take_lock(path, may_wait=is_certain):
            return path is None or not self._signals.waiting
        saved = file.read(path, self._owner.boot_id)
        if saved is None:
            return True
        # Its guard is dead, and it has not become one: it must not go on beside the next agent.
        kill.kill_process(*saved.agent)
        self._watch, self._lease_file = saved.watch, path
        self._docker_host, self._docker_files = saved.docker_host, saved.docker_files
        left_s = watch.lease_until_s(self._watch) - system.now()
        sentence = "an earlier guard has left a lease, which is watched over from now on"
        self._log.say("info", "guard", sentence, remaining_s=f"{left_s:.3f}")
        return True

    def _take_lock(self, path: Path, *, may_wait: bool) -> bool:
        lock = file.Lock(path)
        is_waiting = False
        while True:
            try:
                if lock.take():
                    self._lock = lock
                    return True
            except OSError:
                return True  # Then there is no lease file either.
            if not may_wait or self._signals.waiting:
                return False
            if not is_waiting:
                is_waiting = True
                self._log.say("info", "guard", f"another guard writes {path}: waiting for its end")
            self._watchdog.ping(system.now())
            self._sleep(TICK_S)

    def _save(self) -> None:
        """An Arm is answered when it lies in the file. What could not be written is tried again."""
        if self._is_unsaved and self._lease_file is not None:
            problem = ""
            try:
                if self._watch.lease is None:
                    self._lease_file.unlink(missing_ok=True)
                else:
                    agent = (self._pid, kill.start_time(self._pid) if self._pid else "")
                    engine_at = (self._docker_host, self._docker_files)
                    saved = file.Saved(self._lease_file, agent, self._watch, *engine_at)
                    file.write(saved, self._owner)
                self._is_unsaved = False
            except OSError as error:
                problem = str(error)
            if problem and problem != self._unsaved_because:
                self._log.say("warning", "guard", f"the lease file cannot be written: {problem}")
            self._unsaved_because = problem
        # What the engine was asked to kill must not meet what the agent is about to start.
        if self._to_answer is not None and not self._rounds.is_asking():
            problem = "the agent has named no lease file" if self._lease_file is None else ""
            self._tell(Armed(self._to_answer, self._unsaved_because or problem))
            self._to_answer = None

    # --- the agent -------------------------------------------------------------------------------

    def _start(self, now: float) -> None:
        try:
            ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            self._log.say("error", "guard", f"the agent cannot be started: {error}")
            self._pause(now)
            return
        self._watch = watch.begin_child(self._watch)
        self._lifeline, self._was_killed = ours, False
        ours.setblocking(False)
        was_enforced = watch.was_enforced(self._watch)
        self._tell(Welcome(watch.lease_until_s(self._watch), was_enforced))
        its.set_inheritable(True)
        environ = {**self._environ, lifeline.VARIABLE: str(its.fileno())}
        try:
            self._pid = os.posix_spawn(self._command[0], self._command, environ, setsigmask=())
        except OSError as error:
            self._log.say("error", "guard", f"the agent cannot be started: {error}")
            self._hang_up()
            self._pause(now)
            return
        finally:
            its.close()
        self._started_at_s = now
        self._is_unsaved = self._is_unsaved or self._watch.lease is not None
        if self._stop_wanted and signal.SIGTERM not in self._signals.waiting:
            self._signals.waiting.append(signal.SIGTERM)  # The one before died of something else.
        system.set_oom_score(self._pid, self._oom_score)

    def _bury(self) -> None:
        """All that have ended: as PID 1 the orphans of others are ours."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self._pid:
                self._listen()  # its last words
                self._hang_up()
                self._pid = 0
                self._has_ended(os.waitstatus_to_exitcode(status), system.now())

    def _has_ended(self, code: int, now: float) -> None:
        is_young = now - self._started_at_s < YOUNG_S
        is_first_mistake = code == FAILED and self._watch.child == 1 and is_young
        if self._was_killed:
            self._start_at_s = now
            self._leave_with = FAILED if self._stop_wanted else None
            return
        if code in {0, USAGE}:
            self._leave_with = code
        elif watch.may_be_left(self._watch) and (self._stop_wanted or is_first_mistake):
            self._leave_with = FAILED
        else:
            self._pause(now)
        if self._leave_with is None:
            self._log.say(
                "warning", "guard", "the agent has ended, and is started again", code=code
            )
        elif not watch.may_be_left(self._watch):
            until_s = watch.kill_at_s(self._watch) - now
            sentence = (
                "the agent has left while its lease runs: at its end the containers are killed"
            )
            self._log.say("warning", "guard", sentence, code=code, after_s=f"{until_s:.3f}")

    def _pause(self, now: float) -> None:
        """Later each time, while it dies young."""
        if now - self._started_at_s >= YOUNG_S:
            self._pause_s = FIRST_PAUSE_S
        self._start_at_s = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _hang_up(self) -> None:
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None

    def _pass_on(self, now: float) -> None:
        """Signals to us are meant for the agent, and wait for one that is old enough to hear them.
        A stop without an agent ends us where nothing is armed; else the next one knows what to do.
        """
        if not self._signals.waiting:
            return
        if {signal.SIGTERM, signal.SIGINT} & {*self._signals.waiting}:
            self._stop_wanted = True
        if not self._pid:
            if self._stop_wanted and self._leave_with is None:
                self._leave_with = 0 if watch.may_be_left(self._watch) else None
                self._start_at_s = now
        elif system.catches(self._pid, signal.SIGTERM) or now - self._started_at_s > HEARS_S:
            for number in self._signals.waiting:
                os.kill(self._pid, number)
            self._signals.waiting.clear()

    def _may_leave(self, now: float) -> bool:
        """Nothing that is armed is left behind, but for a hold."""
        if self._pid:
            return False
        is_done = self._watch.is_over and self._rounds.is_quiet(now)
        return is_done or watch.may_be_left(self._watch)

    # --- what it says ----------------------------------------------------------------------------

    def _listen(self) -> None:
        """What waits, within bounds. Of an agent whose time was over nothing is even read."""
        for _ in range(MOST_MESSAGES):
            if self._lifeline is None or self._was_killed:
                return
            try:
                datagram = self._lifeline.recv(lifeline.LONGEST)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # It did not read all of ours; what it has sent comes after this.
            if not datagram:
                self._hang_up()
                return
            try:
                self._heed(lifeline.decode(datagram), self._watch.child, system.now())
            except (lifeline.GarbledError, watch.RefusedError) as error:
                self._log.say("warning", "guard", f"refused what the agent said: {error}")

    def _heed(self, message: lifeline.Message, child: int, now: float) -> None:
        """Raises RefusedError."""
        before = self._watch
        match message:
            case Hello():
                self._watch = watch.greet(
                    before, child, message.heartbeat_timeout_s, message.kill_budget_s
                )
                self._docker_host = message.docker_host
                self._docker_files = engine.TlsFiles(
                    message.docker_ca_file, message.docker_cert_file, message.docker_key_file
                )
                self._rounds.prepare(self._docker_host, self._docker_files)
                self._log.is_json = message.log_format == "json"
                self._move_file(Path(message.lease_file))
            case Seen():
                seen = Target(message.name, message.container_id, message.pid, message.started)
                self._watch = watch.see(before, child, kill.locate(seen))
            case Arm():
                lease = Lease(message.term, message.names, message.valid_until_s)
                try:
                    self._watch = watch.arm(before, child, lease, now)
                except watch.RefusedError as error:
                    self._tell(Armed(message.term, str(error)))
                    raise
                self._to_answer = message.term
            case Move():
                self._watch = watch.move(before, child, message.term, message.valid_until_s, now)
            case Disarm():
                self._watch = watch.disarm(before, child, message.term)
            case Welcome() | Armed():
                raise watch.RefusedError("these are our own words")
        had_or_has_lease = before.lease is not None or self._watch.lease is not None
        self._is_unsaved = self._is_unsaved or (had_or_has_lease and self._watch != before)

    def _move_file(self, path: Path) -> None:
        """The agent names it, and nearly always as was expected. Raises RefusedError."""
        if self._lock is None or self._lock.path != path:
            lock = file.Lock(path)
            with contextlib.suppress(OSError):  # what is wrong is told when it is written
                if not lock.take():
                    raise watch.RefusedError(f"another guard writes {path}")
            if self._lock is not None:
                self._lock.give_back()
            self._lock = lock
        if self._lease_file not in {None, path} and self._watch.lease is not None:
            self._is_unsaved = True
            with contextlib.suppress(OSError):
                self._lease_file.unlink(missing_ok=True)
        self._lease_file = path

    def _tell(self, message: Welcome | Armed) -> None:
        """An agent that does not read misses it."""
        if self._lifeline is not None:
            with contextlib.suppress(OSError):
                self._lifeline.send(lifeline.encode(message))

    # --- the end of a lease ----------------------------------------------------------------------

    def _enforce(self, now: float) -> None:
        """The agent first: even a frozen one, which must not finish an old start (G2)."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._was_killed = True
        lease = self._watch.lease
        self._watch = watch.enforce(self._watch)
        self._rounds.begin(now)
        if not self._pid and self._stop_wanted:
            self._leave_with = FAILED
        assert lease is not None, "only what is armed can be due"
        self._log.say(
            "error",
            "guard_kill",
            "the lease ends, and its containers were not seen to stop: agent and all are killed",
            term=lease.term,
            names=",".join(lease.names),
        )

    # --- waiting ---------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Until something happens, or is due; never long, for a suspended clock wakes nobody."""
        moments = [watch.kill_at_s(self._watch)]
        if self._watch.is_over:
            moments.append(self._rounds.due_at_s)
        if not self._pid and self._leave_with is None:
            moments.append(self._start_at_s)
        due_at_s = min(moments)
        has_more_to_do = self._is_unsaved or self._to_answer is not None
        has_more_to_do = has_more_to_do or bool(self._signals.waiting) or not self._pid
        is_idle = self._watch.lease is None and not has_more_to_do
        tick_s = self._watchdog.at_most(IDLE_TICK_S) if is_idle else TICK_S
        while not self._sleep(min(max(due_at_s - system.now(), 0), tick_s)):
            now = system.now()
            if has_more_to_do or now >= due_at_s or self._is_late(now):
                return
            self._turned_at_s = now  # Nothing has happened: that was the turn.
            self._watchdog.ping(now)

    def _is_late(self, now: float) -> bool:
        return now - self._turned_at_s - self._slept_s > AWAY_S

    def _sleep(self, limit_s: float) -> bool:
        """Has something happened meanwhile?"""
        self._slept_s = limit_s
        poll = select.poll()
        poll.register(self._signals.wakes, select.POLLIN)
        if self._lifeline is not None and not self._was_killed:
            poll.register(self._lifeline, select.POLLIN)
        has_happened = bool(poll.poll(math.ceil(limit_s * 1000)))
        if has_happened:  # What comes after the poll wakes the next one.
            self._signals.clear()
        return has_happened
