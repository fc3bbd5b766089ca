"""The witness: a voter for each pair of its configuration, until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

from failover_agent import __version__
from failover_agent.adapters.clock import Clock
from failover_agent.adapters.lifeline import Lifeline, Line
from failover_agent.adapters.log import set_up
from failover_agent.adapters.record import RecordStore, read_host
from failover_agent.adapters.systemd import Notifier
from failover_agent.config import Settings
from failover_agent.core.policy import Role
from failover_agent.errors import ExitCode
from failover_agent.protocol.envelope import is_same, read_token
from failover_agent.run.signals import allow_many_files, tell_of_no_reload
from failover_agent.web.app import (
    serve_witness,
    serve_witness_operator,
)
from failover_agent.web.context import WitnessContext
from failover_agent.witness import Pair, Witness

LONGEST_SAVE_S = 2.0
"""Less than a node waits for an answer, so that a slow disk is told as what it is."""

SET_ASIDE = (
    "the record of this pair could not be read and was set aside; what was promised is not known,"
    " so nobody new gets a vote for a while"
)

log = logging.getLogger(__name__)


async def run_witness(settings: Settings, line: Line, on_guard_lost: Callable[[], None]) -> int:
    """Be the witness until a signal ends it; the exit code. Raises as `run_node` does."""
    set_up(format_name=settings.keys.log.format, level=settings.keys.log.level)
    allow_many_files()
    node, clock, run_id = settings.witness, Clock(), secrets.token_hex(8)
    async with AsyncExitStack() as stack:
        pairs: list[Pair] = []
        for cluster, secret in node.clusters:
            record = RecordStore.open(
                node.state_dir / cluster,
                cluster=cluster,
                role=Role.WITNESS,
                host=read_host(),
                deadline_s=LONGEST_SAVE_S,
            )
            stack.callback(record.close)
            if record.set_aside is not None:
                fields = {"cluster": cluster, "file": record.set_aside, "sentence": SET_ASIDE}
                log.warning("record", extra={"fields": fields})
            timeout_s = settings.keys.heartbeat_timeout
            pair = Pair(
                cluster, record, secret=secret, run_id=run_id, clock=clock, timeout_s=timeout_s
            )
            pairs.append(pair)
        notifier = Notifier(os.environ, now=clock.now)
        stack.callback(notifier.close)
        witness = Witness(pairs, clock=clock, come_round=notifier.alive)
        context = WitnessContext(
            pairs=witness.pairs,
            rejected=witness.rejected,
            version=__version__,
            read_access=settings.keys.security.read_access,
            is_reader=_readers(settings.secret),
            now=clock.now,
            started_at_s=clock.now(),
            look=witness.look,
            not_ready_because=witness.not_ready_because,
            stepped_ago_s=witness.stepped_ago_s,
        )
        await stack.enter_async_context(serve_witness(context, bind=node.bind, port=node.port))
        await stack.enter_async_context(
            serve_witness_operator(context, control_socket=node.control_socket)
        )
        over = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, over.set)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, tell_of_no_reload)
        names = ", ".join(pair.cluster for pair in pairs)
        sentence = f"a witness for {len(pairs)} pairs: {names}"
        log.info("start", extra={"fields": {"version": __version__, "sentence": sentence}})
        notifier.ready()
        notifier.status(f"witness of {len(pairs)} pairs")
        lifeline = Lifeline(
            line, None, post=lambda _: None, patience_s=0.0, on_guard_lost=on_guard_lost
        )
        async with asyncio.TaskGroup() as group:
            guard = group.create_task(lifeline.run(), name="guard")
            looking = group.create_task(witness.run(), name="witness")
            await over.wait()
            notifier.stopping()
            looking.cancel()
            guard.cancel()
    log.info("exit", extra={"fields": {"sentence": "what was promised is on disk"}})
    return ExitCode.FINE


def _readers(secret: bytes | None) -> Callable[[str], bool]:
    """Who may read about all pairs: not whoever has the secret of one of them."""
    wanted = None if secret is None else read_token(secret)
    return lambda token: wanted is not None and is_same(token, wanted)
