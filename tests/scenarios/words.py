"""What a transcript says of an event, an order, a change of phase and an alarm.

Beats are left out unless they ask for a hold, and so are questions, answers and releases that are
said again word by word.
"""

from __future__ import annotations

from collections.abc import Iterator

from failover_agent.core.effects import (
    ArmGuard,
    DisarmGuard,
    Effect,
    Exit,
    ManageRestartPolicy,
    MoveDeadline,
    RepairContainer,
    Reply,
    ReplyToOperator,
    RunFence,
    SendHeartbeat,
    SendRelease,
    SendVoteRequest,
    StartContainers,
    StopContainers,
)
from failover_agent.core.events import (
    ContainersStarted,
    ContainersStopped,
    EngineLost,
    Event,
    FenceFinished,
    GuardFailed,
    RecordWritable,
    RecordWriteFailed,
    RepairFinished,
    StartFailed,
    StopFailed,
    VoteFailed,
)
from failover_agent.core.messages import Answer, ReleaseAnswer, VoteAnswer
from failover_agent.core.plan import Save, Transition
from failover_agent.core.state import Durable, State


def of_transition(transition: Transition) -> str:
    """A change of phase: the rule in brackets is the edge's."""
    return (
        f"{transition.before} -> {transition.after}: {transition.reason},"
        f" term {transition.term} [{transition.rule}]"
    )


def of_event(event: Event) -> str:
    """What came, or "" for what a reader does not miss."""
    match event:
        case ContainersStarted():
            return "started all containers"
        case StartFailed():
            return f"started not: {event.name}: {event.error}"
        case RepairFinished():
            return f"repaired {event.name}" + (f" not: {event.error}" if event.error else "")
        case ContainersStopped():
            return "stopped, and that is confirmed"
        case StopFailed():
            return f"stopped? cannot be confirmed: {', '.join(event.names)}: {event.error}"
        case EngineLost():
            alive = [name for name, lives in event.alive if lives]
            return f"engine lost; processes seen: {', '.join(alive) or 'none'}"
        case RecordWriteFailed():
            return f"record not written: {event.error}"
        case RecordWritable():
            return "record written again"
        case VoteFailed():
            return f"answer missing: {event.kind} {event.error}"
        case GuardFailed():
            return f"the guard does not watch: {event.error}"
        case FenceFinished():
            return f"fenced the {event.target}" + (f" not: {event.error}" if event.error else "")
        case _:
            return ""


def of_order(item: Effect | Save) -> str:
    """What is ordered, or "" for a beat."""
    match item:
        case Save():
            return of_save(item.durable)
        case SendHeartbeat():
            return f"beats to the {item.to}, asking it to hold" if item.beat.hold else ""
        case SendVoteRequest():
            asked = item.request
            term = f" term {asked.term}" if asked.term else ""
            return f"asks the {item.to}: {asked.kind}{term} ({asked.reason})"
        case SendRelease():
            to = f"to the {item.request.to}" if item.request.to else "to nobody"
            return f"releases term {item.request.term} {to} ({item.request.reason})"
        case Reply():
            return of_answer(item.answer)
        case ReplyToOperator():
            return f"tells the operator: {'yes' if item.accepted else 'no'}: {item.sentence}"
        case StartContainers():
            return f"starts {', '.join(item.names)} in term {item.term}"
        case RepairContainer():
            return f"repairs {item.name} in term {item.term}"
        case StopContainers():
            verb = "kills" if item.grace_s == 0 else "stops"
            within = f" within {item.grace_s:.1f} s" if item.grace_s else ""
            return f"{verb} {', '.join(item.names)} in term {item.term}{within}"
        case ArmGuard():
            return f"arms the guard over {', '.join(item.names)} in term {item.term}"
        case MoveDeadline():
            return ""
        case DisarmGuard():
            return "disarms the guard"
        case RunFence():
            return f"fences the {item.target} in term {item.term} ({item.reason})"
        case ManageRestartPolicy():
            return f"sets the restart policy of {item.name} from {item.was} to no"
        case Exit():
            return f"exits: {item.sentence}"


def of_change(before: State, after: State) -> Iterator[str]:
    """The alarms that opened, changed their words, or ended; an overlap that was measured."""
    for code, alarm in after.alarms.items():
        if code not in before.alarms or before.alarms[code].sentence != alarm.sentence:
            yield f"alarm {code}: {alarm.sentence}"
    for code in before.alarms:
        if code not in after.alarms:
            yield f"alarm {code} is over"
    overlap = after.overlap
    if overlap != before.overlap and overlap is not None and overlap.ended_at_s is not None:
        yield f"measured the overlap: {overlap.ended_at_s - overlap.began_at_s:.2f} s"


def _record(durable: Durable) -> str:
    holder = "of nobody" if durable.holder is None else f"of the {durable.holder.role}"
    words = [f"term {durable.term} {holder}"]
    words += ["released"] if durable.released and durable.holder else []
    words += ["led here"] if durable.led else []
    words += ["on hold"] if durable.hold else []
    words += ["flapping"] if durable.on_hold_for_flapping else []
    heard = " and the ".join(sorted(durable.heard))
    words += [f"has heard the {heard}"] if heard and not durable.holder else []
    return ", ".join(words)


def of_save(durable: Durable) -> str:
    """What goes on disk."""
    return f"saves {_record(durable)}"


def of_answer(answer: Answer) -> str:
    """A vote or the like, or "" for the answer to a beat."""
    match answer:
        case VoteAnswer():
            vote = answer.vote
            if vote.granted:
                return f"answers yes to {answer.kind}"
            promised = "" if vote.holder is None else f"; promised to the {vote.holder.role}"
            return f"answers no to {answer.kind}: {vote.refusal}{promised}"
        case ReleaseAnswer():
            return f"answers that term {answer.released_term} is released"
        case _:
            return ""
