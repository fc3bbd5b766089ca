"""The safety rules that every step must keep; a breach is a fault of the program."""

from __future__ import annotations

from failover_agent.core.effects import StartContainers, StopContainers
from failover_agent.core.plan import Step
from failover_agent.core.policy import Policy
from failover_agent.core.state import HOLDING_PHASES, State


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
    _hold("V5: phase and held term disagree", (new.phase in HOLDING_PHASES) == new.is_holding)
    _hold("V5: a holder promised itself away", not new.is_holding or durable.holder == new.me)
    _hold("S3: a term is held that was never saved", (new.held_term or 0) <= durable.term)
    starts = [effect for effect in after.effects if isinstance(effect, StartContainers)]
    _hold("V1: a start without a held term", all(start.term == new.held_term for start in starts))
    stops = any(isinstance(effect, StopContainers) for effect in after.effects)
    _hold(
        "plan: a holder's stop waits for a disk", not (stops and new.is_holding and durable != old)
    )
    _hold("V3: a change that cannot be saved", new.may_save or durable == old)
    _hold("policy: a container appeared or went", tuple(new.containers) == policy.containers)


def _hold(rule: str, is_kept: bool) -> None:
    if not is_kept:
        raise Breach(rule)
