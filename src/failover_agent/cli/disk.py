"""What is known of a node from its files, where no agent answers: the record and the journal."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from failover_agent.cli import output
from failover_agent.cli.control import Place
from failover_agent.core.state import Durable, Holder, Reason

Transition = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Known:
    """One state_dir. `record` None: there is none, or `problem` says why it cannot be read."""

    state_dir: Path
    record: Any
    problem: str
    last: Transition | None


def read(where: tuple[Place, ...]) -> list[Known]:
    """What stands in each state_dir that is known."""
    from failover_agent.adapters.journal import read_history
    from failover_agent.adapters.record import read_record
    from failover_agent.errors import RecordError

    found = []
    for state_dir in _state_dirs(where):
        record, problem = None, ""
        try:
            record = read_record(state_dir)
        except RecordError as error:
            problem = str(error)
        transitions = read_history(state_dir, 1)
        found.append(Known(state_dir, record, problem, transitions[-1] if transitions else None))
    return found


def history(where: tuple[Place, ...], limit: int) -> list[Transition]:
    """The last transitions in the journals on this disk, newest last."""
    from failover_agent.adapters.journal import read_history

    # Each in the order in which it was written: somebody may have set the clock.
    each = [read_history(state_dir, limit) for state_dir in _state_dirs(where)]
    merged: list[Transition] = [*heapq.merge(*each, key=_wall)]
    return merged[-limit:]


def _wall(transition: Transition) -> str:
    return str(transition["wall"])


def _state_dirs(where: tuple[Place, ...]) -> list[Path]:
    return list(dict.fromkeys(place.state_dir for place in where if place.state_dir is not None))


def as_json(known: Known) -> Mapping[str, Any]:
    """For scripts; a moment is wall time."""
    record = known.record
    return {
        "state_dir": str(known.state_dir),
        "problem": known.problem or None,
        "cluster": record and record.cluster,
        "role": record and record.role,
        "term": record and record.durable.term,
        "holder": record and record.durable.holder and record.durable.holder.role,
        "released": record and record.durable.released,
        "held": record and record.durable.hold,
        "last_transition": known.last,
    }


def lines(known: Known) -> list[str]:
    """For people."""
    told = [f"From disk ({known.state_dir}):"]
    if known.problem:
        told.append(output.paragraph(known.problem, "  "))
    elif known.record is None:
        told.append("  no record: no agent has run here yet")
    else:
        told.append(output.paragraph(_sentence(known.record, known.last), "  "))
    if known.last is not None:
        told.append("  the last change:")
        told += transition_lines(known.last, indent="    ")
    return told


def _sentence(record: Any, last: Transition | None) -> str:
    """What the record says, and before it what the journal knows of a stop in good order."""
    durable, told = record.durable, []
    stopped_term = None
    if last is not None and last["reason"] == Reason.ALL_STOPPED:
        stopped_term = last["term"]
        told.append(f"stopped here in good order (term {stopped_term} released)")
    if durable.holder is None:
        told.append("no term was granted yet")
    elif durable.holder == Holder(record.role, record.node_id):
        is_told = durable.released and stopped_term == durable.term
        told += [] if is_told else [_of_own_term(durable)]
    else:
        told.append(_of_another(durable))
    return f"{record.cluster}, {record.role}: {'; '.join(told)}"


def _of_own_term(durable: Durable) -> str:
    if durable.released:
        return f"this node gave term {durable.term} back"
    if durable.led:
        return (
            f"this node led in term {durable.term} when its agent last ran: its containers may run "
            "here"
        )
    return f"this node asked for term {durable.term} when its agent last ran"


def _of_another(durable: Durable) -> str:
    assert durable.holder is not None
    holder = durable.holder.role
    if durable.released:
        return f"the {holder} gave term {durable.term} back"
    left = ", and left its containers running (on hold)" if durable.hold else ""
    return f"the {holder} held term {durable.term} when this agent last ran{left}"


def transition_lines(transition: Transition, indent: str = "") -> list[str]:
    """When, what, and why."""
    head = (
        f"{local_time(transition['wall'])}  term {transition['term']}  "
        f"{transition['from']} -> {transition['to']}  ({transition['reason']})"
    )
    sentence = output.paragraph(str(transition.get("sentence", "")), f"{indent}    ")
    return [output.cut(indent + output.printable(head)), *sentence.splitlines()]


def local_time(wall: str) -> str:
    """The time of day of this host; as it stands in the journal where it is none."""
    try:
        return f"{datetime.fromisoformat(wall).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    except ValueError:
        return wall
