"""Kills again and again, by the engine and directly, whatever is seen of the armed containers (G2).

The engine is asked beside the loop: while it hangs, the direct way goes on.
"""

import threading

from failover_agent.guard import engine, kill, system, watch
from failover_agent.guard.watch import Watch

ROUND_S = 0.05
"""Between two rounds, unless looking for processes takes long."""

SHARE = 4
"""Looking takes at most one part in so many of the time."""

LONGEST_PAUSE_S = 2.0
"""An engine that could not answer all in time still works on it: it is left alone for a while, each
time for longer. Asked without pause about hundreds of containers it would never answer the agent
either, which is to see that everything has stopped before anything can start again.
"""

QUIET_S = 1.0
"""After nothing was seen to run for so long, all is taken to be gone."""


class Rounds:
    """One campaign after the other; `due_at_s` is when the next round is due."""

    def __init__(self) -> None:
        self.due_at_s = 0.0
        self._seen_at_s = 0.0
        self._asking: threading.Thread | None = None
        self._ask_at_s = 0.0
        self._pause_s = ROUND_S
        self._engine_ids: frozenset[str] = frozenset()  # those that it has answered for

    def rehearse(self) -> None:
        """Kills nothing, so that all that killing needs is in memory afterwards."""
        engine.kill("unix:///nonexistent", ("nobody",), (), 0)
        kill.kill(())

    def prepare(self, docker_host: str, files: engine.TlsFiles) -> None:
        """As rehearse(), for an engine behind TLS; beside the loop, for it reads from a disk."""
        if docker_host.startswith(engine.TLS):
            system.beside(lambda: engine.prepare(files), "tls")

    def begin(self, now: float) -> None:
        """A lease has ended: the first round is due at once."""
        self.due_at_s = self._seen_at_s = self._ask_at_s = now
        self._pause_s = ROUND_S
        self._engine_ids = frozenset()

    def go(self, watched: Watch, docker_host: str, files: engine.TlsFiles, now: float) -> None:
        """One round."""
        self._ask_engine(watched, docker_host, files, now)
        if kill.kill(watch.condemned(watched), self._engine_ids):
            self._seen_at_s = now
        self.due_at_s = now + max(ROUND_S, SHARE * (system.now() - now))

    def is_quiet(self, now: float) -> bool:
        """Was nothing seen to run for a while?"""
        return now - self._seen_at_s > QUIET_S

    def is_asking(self) -> bool:
        """May an order to the engine still be on its way?"""
        return self._asking is not None and self._asking.is_alive()

    def _ask_engine(
        self, watched: Watch, docker_host: str, files: engine.TlsFiles, now: float
    ) -> None:
        """One thread at most: an engine that hangs holds up nobody but itself.

        By its id a container is asked for until the engine has answered once; what runs after that
        is found by its name.
        """
        if watched.lease is None or not docker_host or self.is_asking() or now < self._ask_at_s:
            return
        names, limit_s = watched.lease.names, watched.kill_budget_s / 2
        ids = {target.container_id for target in watch.condemned(watched)} - self._engine_ids

        def ask() -> None:
            ends_at_s = system.now() + limit_s
            answers = engine.kill(docker_host, names, ids, limit_s, files)
            now = system.now()
            self._engine_ids |= answers.keys()
            if any(answers.values()):
                self._seen_at_s = now
            in_time = now < ends_at_s
            self._pause_s = ROUND_S if in_time else min(2 * self._pause_s, LONGEST_PAUSE_S)
            self._ask_at_s = now + self._pause_s

        self._asking = system.beside(ask, "engine")
