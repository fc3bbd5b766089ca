"""The stories: what happens when. What the nodes make of it is in transcripts/."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from failover_agent.core.events import CommandKind
from failover_agent.core.policy import OnStop, PartitionPolicy, Role
from tests.scenarios.world import World

Script = Callable[[World], None]
STORIES: dict[str, tuple[Script, dict[str, object]]] = {}


def story(**settings: object) -> Callable[[Script], Script]:
    """A script that is played with these settings, the defaults else."""

    def register(script: Script) -> Script:
        STORIES[script.__name__] = (script, settings)
        return script

    return register


def told(name: str) -> str:
    """The transcript of a story: its words, its settings, and what happened."""
    script, settings = STORIES[name]
    world = World(**settings)
    script(world)
    about = inspect.getdoc(script) or ""
    chosen = [f"{key} = {value}" for key, value in settings.items()]
    return "\n".join([about, *chosen, "", *world.lines, ""])


def up(world: World, *, until: float = 40) -> None:
    """Both agents run and the primary is active in term 1; of that nothing is told."""
    world.primary.start_agent()
    world.backup.start_agent()
    world.run_until(until)
    world.lines.clear()


# --- starts ---------------------------------------------------------------------------------------


@story()
def cold_start_of_both(world: World) -> None:
    """Both hosts are new and start together. Nobody knows what was promised before, so both wait
    for the timeout; then the primary goes first.
    """
    world.at(0, "both agents start", world.primary.start_agent, world.backup.start_agent)
    world.run_until(30)


@story()
def start_of_the_backup_alone(world: World) -> None:
    """The backup has never heard its primary, so it does not start alone; when the primary comes,
    that one goes first.
    """
    world.at(0, "the agent of the backup starts", world.backup.start_agent)
    world.at(60, "the agent of the primary starts", world.primary.start_agent)
    world.run_until(90)


@story()
def restart_of_the_active_agent(world: World) -> None:
    """The agent of the active node is killed and started again within the timeout: it takes up its
    term, touches nothing, and its peer does not move.
    """
    up(world)
    world.at(50, "the primary's agent is killed", world.primary.kill_agent)
    world.at(55, "it is started again", world.primary.start_agent)
    world.run_until(80)


# --- a host dies ----------------------------------------------------------------------------------


@story()
def takeover_on_silence(world: World) -> None:
    """The active host crashes; the standby takes over when it has been silent for the timeout. The
    host comes back with another boot id and stands by.
    """
    up(world)
    world.at(50, "the primary's host crashes", world.primary.crash)
    world.at(80, "it is back", world.primary.boot_up)
    world.run_until(110)


@story(partition_policy=PartitionPolicy.CONSISTENCY)
def takeover_by_an_operator(world: World) -> None:
    """Under this policy silence is no leave. The operator looks, sees that the primary is off, and
    gives his word for it; too early, he is not believed.
    """
    up(world)
    world.at(50, "takeover!", lambda: world.backup.command(CommandKind.TAKEOVER))
    world.at(51, "the primary's host crashes", world.primary.crash)
    world.at(100, "takeover!", lambda: world.backup.command(CommandKind.TAKEOVER))
    world.at(120, "the primary's host is back", world.primary.boot_up)
    world.run_until(140)


# --- a container is down --------------------------------------------------------------------------


@story()
def container_repaired(world: World) -> None:
    """A container dies once: it is started again, and nothing moves."""
    up(world)
    world.at(50, "web dies on the primary", lambda: world.primary.kill("web"))
    world.run_until(100)


@story()
def container_beyond_repair(world: World) -> None:
    """A container dies for good: three repairs in vain, then the peer says that it will take the
    service, the containers are stopped, and the peer starts them.
    """
    up(world)
    world.at(50, "web dies for good", lambda: world.primary.kill("web", "no such file"))
    world.run_until(110)


@story()
def handover_refused_to_a_peer_that_is_not_ready(world: World) -> None:
    """The peer lacks a container, so the service stays where it is, as far as it runs, and repair
    goes on. When the peer is mended, the service moves.
    """
    up(world)
    world.at(45, "web is removed on the backup", lambda: world.backup.remove("web"))
    world.at(50, "web dies for good", lambda: world.primary.kill("web", "no such file"))
    world.at(120, "web is created on the backup again", lambda: world.backup.mend("web"))
    world.run_until(140)


@story()
def failed_promotion_goes_back(world: World) -> None:
    """The peer said that it would take the service, and then cannot start it: it gives it back, and
    is not handed to again for a while.
    """
    up(world)
    world.backup.containers["web"].error = "port in use"
    world.at(50, "web dies for good", lambda: world.primary.kill("web", "no such file"))
    world.at(80.2, "what kept web down is mended", lambda: world.primary.mend("web"))
    world.run_until(140)


@story()
def both_broken(world: World) -> None:
    """Neither side can start web. The service comes back to the first, where the rest of it runs,
    and stays; nothing goes to and fro. When web is mended there, all is well again.
    """
    up(world)
    world.backup.containers["web"].error = "port in use"
    world.at(50, "web dies for good", lambda: world.primary.kill("web", "no such file"))
    world.at(200, "web is mended on the primary", lambda: world.primary.mend("web"))
    world.run_until(240)


@story()
def stray_container_on_a_standby(world: World) -> None:
    """Somebody starts a container on the standby by hand: it is stopped."""
    up(world)
    world.at(50, "web is started by hand", lambda: world.backup.run_by_hand("web"))
    world.run_until(60)


# --- the wire -------------------------------------------------------------------------------------


@story()
def cut_and_heal_with_two_actives(world: World) -> None:
    """Under `availability` a cut wire means that both run, until first contact: then the lower term
    stops at once, and the overlap is measured.
    """
    up(world)
    world.at(50, "the wire is cut", world.cut)
    world.at(90, "it is whole again", world.heal)
    world.run_until(120)


@story(partition_policy=PartitionPolicy.CONSISTENCY)
def cut_and_heal_under_consistency(world: World) -> None:
    """Under `consistency` a cut wire changes nothing: the active node goes on, the other waits."""
    up(world)
    world.at(50, "the wire is cut", world.cut)
    world.at(90, "it is whole again", world.heal)
    world.run_until(120)


# --- SIGTERM --------------------------------------------------------------------------------------


@story()
def handover_on_stop(world: World) -> None:
    """SIGTERM on the active node: the service moves first, then the agent leaves."""
    up(world)
    world.at(50, "SIGTERM to the primary", world.primary.terminate)
    world.at(70, "its agent is started again", world.primary.start_agent)
    world.run_until(100)


@story(on_stop=OnStop.LEAVE)
def leave_and_hold(world: World) -> None:
    """SIGTERM with on_stop = "leave": the containers run on without their agent, the peer holds,
    and nobody takes over until it is back.
    """
    up(world)
    world.at(50, "SIGTERM to the primary", world.primary.terminate)
    world.at(120, "its agent is started again", world.primary.start_agent)
    world.run_until(150)


@story()
def host_shuts_down_without_a_taker(world: World) -> None:
    """The active host shuts down while its peer cannot take the service: it is stopped in good
    order and given back, and the peer starts it as soon as it can.
    """
    up(world)
    world.at(45, "web is removed on the backup", lambda: world.backup.remove("web"))
    world.at(
        50,
        "the primary's host shuts down",
        lambda: world.primary.terminate(host_is_shutting_down=True),
    )
    world.at(70, "web is created on the backup again", lambda: world.backup.mend("web"))
    world.run_until(100)


# --- the engine, the disk -------------------------------------------------------------------------


@story()
def engine_lost_containers_alive(world: World) -> None:
    """The engine of the active host does not answer, but the containers' processes are seen alive:
    unknown is not down, so nothing moves.
    """
    up(world)
    world.at(
        50,
        "the engine is killed, the containers live on",
        lambda: world.primary.lose_engine(with_containers=False),
    )
    world.at(110, "the engine is back", world.primary.regain_engine)
    world.run_until(130)


@story()
def engine_lost_containers_gone(world: World) -> None:
    """The engine of the active host is gone and the containers with it: after the grace the service
    moves.
    """
    up(world)
    world.at(
        50,
        "the engine is killed with all its containers",
        lambda: world.primary.lose_engine(with_containers=True),
    )
    world.run_until(110)


@story()
def record_not_writable(world: World) -> None:
    """The disk of the standby is full: it says that it is not ready, and does not take over, since
    it could not keep its word. Once there is room it takes over at once.
    """
    up(world)
    world.at(50, "the backup's disk is full", world.backup.fill_disk)
    world.at(60, "the primary's host crashes", world.primary.crash)
    world.at(90, "there is room again", world.backup.empty_disk)
    world.run_until(100)


@story()
def record_of_the_active_not_writable(world: World) -> None:
    """The disk of the active node is full: the service runs on, and an alarm says so. To hand it
    over it stops, and releases only once the record can be written.
    """
    up(world)
    world.at(50, "the primary's disk is full", world.primary.fill_disk)
    world.at(60, "SIGTERM to the primary", world.primary.terminate)
    world.at(66, "there is room again", world.primary.empty_disk)
    world.run_until(80)


# --- with an arbiter ------------------------------------------------------------------------------

WITNESS = Role.WITNESS


@story(arbiter=WITNESS)
def cold_start_of_three(world: World) -> None:
    """Both hosts are new and start together beside a witness. Whoever lost its record, or never had
    one, waits for the timeout; the witness had one. Nothing starts before the guard watches.
    """
    world.at(0, "both agents start", world.primary.start_agent, world.backup.start_agent)
    world.run_until(30)


@story(arbiter=WITNESS)
def takeover_by_majority(world: World) -> None:
    """The active host crashes. Its promise at the witness ends, and the standby takes over by its
    own vote and that of the witness; the host that is back has to give its vote to nobody.
    """
    up(world)
    world.at(50, "the primary's host crashes", world.primary.crash)
    world.at(80, "it is back", world.primary.boot_up)
    world.run_until(110)


@story(arbiter=WITNESS)
def arbiter_lost(world: World) -> None:
    """The witness is gone: nothing moves, and both nodes say that one more loss is one too many."""
    up(world)
    world.at(50, "the witness's host crashes", world.witness.crash)
    world.at(90, "it is back", world.witness.boot_up)
    world.run_until(110)


@story(arbiter=WITNESS)
def wire_between_the_nodes_cut(world: World) -> None:
    """Only the wire between the nodes is cut: the active one goes on by the word of the witness,
    and the standby, which hears nothing of it, asks for nothing.
    """
    up(world)
    world.at(50, "the wire between the nodes is cut", world.cut)
    world.at(90, "it is whole again", world.heal)
    world.run_until(110)


@story(arbiter=WITNESS)
def isolation_and_self_demotion(world: World) -> None:
    """The active host hears nobody and is heard by nobody. It stops in time before its lease ends,
    and only then the other starts; when the wires are whole again nothing moves back.
    """
    up(world)
    world.at(50, "the primary is cut off", lambda: world.isolate(Role.PRIMARY))
    world.at(90, "the wires are whole again", world.heal)
    world.run_until(110)


@story(arbiter=WITNESS)
def peer_and_arbiter_lost(world: World) -> None:
    """The active host and the witness crash together: one vote of three is no majority, so nothing
    starts until one of them is back.
    """
    up(world)
    world.at(50, "both crash", world.primary.crash, world.witness.crash)
    world.at(90, "the witness is back", world.witness.boot_up)
    world.run_until(120)


@story(arbiter=WITNESS)
def resumption_within_the_lease(world: World) -> None:
    """The agent of the active node is killed; its guard lives, and starts it again within its
    lease: it takes that up, touches nothing, and its peer does not move.
    """
    up(world)
    world.at(50.5, "the primary's agent is killed", world.primary.kill_agent)
    world.at(54.5, "its guard starts it again", world.primary.start_agent)
    world.run_until(80)


@story(arbiter=WITNESS)
def guard_ends_a_frozen_agent(world: World) -> None:
    """The agent of the active node is frozen, so its lease ends unrenewed. The guard kills it and
    the containers before that, and starts it again. The promises to it still stand, so it is the
    one that may ask for the service again.
    """
    up(world)
    world.at(50.5, "the primary's agent is frozen", world.primary.freeze_agent)
    world.run_until(80)


@story(arbiter=WITNESS)
def docker_starts_what_it_should_not(world: World) -> None:
    """The host of the active node reboots, and Docker starts the containers there by itself: they
    run under no lease, so they are killed before anything else.
    """
    up(world)
    world.at(50, "the primary's host crashes", world.primary.crash)
    for container in world.primary.containers.values():
        container.boots_with_host = True
    world.at(55, "it is back, with running containers", world.primary.boot_up)
    world.run_until(80)


@story(arbiter=WITNESS)
def handover_with_an_arbiter(world: World) -> None:
    """SIGTERM on the active node: both voters are told who is to take the service."""
    up(world)
    world.at(50, "SIGTERM to the primary", world.primary.terminate)
    world.run_until(70)


@story(arbiter=WITNESS, on_stop=OnStop.LEAVE)
def hold_with_an_arbiter(world: World) -> None:
    """SIGTERM with on_stop = "leave": peer and witness hold, and the guard has no deadline any
    more. The agent is back after a while, and gives the guard one before it renews.
    """
    up(world)
    world.at(50, "SIGTERM to the primary", world.primary.terminate)
    world.at(120, "its agent is started again", world.primary.start_agent)
    world.run_until(150)


@story(arbiter=WITNESS, on_stop=OnStop.LEAVE)
def hold_that_nobody_confirms(world: World) -> None:
    """The same, but nobody can be told: a lease would end with nobody to stop the containers, so
    they are stopped before the agent leaves.
    """
    up(world)
    world.at(50, "the primary is cut off", lambda: world.isolate(Role.PRIMARY))
    world.at(51, "SIGTERM to the primary", world.primary.terminate)
    world.run_until(80)


@story(arbiter=WITNESS, on_stop=OnStop.LEAVE)
def hold_ended_by_an_operator(world: World) -> None:
    """The node that left on hold dies. Nobody takes over until an operator says so."""
    up(world)
    world.at(50, "SIGTERM to the primary", world.primary.terminate)
    world.at(60, "the primary's host crashes", world.primary.crash)
    world.at(100, "takeover!", lambda: world.backup.command(CommandKind.TAKEOVER))
    world.run_until(120)


# --- fence_command --------------------------------------------------------------------------------


@story(arbiter=WITNESS, has_fence=True)
def fence_after_the_majority(world: World) -> None:
    """With an arbiter the fence is no vote: it runs once the majority is won, and the promotion
    waits for its success.
    """
    up(world)
    world.backup.fence_error = "no route to the switch"
    world.at(50, "the primary's host crashes", world.primary.crash)
    world.at(64.5, "the switch is back", lambda: setattr(world.backup, "fence_error", ""))
    world.run_until(80)


@story(has_fence=True)
def fence_in_a_plain_pair(world: World) -> None:
    """The wire is cut. The standby fences its silent peer, and that is its vote."""
    up(world)
    world.at(50, "the wire is cut", world.cut)
    world.run_until(80)
