"""The safety rules that every step must keep; a breach is a fault of the program."""

from __future__ import annotations

from failover_agent.core import leases
from failover_agent.core.effects import RepairContainer, StartContainers, StopContainers
from failover_agent.core.plan import Step
from failover_agent.core.policy import Policy
from failover_agent.core.state import FOREVER, HOLDING_PHASES, Phase, State


class Breach(AssertionError):  # noqa: N818 - what it is, not an error of the user
    """A step broke a safety rule: stop rather than go on."""


def check(before: State, after: Step, policy: Policy) -> None:
    """Raise Breach when the step from `before` to `after` breaks a rule of section 4."""
    new, old = after.state, before.durable
    durable = new.durable
    _hold("S3: a term went back", durable.term >= old.term)
    regranted = durable.term == old.term and durable.holder != old.holder
    gave_way = old.holder == before.me and not before.is_holding
    _hold("V2: one term was granted to two holders", not regranted or gave_way)
    promise = before.promise
    stands = promise is not None and new.stepped_at_s < promise.until_s < FOREVER
    is_ours = new.durable.holder == new.me and durable.term > old.term
    is_broken = stands and promise is not None and promise.holder != new.me and is_ours
    _hold("V1: a promise that stood was broken", not (policy.requires_lease and is_broken))
    agrees = (new.phase in HOLDING_PHASES) == new.is_holding
    fences_for_a_vote = new.phase is Phase.FENCING and not policy.requires_lease
    _hold("V5: phase and held term disagree", agrees or fences_for_a_vote)
    _hold("V5: a holder promised itself away", not new.is_holding or durable.holder == new.me)
    _hold("S3: a term is held that was never saved", (new.held_term or 0) <= durable.term)
    kinds = StartContainers | RepairContainer
    starts = [effect for effect in after.effects if isinstance(effect, kinds)]
    _hold("V1: a start without a held term", all(start.term == new.held_term for start in starts))
    allowed = not starts or new.stepped_at_s < leases.start_deadline_s(new, policy)
    _hold("H4: a start when the lease ends", allowed)
    _hold("G1: a start that no guard watches", not starts or leases.is_guarded(new, policy))
    stopping = not new.is_holding or (new.handover is not None and new.handover.is_stopping)
    in_time = stopping or new.stepped_at_s < leases.must_stop_at_s(new, policy)
    _hold("H3: a lease ends and nothing stops", in_time)
    stops = any(isinstance(effect, StopContainers) for effect in after.effects)
    _hold(
        "plan: a holder's stop waits for a disk", not (stops and new.is_holding and durable != old)
    )
    _hold("V3: a change that cannot be saved", new.may_save or durable == old)
    same = new.containers is before.containers or tuple(new.containers) == policy.containers
    _hold("policy: a container appeared or went", same)


def _hold(rule: str, is_kept: bool) -> None:
    if not is_kept:
        raise Breach(rule)
