"""Up, down, unknown; graces; repair (design, section 5).

A container counts as down from when this node first saw it down while it led, but not before
`startup_grace_period` has ended; the verdict falls when it is still down `restart_grace_period`
later, never earlier. Within that time the agent starts a dead container itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from failover_agent.core import leases, reports
from failover_agent.core.changing import replace
from failover_agent.core.effects import ManageRestartPolicy, RepairContainer
from failover_agent.core.events import (
    ContainerChanged,
    ContainerDied,
    ContainerObservation,
    ContainersObserved,
    EngineLost,
    RepairFinished,
    RestartPolicySet,
)
from failover_agent.core.policy import OnEngineLost, Policy, RestartPolicyMode
from failover_agent.core.state import (
    ContainerState,
    ContainerView,
    EngineView,
    Phase,
    State,
)
from failover_agent.core.turn import Turn

FIRST_REPAIR_AFTER_S = 1.0
"""A `docker restart` or a compose recreate takes its container up again by itself within this."""

SHORTEST_PAUSE_S = 0.5
"""Between two repairs, and before the first where there is no grace: the handover goes first."""

LONGEST_REPAIR_PAUSE_S = 30.0
"""After the verdict, while nobody can take over, repair goes on with at most this pause."""


def counts_from_s(state: State, policy: Policy, view: ContainerView) -> float | None:
    """Since when `view` counts as down, None while it does not."""
    if view.down_since_s is None:
        return None
    if state.promoted_at_s is None:
        return view.down_since_s
    return max(view.down_since_s, state.promoted_at_s + policy.startup_grace_period_s)


def verdict_at_s(state: State, policy: Policy, view: ContainerView) -> float | None:
    """When `view`, if it is still down then, is beyond repair; None while it is not down."""
    since_s = counts_from_s(state, policy, view)
    return None if since_s is None else since_s + policy.restart_grace_period_s


def beyond_repair(state: State, now: float, policy: Policy) -> tuple[str, ...]:
    """The names of the containers whose grace is over and which are down now."""
    names = []
    for view in state.containers.counted:
        at_s = verdict_at_s(state, policy, view)
        if view.state is ContainerState.DOWN and at_s is not None and now >= at_s:
            names.append(view.name)
    return tuple(names)


def engine_verdict_at_s(state: State, policy: Policy) -> float | None:
    """When a lost engine has been gone for restart_grace_period, None while it answers."""
    if state.engine.lost_at_s is None:
        return None
    return state.engine.lost_at_s + policy.restart_grace_period_s


def is_service_lost_with_engine(state: State, now: float, policy: Policy) -> bool:
    """Is the engine gone for good and the service with it (section 5)?

    Processes seen alive: no. Seen gone, all of them: yes. Not to be told: as `on_engine_lost` says.
    """
    at_s = engine_verdict_at_s(state, policy)
    if at_s is None or now < at_s or state.start_job is not None:
        return False
    if state.containers.alive:
        return False
    if state.containers.running is None:
        return policy.on_engine_lost is OnEngineLost.HANDOVER
    return True


def on_observed(turn: Turn, event: ContainersObserved) -> None:
    """A snapshot: the engine answers, and this is all it said."""
    state = turn.state
    # Each snapshot orders it again: until that is answered the last answer stands.
    error = state.engine.policy_error if state.containers.self_starting else ""
    engine = EngineView(reachable=True, withheld=event.withheld, policy_error=error)
    turn.state = replace(state, engine=engine)
    _see(turn, event.containers)


def on_changed(turn: Turn, event: ContainerChanged) -> None:
    """One container, fresh from the engine."""
    _see(turn, (event.container,))


def on_died(turn: Turn, event: ContainerDied) -> None:
    """`die` is down at once; one of an earlier incarnation is stale."""
    view = turn.state.containers.get(event.name)
    if view is None or view.incarnation != event.incarnation:
        turn.count_stale()
        return
    turn.set_container(
        _down(turn, replace(view, state=ContainerState.DOWN, detail=event.detail, alive=False))
    )


def on_engine_lost(turn: Turn, event: EngineLost) -> None:
    """The engine does not answer: unknown is not down (S4). Times already running go on."""
    lost_at_s = turn.state.engine.lost_at_s
    turn.state = replace(
        turn.state,
        engine=EngineView(
            reachable=False,
            lost_at_s=turn.now if lost_at_s is None else lost_at_s,
            error=event.error,
        ),
    )
    alive = dict(event.alive)
    views = turn.state.containers.values()
    turn.set_containers(_unseen(view, alive.get(view.name)) for view in views)


def _unseen(view: ContainerView, alive: bool | None) -> ContainerView:
    """The engine does not tell of it; `alive` is what was seen of its process, None: nothing."""
    return replace(
        view,
        state=ContainerState.UNKNOWN,
        detail="the engine does not answer",
        alive=view.alive if alive is None and view.alive is False else alive,
        up_since_s=None,
    )


def _see(turn: Turn, seen: Iterable[ContainerObservation]) -> None:
    """Take observations in; those of containers that are not managed say nothing."""
    known = turn.state.containers
    views = [_as_seen(turn, known[one.name], one) for one in seen if one.name in known]
    turn.set_containers(views)
    for view in views:
        _manage_restart_policy(turn, view)


def _as_seen(turn: Turn, view: ContainerView, seen: ContainerObservation) -> ContainerView:
    """`view` after an observation, forgetting nothing that must last until it has settled."""
    same = view.incarnation == seen.incarnation
    fresh = replace(
        view,
        state=seen.state,
        detail=seen.detail,
        exists=seen.exists,
        alive=seen.alive,
        incarnation=seen.incarnation,
        image=seen.image,
        settings=seen.settings,
        restart_policy=seen.restart_policy,
    )
    if seen.state is ContainerState.UP:
        stays_up = same and view.up_since_s is not None
        return replace(fresh, up_since_s=view.up_since_s if stays_up else turn.now)
    if seen.state is ContainerState.DOWN:
        return _down(turn, fresh)
    return replace(fresh, up_since_s=None)  # Unknown is not down (S4).


def _down(turn: Turn, view: ContainerView) -> ContainerView:
    """Start counting, where this node leads: on a standby everything is down on purpose."""
    if not turn.state.is_holding:
        return replace(view, up_since_s=None)
    since_s = turn.now if view.down_since_s is None else view.down_since_s
    return replace(view, up_since_s=None, down_since_s=since_s)


def count_from_now(turn: Turn) -> None:
    """This node leads from now on: what is down counts from now."""
    since_s = {ContainerState.DOWN: turn.now}
    views = turn.state.containers.values()
    turn.set_containers(_counted(view, since_s.get(view.state)) for view in views)


def stop_counting(turn: Turn) -> None:
    """This node does not lead any more: nothing is down against its will."""
    turn.set_containers(_counted(view, None) for view in turn.state.containers.values())


def _counted(view: ContainerView, since_s: float | None) -> ContainerView:
    """Down since then, as far as it counts; no repair has been tried."""
    return replace(view, down_since_s=since_s, attempts=0, next_attempt_at_s=None)


def settle(turn: Turn) -> None:
    """A container that has been up long enough in one incarnation is no longer down."""
    for view in turn.state.containers.counted:
        at_s = settled_at_s(turn.policy, view)
        if at_s is not None and turn.now >= at_s:
            turn.set_container(_counted(view, None))


def settled_at_s(policy: Policy, view: ContainerView) -> float | None:
    """When a container that came up again will have settled; None: nothing to settle."""
    if view.down_since_s is None or view.up_since_s is None:
        return None
    return view.up_since_s + policy.settled_after_s


def repair_at_s(state: State, policy: Policy, view: ContainerView) -> float | None:
    """When the next start of a dead container is due, None when none is.

    The first is `FIRST_REPAIR_AFTER_S` after it went down, the others are spread evenly over the
    rest of the grace; after the verdict they go on, one such pause apart. `restart_attempts` of 0
    means no repair, but for a promotion that failed.
    """
    since_s = counts_from_s(state, policy, view)
    dead = view.state is ContainerState.DOWN and view.exists and view.alive is False
    may_repair = policy.restart_attempts > 0 or state.phase is Phase.FAILED
    if not dead or since_s is None or not may_repair or view.name in state.repairing:
        return None
    grace_s = policy.restart_grace_period_s
    if view.next_attempt_at_s is not None:
        return view.next_attempt_at_s
    return since_s + (min(FIRST_REPAIR_AFTER_S, grace_s / 8) if grace_s else SHORTEST_PAUSE_S)


def repair(turn: Turn) -> None:
    """Start the dead containers whose next attempt is due, while that is allowed (H4, G1)."""
    in_time = turn.now < leases.stop_at_s(turn.state, turn.policy)
    is_watched = leases.is_guarded(turn.state, turn.policy)
    if not (in_time and is_watched) or _is_served_elsewhere(turn):
        return
    for view in turn.state.containers.counted:
        at_s = repair_at_s(turn.state, turn.policy, view)
        held_term = turn.state.held_term
        if at_s is None or turn.now < at_s or held_term is None:
            continue
        pause_s = turn.policy.restart_grace_period_s / max(turn.policy.restart_attempts, 1)
        turn.set_container(
            replace(
                view,
                attempts=view.attempts + 1,
                next_attempt_at_s=turn.now
                + min(max(pause_s, SHORTEST_PAUSE_S), LONGEST_REPAIR_PAUSE_S),
            )
        )
        turn.state = replace(turn.state, repairing=turn.state.repairing | {view.name})
        turn.emit(RepairContainer(term=held_term, name=view.name))


def _is_served_elsewhere(turn: Turn) -> bool:
    """Could this node start nothing, and does another run it all, though it leads in no term?

    It was left running there for want of anybody else (S5); two are not better than one.
    """
    state = turn.state
    return state.phase is Phase.FAILED and any(
        peer.running == len(state.containers)
        and not peer.holding
        and reports.is_heard_lately(peer, turn.now, turn.policy)
        for peer in state.peers.values()
    )


def on_repair_finished(turn: Turn, event: RepairFinished) -> None:
    """A repair came to its end; what became of the container is for the engine to tell."""
    if event.name not in turn.state.repairing or event.term != turn.state.held_term:
        turn.count_stale()
        return
    turn.state = replace(turn.state, repairing=turn.state.repairing - {event.name})
    view = turn.state.containers[event.name]
    if event.error:
        turn.set_container(replace(view, detail=f"{view.detail}; start failed: {event.error}"))
    else:
        turn.set_container(replace(view, restarts=view.restarts + 1))


def _manage_restart_policy(turn: Turn, view: ContainerView) -> None:
    """Docker must not start a managed container by itself (section 5)."""
    wanted = view.restart_policy in ("", "no") or not view.exists
    asked = view.name in turn.state.managing
    if wanted or asked or turn.policy.restart_policy is not RestartPolicyMode.MANAGE:
        return
    turn.state = replace(turn.state, managing=turn.state.managing | {view.name})
    turn.emit(ManageRestartPolicy(name=view.name, was=view.restart_policy))


def on_restart_policy_set(turn: Turn, event: RestartPolicySet) -> None:
    """The order is answered; an error is seen again, and tried again, with the next snapshot."""
    engine = replace(turn.state.engine, policy_error=event.error)
    turn.state = replace(turn.state, managing=turn.state.managing - {event.name}, engine=engine)
    view = turn.state.containers.get(event.name)
    if view is not None and not event.error:
        turn.set_container(replace(view, restart_policy="no"))


def moments_s(state: State, policy: Policy) -> Iterator[float | None]:
    """The moments at which something here becomes due; None where nothing will."""
    if not state.is_holding:
        return
    yield engine_verdict_at_s(state, policy)
    if state.phase not in (Phase.ACTIVE, Phase.FAILED):
        return  # All are down while they are started and stopped, and nothing comes of it.
    for view in state.containers.counted:
        yield settled_at_s(policy, view)
        yield repair_at_s(state, policy, view)
        if view.state is ContainerState.DOWN:
            yield verdict_at_s(state, policy, view)
