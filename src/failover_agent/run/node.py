"""One node: everything connected, until its core says Exit."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import NoReturn

from failover_agent import __version__
from failover_agent.adapters.arbiters.etcd import EtcdArbiter
from failover_agent.adapters.arbiters.gateway import Access
from failover_agent.adapters.clock import Clock
from failover_agent.adapters.docker import DockerEngine
from failover_agent.adapters.docker.processes import Process
from failover_agent.adapters.docker.sights import OnProcess
from failover_agent.adapters.fence import Fence
from failover_agent.adapters.journal import Journal
from failover_agent.adapters.lifeline import Lifeline, Line, hello
from failover_agent.adapters.log import Narrator, set_up
from failover_agent.adapters.peer import Peers
from failover_agent.adapters.record import RecordStore, read_host
from failover_agent.adapters.systemd import Notifier, stop_kind
from failover_agent.agent import Agent, Hands, Message
from failover_agent.config import Settings
from failover_agent.core import paths, startup
from failover_agent.core.events import StopRequested
from failover_agent.core.messages import Sender
from failover_agent.core.policy import PartitionPolicy, Policy, Role
from failover_agent.errors import ExitCode
from failover_agent.protocol.auth import Keeper
from failover_agent.run.signals import allow_many_files, tell_of_no_reload
from failover_agent.web.app import (
    serve_operator,
    serve_public,
)
from failover_agent.web.context import Context

SHORTEST_CONNECT_S = 1.0
"""A beat waits so long for a connection, or an interval, if that is longer."""
JOURNAL_S = 1.0
"""At the end, what is not written yet has that long."""

SHORTEST_SAVE_S = 0.5
LONGEST_SAVE_S = 5.0

log = logging.getLogger(__name__)


class _Over(Exception):  # noqa: N818 - no error: the way in which a TaskGroup is ended
    """The core said Exit."""


class _Voters:
    """The other voters: what is for an etcd goes there, all else to a peer or witness."""

    def __init__(self, peers: Peers, etcd: EtcdArbiter | None) -> None:
        self.peers = peers
        self.etcd = etcd

    async def perform(self, effect: Message) -> None:
        if self.etcd is not None and effect.to is Role.WITNESS:
            await self.etcd.perform(effect)
        else:
            await self.peers.perform(effect)


@dataclass(frozen=True, slots=True)
class _Node:
    """What runs."""

    agent: Agent
    engine: DockerEngine
    voters: _Voters
    line: Lifeline
    fence: Fence | None
    notifier: Notifier

    @property
    def hands(self) -> Hands:
        """Who carries out what the core orders."""
        return Hands(self.engine, self.voters, self.line, self.fence)


async def run_node(settings: Settings, line: Line, on_guard_lost: Callable[[], None]) -> int:
    """Be a node until its core says Exit; the exit code.

    `line` leads to the guard; `on_guard_lost` is called when that has gone, and may not return.

    Raises FailoverAgentError for what its operator has to mend first; a missing engine, peer or
    arbiter is waited for.
    """
    set_up(format_name=settings.keys.log.format, level=settings.keys.log.level)
    allow_many_files()
    async with AsyncExitStack() as stack:
        node = await _build(settings, line, on_guard_lost, stack)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(node.line.run(), name="guard")
                group.create_task(node.engine.watch(), name="engine")
                group.create_task(node.voters.peers.run(), name="peers")
                if node.voters.etcd is not None:
                    group.create_task(node.voters.etcd.run(), name="etcd")
                _heed_signals(group, node)
                node.notifier.ready()
                await _until_exit(group, node)
        except* _Over as over:
            farewell, code = str(over.exceptions[0]), ExitCode.FINE
        except* Exception:
            log.critical("a task of the agent died, and so does the agent", exc_info=True)
            farewell, code = "the containers are left as they are", ExitCode.FAILED
    log.info("exit", extra={"fields": {"sentence": farewell}})
    return code


async def _until_exit(group: asyncio.TaskGroup, node: _Node) -> NoReturn:
    """Ends by _Over with the last words, which ends the group and all in it."""
    raise _Over(await node.agent.run(group, node.hands))


async def _build(
    settings: Settings, line: Line, on_guard_lost: Callable[[], None], stack: AsyncExitStack
) -> _Node:
    """Everything, connected; `stack` takes it apart again, the last first."""
    keys, role, policy = settings.keys, settings.role, settings.policy()
    clock = Clock()
    run_id = secrets.token_hex(8)
    record = _open_record(settings, policy)
    stack.callback(record.close)
    journal = Journal(settings.node.state_dir, wall=clock.wall)
    stack.callback(journal.close, JOURNAL_S)
    journal.started(
        version=__version__,
        run_id=run_id,
        node_id=record.node_id,
        policy=policy,
        now=clock.now(),
    )
    _announce(settings, policy, record)

    endpoints = {settings.node.peer: settings.node.endpoints}
    arbiter = settings.arbiter
    if arbiter is not None and arbiter.kind == "witness":
        endpoints[Role.WITNESS] = arbiter.endpoints
    state = startup.begin(
        policy,
        node_id=record.node_id,
        run_id=run_id,
        durable=record.durable,
        record_lost=record.is_lost,
        boot_is_new=record.boot_is_new,
        now=clock.now(),
        before=startup.Predecessor(line.lease_until_s, line.was_enforced),
    )
    state = paths.known(state, endpoints)
    notifier = Notifier(os.environ, now=clock.now)
    stack.callback(notifier.close)

    def come_round() -> None:
        latest = agent.get_state()
        notifier.status(f"{latest.phase}, term {latest.durable.term}")
        notifier.alive()

    agent = Agent(
        state,
        policy,
        clock=clock,
        record=record,
        observers=(Narrator(), journal),
        come_round=come_round,
    )
    lifeline = _lifeline(settings, policy, line, agent, on_guard_lost)
    engine = DockerEngine(
        host=settings.docker_host,
        files=settings.docker_files,
        names=keys.containers,
        post=agent.post,
        may_act=agent.may_act,
        clock=clock,
        stop_timeout_s=keys.docker.stop_timeout,
        start_timeout_s=keys.docker.start_timeout,
        on_process=_tell_of_processes(lifeline),
    )
    stack.push_async_callback(engine.close)
    keeper = Keeper(
        cluster=keys.cluster,
        me=Sender(role, record.node_id, run_id, policy.fingerprint),
        secret=settings.secret,
        peers=frozenset(policy.others),
        living_for_s=policy.heartbeat_timeout_s,
        arbiters=frozenset() if policy.arbiter is None else frozenset({policy.arbiter}),
        term=record.durable.term,
    )
    peers = Peers(
        endpoints=endpoints,
        keeper=keeper,
        post=agent.post,
        clock=clock,
        beat_connect_s=max(policy.heartbeat_interval_s, SHORTEST_CONNECT_S),
    )
    stack.push_async_callback(peers.close)
    etcd = _etcd(settings, keeper.me, agent, clock)
    if etcd is not None:
        stack.push_async_callback(etcd.close)
    context = Context(
        keeper=keeper,
        policy=policy,
        version=__version__,
        read_access=keys.security.read_access,
        now=clock.now,
        get_state=agent.get_state,
        ask=agent.ask,
        post=agent.post,
        history=journal.history,
        stepped_ago_s=agent.stepped_ago_s,
        arbiter_kind=None if arbiter is None else arbiter.kind,
    )
    node = settings.node
    await stack.enter_async_context(serve_public(context, bind=node.bind, port=node.port))
    await stack.enter_async_context(serve_operator(context, control_socket=node.control_socket))
    fence = _fence(settings, agent)
    return _Node(agent, engine, _Voters(peers, etcd), lifeline, fence, notifier)


def _lifeline(
    settings: Settings, policy: Policy, line: Line, agent: Agent, on_guard_lost: Callable[[], None]
) -> Lifeline:
    first_word = None
    if policy.requires_lease:
        first_word = hello(
            lease_file=settings.node.lease_file,
            docker_host=settings.docker_host,
            docker_files=settings.docker_files,
            heartbeat_timeout_s=policy.heartbeat_timeout_s,
            kill_budget_s=policy.kill_budget_s,
            log_format=settings.keys.log.format,
        )
    return Lifeline(
        line,
        first_word,
        post=agent.post,
        patience_s=policy.patience_s,
        on_guard_lost=on_guard_lost,
    )


def _tell_of_processes(lifeline: Lifeline) -> OnProcess:
    def tell(name: str, container_id: str, process: Process | None) -> None:
        pid = 0 if process is None else int(process.folder.name)
        lifeline.saw(name, container_id, pid, "" if process is None else process.started)

    return tell


def _etcd(settings: Settings, me: Sender, agent: Agent, clock: Clock) -> EtcdArbiter | None:
    arbiter = settings.arbiter
    if arbiter is None or arbiter.kind != "etcd":
        return None
    return EtcdArbiter(
        endpoints=arbiter.endpoints,
        cluster=settings.keys.cluster,
        me=me,
        post=agent.post,
        clock=clock,
        access=Access(
            username=arbiter.username,
            password=arbiter.password,
            ca_file=arbiter.ca_file,
            cert_file=arbiter.cert_file,
            key_file=arbiter.key_file,
        ),
    )


def _fence(settings: Settings, agent: Agent) -> Fence | None:
    fence, node = settings.fence, settings.node
    if fence is None:
        return None
    return Fence(
        fence.command,
        fence.timeout_s,
        cluster=settings.keys.cluster,
        me=settings.role,
        hosts={node.peer: node.peer_host},
        post=agent.post,
        environ=os.environ,
    )


def _open_record(settings: Settings, policy: Policy) -> RecordStore:
    """A save that takes longer than T/4 counts as failed: no step may be away for T/2."""
    deadline_s = min(LONGEST_SAVE_S, max(SHORTEST_SAVE_S, policy.heartbeat_timeout_s / 4))
    return RecordStore.open(
        settings.node.state_dir,
        cluster=settings.keys.cluster,
        role=settings.role,
        host=read_host(),
        deadline_s=deadline_s,
    )


def _announce(settings: Settings, policy: Policy, record: RecordStore) -> None:
    """The first lines of a run: who this is, what the pair promises, and what is odd."""
    fields = {
        "version": __version__,
        "role": settings.role,
        "cluster": settings.keys.cluster,
        "node_id": record.node_id,
        "term": record.durable.term,
        "sentence": promise_of(policy),
    }
    log.info("start", extra={"fields": fields})
    if record.set_aside is not None:
        sentence = (
            "the record could not be read and was set aside; what this node promised is not known,"
            " so it promises nothing new for a while"
        )
        log.warning("record", extra={"fields": {"file": record.set_aside, "sentence": sentence}})
    if settings.secret is None:
        sentence = "messages are not signed: whoever can reach the port can move the service"
        log.warning("security", extra={"fields": {"sentence": sentence}})


def promise_of(policy: Policy) -> str:
    """What this set-up promises, and what it costs (design, section 4)."""
    if policy.requires_lease:
        return (
            "a pair with an arbiter: never two actives; takes over when nothing was heard for"
            f" {policy.heartbeat_timeout_s:g} s and the arbiter agrees; an active that hears"
            " neither peer nor arbiter stops in time"
        )
    if policy.partition_policy is PartitionPolicy.CONSISTENCY:
        return (
            "a pair under partition_policy consistency: never two actives, and no takeover on"
            " silence; when a host dies, an operator says takeover"
        )
    return (
        "a pair under partition_policy availability: takes over when nothing was heard for"
        f" {policy.heartbeat_timeout_s:g} s; while the wire between the hosts is cut both run,"
        " and at first contact the lower term stops"
    )


def _heed_signals(group: asyncio.TaskGroup, node: _Node) -> None:
    """SIGTERM and SIGINT become StopRequested; again and again, if they come so."""
    loop = asyncio.get_running_loop()

    async def stop() -> None:
        kind = await stop_kind(os.environ)
        is_restarting = kind.restarting or await node.engine.is_replacing_us()
        log.info(
            "stop",
            extra={
                "fields": {
                    "restarting": is_restarting,
                    "host_is_shutting_down": kind.host_is_shutting_down,
                }
            },
        )
        node.agent.post(StopRequested(is_restarting, kind.host_is_shutting_down))

    def heed() -> None:
        if not node.agent.has_ended:
            node.notifier.stopping()
            group.create_task(stop(), name="stop")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heed)
    loop.add_signal_handler(signal.SIGHUP, tell_of_no_reload)
